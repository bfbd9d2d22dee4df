"""How many bytes a model takes: its parameters, what a forward holds, what it keeps for the backward pass.

Parameters are counted on the meta device, on the model itself, so that the count cannot drift from the code. The rest
is arithmetic over ``DecoderConfig``, per row of a forward, each term named after the tensor it stands for; a test
compares it with what autograd saves and what is alive in real passes. Bytes are of the dtype (``narrow``) or of
max(fp32, dtype) (``wide``), in which norms and rotary angles compute.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from revelm.models.attention import MAX_DENSE, PART_QUERIES
from revelm.models.checkpoint_files import CONFIG, is_hub_id, read_json, resolve_checkpoint
from revelm.models.decoder import DecoderConfig
from revelm.models.experts import ExpertsConfig
from revelm.models.kind import Kind, kind_of
from revelm.models.language_model import LanguageModel
from revelm.models.load import empty_model
from revelm.models.lora import LoraSpec, target_modules
from revelm.models.quantize import BYTES_PER_WEIGHT, quantisable

INT64 = 8
FP32 = 4
ANY_IDS = {"mask_id": 0, "pad_id": 0, "stop_ids": (0,)}
EXPANDED = ("q_proj", "k_proj", "v_proj", "qkv_proj")


def config_without_weights(path_or_id: str) -> dict[str, Any]:
    """config.json of a checkpoint directory, a run directory, a hub id (only this file is fetched), or the file itself.

    ValueError when there is none.
    """
    path = Path(path_or_id).expanduser()
    if not path.exists() and is_hub_id(path_or_id):
        path = Path(_fetch_config(path_or_id))
    file = path if path.is_file() else resolve_checkpoint(path) / CONFIG
    config = read_json(file)
    if config is None:
        raise ValueError(f"{file} is missing: give a checkpoint directory, a hub id or a config.json")
    return config


def _fetch_config(name: str) -> str:
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(name, CONFIG)
    except Exception as error:  # a boundary: the network and its many libraries
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"model {name!r} is no local directory, and its config.json cannot be had: {reason}"
        ) from error


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters. ``largest``: of the largest trained tensor; ``adapter``: of LoRA weights, not in total."""

    total: int
    embedding: int
    experts: int
    largest: int
    buffers: int
    adapter: int = 0

    @property
    def trained(self) -> int:
        """Parameters that get gradients."""
        return self.adapter or self.total


