"""The diffusion value model: what the rest of an answer is worth, seen from a hidden position (arXiv 2509.06949, 4.3).

A backbone of any family, and a bias-free head from its features to one number, which starts at zero: V = 0 everywhere,
so that the first advantages are plain returns. The backbone is the policy's own (shared: one forward gives the
log-probabilities and the values), or another one, copied from the policy or read from a checkpoint; then it has no
language head, so that everything in it is trained.

On disk a value model of its own is a checkpoint directory without a language head (official names, through the table of
its family), plus ``value_head.safetensors`` and ``value_head.json``, which holds the ids that the family's facts need.
"""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from revelm.core.types import Family
from revelm.masks.visibility import Pattern
from revelm.models.checkpoint_files import CONFIG, companions, read_json, read_model_config, resolve_checkpoint
from revelm.models.kind import kind_of
from revelm.models.language_model import Backbone
from revelm.models.load import empty_model, load_model
from revelm.models.names import Piece, pieces
from revelm.models.save import save_model
from revelm.models.shards import stored_tensors

HEAD_WEIGHTS, HEAD_FACTS = "value_head.safetensors", "value_head.json"
WEIGHT = "value_head.weight"


class ValueHead(nn.Module):
    """One number per feature row, in max(fp32, dtype); no bias; zero at first."""

    def __init__(self, size: int, *, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        wide = torch.promote_types(dtype, torch.float32)
        self.weight = nn.Parameter(torch.zeros(size, dtype=wide, device=device))

    def forward(self, features: Tensor) -> Tensor:
        """[..., size] -> [...]."""
        return features.to(self.weight.dtype) @ self.weight


class ValueModel(nn.Module):
    """``backbone`` and a head. Where the backbone is the policy itself, this is what the optimiser trains: both."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.value_head = ValueHead(backbone.sizes.hidden_size, dtype=backbone.dtype, device=backbone.device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.device

    @property
    def family(self) -> Family:
        """The backbone's facts."""
        return self.backbone.family

    def body(self, tokens: Tensor, positions: Tensor, pattern: Pattern | None, *, rows: Tensor | None = None) -> Tensor:
        """Features [R, L, hidden]; row i is about token i. With ``rows``, theirs alone (``Backbone.body``)."""
        return self.backbone.body(tokens, positions, pattern, rows=rows)


def copied_value_model(policy: Backbone) -> ValueModel:
    """A value model with a backbone of its own that starts as a copy of the policy's, all of it to be trained.

    ValueError for a policy with an adapter or in 4 bits.
    """
    if policy.adapter is not None or policy.quantization is not None:
        what = "an adapter" if policy.quantization is None else f"{policy.quantization} weights"
        raise ValueError(
            f"value.backbone: 'own' trains a copy of all weights, but the policy has {what}; use 'shared', or name a "
            "checkpoint to start from in value.path"
        )
    return ValueModel(_headless(policy, copy.deepcopy(policy.decoder))).requires_grad_(True)


def load_value_model(path_or_id: str | Path, *, dtype: torch.dtype, device: torch.device | str) -> ValueModel:
    """The value model saved at ``path_or_id``; from the checkpoint of a language model, one with a zero head.

    Every parameter is in ``dtype``, the head in max(fp32, dtype). ValueError for files that are damaged or incomplete,
    as in ``revelm.models.load.load_model``.
    """
    folder = resolve_checkpoint(path_or_id)
    if not (folder / HEAD_WEIGHTS).is_file():
        loaded = load_model(path_or_id, dtype=dtype, device=str(device))
        return ValueModel(_headless(loaded, loaded.decoder)).requires_grad_(True)
    model = ValueModel(_read_backbone(folder, torch.zeros(0, dtype=dtype, device=device)))
    load_value_head(model.value_head, folder)
    return model


def save_value_model(model: ValueModel, folder: str | Path) -> None:
    """Write the backbone under official names, and the head, into ``folder``. Errors as in ``save_model``."""
    save_model(model.backbone, folder)
    save_value_head(model, folder)


def save_value_head(model: ValueModel, folder: str | Path) -> None:
    """Write the head alone into ``folder``, which is created if missing."""
    target, family = Path(folder), model.family
    target.mkdir(parents=True, exist_ok=True)
    facts = {"mask_id": family.mask_id, "pad_id": family.pad_id, "stop_ids": list(family.stop_ids)}
    (target / HEAD_FACTS).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file({WEIGHT: model.value_head.weight.detach().contiguous()}, target / HEAD_WEIGHTS, metadata={"format": "pt"})


def load_value_head(head: ValueHead, folder: str | Path) -> None:
    """Fill ``head`` from ``folder``. ValueError when the file is missing, damaged, or of another size."""
    file = Path(folder) / HEAD_WEIGHTS
    if not file.is_file():
        raise ValueError(f"{file} is missing: not a value model, or one that was only half written")
    try:
        found = load_file(file)
    except Exception as error:  # a boundary: the format's own errors share no class
        raise ValueError(f"{file} is damaged ({type(error).__name__}); copy it again") from error
    weight = found.get(WEIGHT)
    if weight is None or weight.shape != head.weight.shape:
        shape = None if weight is None else list(weight.shape)
        raise ValueError(f"{file}: {WEIGHT} has shape {shape}, the backbone needs {list(head.weight.shape)}")
    with torch.no_grad():
        head.weight.copy_(weight)


def _headless(model: Backbone, decoder: nn.Module) -> Backbone:
    """The facts of ``model`` around ``decoder``."""
    with torch.device("meta"):
        backbone = Backbone(model.family, model.sizes, model.config)
    backbone.decoder = decoder
    backbone.companions, backbone.source = dict(model.companions), model.source
    return backbone


def _read_backbone(folder: Path, like: Tensor) -> Backbone:
    """The backbone in ``folder``, parameters in the dtype and place of ``like``; buffers as they are stored."""
    config, facts = read_model_config(folder), read_json(folder / HEAD_FACTS)
    if facts is None or not {"mask_id", "pad_id", "stop_ids"} <= facts.keys():
        raise ValueError(f"{folder / HEAD_FACTS} is missing or lacks ids: the value model was only half written")
    kind = kind_of(config, where=str(folder / CONFIG))
    empty = empty_model(kind, config, facts)
    backbone = _headless(empty, empty.decoder)
    wanted = {piece.official: piece for piece in pieces(backbone.state_dict(), kind.names)}
    stored, shapes = stored_tensors(folder), backbone.state_dict()
    _check(wanted, {name: tensor.shape for name, tensor in stored.items()}, shapes, folder)
    parameters = {name for name, _ in backbone.named_parameters()}
    dtypes = {p.native: like.dtype if p.native in parameters else stored[n].dtype for n, p in wanted.items()}
    state = {n: torch.empty(t.shape, dtype=dtypes[n], device=like.device) for n, t in shapes.items()}
    for name, piece in wanted.items():
        stored[name].read_into(piece.of(state))
    backbone.load_state_dict(state, assign=True)
    backbone.companions, backbone.source = companions(folder, config), str(folder)
    return backbone


def _check(wanted: dict[str, Piece], stored: dict[str, Any], shapes: dict[str, Tensor], folder: Path) -> None:
    """ValueError unless the files hold exactly the tensors of the backbone."""
    missing, unknown = [n for n in wanted if n not in stored], [n for n in stored if n not in wanted]
    if missing or unknown:
        what = f"lacks {missing[0]!r}" if missing else f"has {unknown[0]!r} beyond its backbone"
        raise ValueError(f"{folder} {what}: not a value model of its config.json")
    for name, piece in wanted.items():
        expected = tuple(piece.of(shapes).shape)
        if stored[name] != expected:
            raise ValueError(f"{folder}: {name} has shape {list(stored[name])}, config.json implies {list(expected)}")