@dataclass(frozen=True)
class Footprint:
    """Bytes of one model. ``adapted``: names of linear maps (q_proj, ...) with a LoRA of ``rank``; rank 0: none.

    ``is_dense``: who sees whom is a dense mask (CPU); on CUDA it is a block mask, which is small. ``packed``: weights
    that are kept in 4 bits.
    """

    kind: Kind
    sizes: DecoderConfig
    counts: Counts
    narrow: int
    is_dense: bool = True
    rank: int = 0
    adapted: frozenset[str] = frozenset()
    packed: int = 0

    @property
    def wide(self) -> int:
        """Bytes of one number in max(fp32, dtype)."""
        return max(FP32, self.narrow)

    @property
    def query(self) -> int:
        """Width of all query heads."""
        return self.sizes.num_attention_heads * self.sizes.head_dim

    @property
    def shared(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.sizes.num_key_value_heads * self.sizes.head_dim

    @property
    def weights(self) -> int:
        """Parameters (adapters too) in the dtype, packed ones in 4 bits with their scales, buffers in fp32."""
        plain = self.counts.total + self.counts.adapter - self.packed
        return plain * self.narrow + int(self.packed * BYTES_PER_WEIGHT) + self.counts.buffers * FP32

    def mask(self, rows: int, length: int) -> int:
        """What says who sees whom in ``rows`` lines of ``length`` positions.

        Short lines: the additive mask that all layers share. Long ones: that of one part at a time, and what it is
        made of.
        """
        if not self.is_dense or length <= MAX_DENSE:
            return rows * length * length * self.narrow if self.is_dense else 0
        return max(length * PART_QUERIES * (self.narrow + 2), MAX_DENSE * MAX_DENSE * self.narrow)

    def kept(self, positions: int, *, recomputes: bool, wanted: int | None = None) -> int:
        """What autograd keeps of a forward over ``positions`` rows, attention masks not counted.

        ``wanted``: of so many rows alone features are asked for, where it is not all of them.
        """
        layers, hidden = range(self.sizes.num_hidden_layers), self.sizes.hidden_size
        if recomputes:
            inside = positions * len(layers) * hidden * self.narrow
        else:
            inside = positions * sum(self.kept_by_layer(i) for i in layers)
            if wanted is not None:
                inside += wanted * self._input(self.query, "o_proj")
                inside -= (positions - wanted) * self._kept_behind(layers[-1])
        angles = 2 * self.sizes.rope.dim * self.wide
        if wanted is None:
            aligned = positions * (hidden * self.narrow + INT64) if self.kind.is_shifted else 0
        else:
            aligned = wanted * INT64
        ends = positions if wanted is None else wanted
        return inside + positions * (angles + INT64) + aligned + ends * self._norm(hidden, 1)

    def kept_by_layer(self, layer: int) -> int:
        """Bytes per row that layer ``layer`` keeps for its backward pass."""
        return self._kept_before() + self._kept_behind(layer)

    def _kept_before(self) -> int:
        """Up to the mixed values of attention: what every row has."""
        hidden, heads = self.sizes.hidden_size, self.sizes.num_attention_heads
        kept = self._norm(hidden, 1) + self._input(hidden, *EXPANDED)
        if self.sizes.has_qk_norm:
            kept += self._norm(self.query, heads) + self._norm(self.shared, self.sizes.num_key_value_heads)
        kept += 2 * (self.query + self.shared) * self.narrow + heads * self.wide  # q, k, v, output, log-sum-exp
        return kept + self._adapters(*EXPANDED)

    def _kept_behind(self, layer: int) -> int:
        """From there on: in the last layer, what rows have whose features are wanted."""
        hidden = self.sizes.hidden_size
        kept = self._adapters("o_proj") + self._norm(hidden, 1)
        experts = self._experts(layer)
        if experts is None:
            return kept + self._dense(hidden, self.sizes.intermediate_size)
        return kept + self._sparse(experts)

    def backward(self, positions: int) -> int:
        """The most that a layer's backward pass holds beside what was kept and its weights' gradients."""
        ffn, hidden = self._widest(), self.sizes.hidden_size
        mixing = 2 * ffn * self.narrow + 2 * hidden * self.narrow
        attention = (3 * self.query + 2 * self.shared + 2 * hidden) * self.wide
        return positions * max(mixing, attention)

    def forward(self, positions: int, *, keys: int = 0) -> int:
        """The most that a forward over ``positions`` rows holds without autograd.

        ``keys``: rows attend over a cache of that many positions; each has a mask row for every query head of a group.
        """
        hidden = self.sizes.hidden_size
        mixing = 3 * hidden * self.narrow + self._mixing()
        rotation = (2 * hidden + self.query + 2 * self.shared) * self.narrow + 4 * self.query * self.wide
        attention = (2 * hidden + (5 if keys else 2) * self.query + 2 * self.shared) * self.narrow
        if keys:
            group = self.sizes.num_attention_heads // self.sizes.num_key_value_heads
            attention += group * keys * (self.narrow + 1)
        most = positions * max(mixing, rotation, attention)
        return most + positions * 2 * self.sizes.rope.dim * self.wide

    def _mixing(self) -> int:
        """Bytes per row in the widest feed-forward: gate, up and their product; for experts, rows in and out too."""
        found = [0]
        for layer in range(self.sizes.num_hidden_layers):
            experts = self._experts(layer)
            if experts is None:
                found.append(3 * self.sizes.intermediate_size * self.narrow)
                continue
            inner, outer = experts.intermediate_size * self.narrow, experts.hidden_size * self.narrow
            weighted = experts.hidden_size * (self.wide if experts.is_router_wide else self.narrow)
            found.append(experts.experts_per_token * (outer + inner + max(2 * inner, 2 * outer, outer + weighted)))
            found.append(3 * experts.shared_intermediate_size * self.narrow)
        return max(found)

    def _norm(self, size: int, groups: int) -> int:
        """Wide input and 1 / rms; before a trained weight, the normalised rows too."""
        return (size + groups) * self.wide + (0 if self.rank else size * self.narrow)

    def _input(self, size: int, *names: str) -> int:
        """The input of linear maps ``names``, kept for the gradients of their weights or adapters."""
        return size * self.narrow if not self.rank or self.adapted & set(names) else 0

    def _adapters(self, *names: str) -> int:
        return sum(self.rank * self.narrow for name in names if name in self.adapted)

    def _dense(self, hidden: int, inner: int) -> int:
        """Input, gate, up, silu(gate) and their product."""
        kept = self._input(hidden, "gate_proj", "up_proj") + 3 * inner * self.narrow + self._input(inner, "down_proj")
        return kept + self._adapters("gate_proj", "up_proj", "down_proj")

    def _sparse(self, experts: ExpertsConfig) -> int:
        """Router (scores, choice, weights); per chosen expert its input, four inner rows, its output, two orders."""
        router = experts.num_experts * self.wide + experts.experts_per_token * (INT64 + 3 * self.wide)
        is_copied = experts.is_router_wide and self.narrow < self.wide
        router += experts.hidden_size * self.wide if is_copied and not self.rank else 0
        each = 2 * INT64 + (2 if not self.rank else 1) * experts.hidden_size * self.narrow
        each += (4 if not self.rank else 3) * experts.intermediate_size * self.narrow
        shared = experts.shared_intermediate_size
        own = self._dense(experts.hidden_size, shared) if shared else self._input(experts.hidden_size)
        return router + experts.experts_per_token * each + own

    def _experts(self, layer: int) -> ExpertsConfig | None:
        return None if layer in self.sizes.dense_layers else self.sizes.experts

    def _widest(self) -> int:
        """Feed-forward numbers per row and intermediate tensor, in the widest layer."""
        found = [0]
        for layer in range(self.sizes.num_hidden_layers):
            experts = self._experts(layer)
            if experts is None:
                found.append(self.sizes.intermediate_size)
            else:
                width = max(experts.intermediate_size, experts.hidden_size)
                found.append(experts.experts_per_token * width + experts.shared_intermediate_size)
        return max(found)


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A model on the meta device: every shape, no memory. ``config``: its config.json."""

    config: Mapping[str, Any]
    kind: Kind
    model: LanguageModel

    def footprint(
        self, itemsize: int, *, is_dense: bool = True, lora: LoraSpec | None = None, is_packed: bool = False
    ) -> Footprint:
        """Its bytes in a dtype of ``itemsize`` bytes; with the adapter ``lora``, and linear maps in 4 bits, or not."""
        found = Footprint(self.kind, self.model.sizes, count(self.model), itemsize, is_dense)
        if is_packed:
            packed = sum(_linear(self.model, name).weight.numel() for name in quantisable(self.model))
            found = replace(found, packed=packed)
        return found if lora is None else with_adapter(found, self.model, lora)


def blueprint(config: Mapping[str, Any]) -> Blueprint:
    """The model that ``config`` (config.json) describes. ValueError when it is of no known family."""
    kind = kind_of(config)
    return Blueprint(config, kind, empty_model(kind, config, ANY_IDS))


def count(model: nn.Module) -> Counts:
    """Parameters of ``model``; a tensor that is in two places (a tied head) counts once."""
    named = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return Counts(
        total=sum(named.values()),
        embedding=sum(n for name, n in named.items() if "embed_tokens" in name or "lm_head" in name),
        experts=sum(n for name, n in named.items() if ".experts." in name),
        largest=max(named.values()),
        buffers=sum(buffer.numel() for buffer in model.buffers()),
    )


def with_adapter(found: Footprint, model: LanguageModel, spec: LoraSpec) -> Footprint:
    """``found`` with a LoRA as in ``spec``: two matrices for each of its linear maps, and nothing else is trained."""
    names = target_modules(model, spec.targets)
    ends = [(linear.in_features, linear.out_features) for linear in (_linear(model, name) for name in names)]
    adapter = sum(spec.rank * (one + other) for one, other in ends)
    largest = max(spec.rank * max(pair) for pair in ends)
    counts = replace(found.counts, adapter=adapter, largest=largest)
    adapted = frozenset(name.rpartition(".")[2] for name in names)
    return replace(found, counts=counts, rank=spec.rank, adapted=adapted)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    linear = model.get_submodule(name)
    assert isinstance(linear, nn.Linear), f"{name} is no linear map"
    return linear
