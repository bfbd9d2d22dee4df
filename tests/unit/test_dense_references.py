"""Every diffusion family against a plain second reading of its authors' files (``tests/dense_reference.py``).

Checkpoints are written here under their official names, without ``revelm``; their weights are sharp, and no norm or
bias is left at a value that does nothing.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from revelm.masks.visibility import Pattern
from revelm.models.language_model import LanguageModel
from revelm.models.load import load_model
from revelm.objectives.rows import Row, block_row, collate, sample_rows
from revelm.trajectories.replay import Copies
from tests import dense_reference
from tests.dense_reference import BLOCK_FIELDS, NETWORKS
from tests.families import official
from tests.official_layouts import LAYOUTS

LENGTH = 14
FULL = sorted(NETWORKS.keys() - BLOCK_FIELDS.keys())
BLOCK = sorted(BLOCK_FIELDS)
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}
# Experts of a size that the grouped matrix product takes.
WIDER = {r".*experts\..*(gate|up)_proj\.weight": (16, 24), r".*experts\..*down_proj\.weight": (24, 16)}
# Checkpoints of the tiny layout, and others of the same names: (family, other fields, other shapes by name).
CASES: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, tuple[int, ...]]]] = {
    **{name: (name, {}, {}) for name in NETWORKS},
    "llada-gqa": ("llada", {"n_kv_heads": 2}, {r".*[kv]_proj\.weight": (12, 24)}),
    "llada_moe-wide": ("llada_moe", {"expert_intermediate_size": 16, "num_experts_per_tok": 4}, WIDER),
    "sdar_moe-wide": ("sdar_moe", {"norm_topk_prob": False, "moe_intermediate_size": 16}, WIDER),
    "llada2_moe-wide": ("llada2_moe", {"moe_intermediate_size": 16}, WIDER),
    "llada2_moe-one": ("llada2_moe", {"num_experts_per_tok": 1, "n_group": 1, "topk_group": 1}, {}),
}
Labels = Mapping[str, np.ndarray]
Tensors = dict[str, Tensor]
Fault = Callable[[dict[str, Any], Tensors], None]


def tensors_of(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Random float32 tensors of the official names and shapes."""
    generator = torch.Generator().manual_seed(5)
    found: Tensors = {}
    for key, usual in sorted(LAYOUTS[name].items()):
        shape = next((other for pattern, other in shapes.items() if re.fullmatch(pattern, key)), usual)
        noise = torch.randn(shape, generator=generator)
        if "embed" in key or "wte" in key:
            found[key] = noise
        elif noise.ndim > 1:
            found[key] = noise * 1.8 * noise.shape[-1] ** -0.5
        else:
            found[key] = 0.4 * noise if key.endswith("bias") else 1 + 0.3 * noise
    return found


def write(case: str, folder: Path, fault: Fault | None = None) -> Path:
    """An official checkpoint in ``folder``; ``fault`` spoils its fields or tensors."""
    name, fields, shapes = CASES[case]
    config, tensors = official(name, **fields), tensors_of(name, shapes)
    if fault is not None:
        fault(config, tensors)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def tokens_of(length: int = LENGTH, seed: int = 0) -> Tensor:
    """Ids [L] with masks among them."""
    return torch.randint(0, 49, (length,), generator=torch.Generator().manual_seed(seed))


def say(
    model: LanguageModel, tokens: Tensor, positions: Tensor | None = None, pattern: Pattern | None = None
) -> Tensor:
    with torch.no_grad():
        return model(tokens, positions, pattern).double()


def difference(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_official_arithmetic(case: str, tmp_path: Path) -> None:
    """Catches a wrong name, field, norm, rotation, routing, bias, mask or shift in any family."""
    name, folder = CASES[case][0], write(case, tmp_path)
    tokens, checkpoint = tokens_of(), dense_reference.read(folder)
    expected = dense_reference.logits(name, checkpoint, tokens.tolist())
    assert float(expected.std(-1).mean()) > 1, "logits that are nearly flat would hide errors"
    for dtype, tolerance in TOLERANCES.items():
        model = load_model(folder, dtype=dtype)
        assert model.family.name == name
        assert difference(say(model, tokens[None])[0], expected) < tolerance


def random_copies(size: int, count: int, seed: int) -> Copies:
    """Every one of ``count`` blocks hidden in places, the first one also everywhere.

    First rounds of blocks share a stream, so that neighbours in a line are told apart by their block alone.
    """
    block = np.array([0, *range(count)])
    hidden = np.random.default_rng(seed).random((len(block), size)) < 0.6
    hidden[0] = True
    return Copies(block=block, round=np.array([0, 1, *[0] * (count - 1)]), hidden=hidden, target=hidden)


def side_by_side(lines: Sequence[Labels]) -> Labels:
    """Samples one after another in one line."""
    numbered = [{**labels, "sequence": labels["sequence"] + i} for i, labels in enumerate(lines)]
    return {name: np.concatenate([labels[name] for labels in numbered]) for name in lines[0]}


def say_rows(model: LanguageModel, lines: Sequence[Labels]) -> list[Tensor]:
    """Logits of lines of different lengths, padded to one batch; the padding's are cut off."""
    none = np.zeros(0, dtype=np.int64)
    batch = collate([Row(labels, none, none, {"weight": none}, 0.0) for labels in lines], model.family)
    said = say(model, batch.tokens, batch.positions, batch.pattern)
    return [rows[: len(labels["tokens"])] for rows, labels in zip(said, lines, strict=True)]


@pytest.mark.parametrize(("offset", "packs"), [(0, False), (3, True)], ids=["padded", "packed"])
@pytest.mark.parametrize("name", BLOCK)
def test_hidden_copies_say_what_the_text_up_to_them_says(name: str, offset: int, packs: bool, tmp_path: Path) -> None:
    """Catches copies that see each other or their own clean block, and a shifted row that takes the wrong predecessor:
    each copy must say what the model says of [clean earlier blocks | hidden block] alone."""
    folder = write(name, tmp_path)
    model, checkpoint = load_model(folder, dtype="float64"), dense_reference.read(folder)
    family, errors = model.family, []
    size = family.block_size or 0
    texts = [tokens_of(offset + count * size, count).numpy() for count in (3, 2)]
    samples = [(ids, random_copies(size, (len(ids) - offset) // size, seed)) for seed, ids in enumerate(texts)]
    lines = [block_row(ids, copies, family, grid_offset=offset)[0] for ids, copies in samples]
    widths = [len(line["tokens"]) for line in lines]
    said = torch.split(say_rows(model, [side_by_side(lines)])[0], widths) if packs else say_rows(model, lines)
    for (ids, copies), rows in zip(samples, said, strict=True):
        num_clean = len(rows) - copies.hidden.size
        clean = dense_reference.logits(name, checkpoint, ids[:num_clean].tolist(), offset=offset)
        errors.append(difference(rows[:num_clean], clean))
        for copy, block, hidden in zip(rows[num_clean:].split(size), copies.block, copies.hidden, strict=True):
            begin = int(block) * size + offset
            text = [*ids[:begin], *np.where(hidden, family.mask_id, ids[begin : begin + size])]
            expected = dense_reference.logits(name, checkpoint, [int(token) for token in text], offset=offset)
            errors.append(difference(copy, expected[begin:]))
    assert max(errors) < 1e-9


@pytest.mark.parametrize("name", FULL)
def test_hidden_canvases_say_what_they_say_alone(name: str, tmp_path: Path) -> None:
    """Catches canvases that see padding or each other, and shifted rows whose predecessor is looked for elsewhere."""
    folder = write(name, tmp_path)
    model, checkpoint = load_model(folder, dtype="float64"), dense_reference.read(folder)
    ids = tokens_of(9).numpy()
    hidden = np.random.default_rng(0).random((2, 9)) < 0.5
    copies = Copies(block=np.zeros(2, dtype=np.int64), round=np.arange(2), hidden=hidden, target=hidden)
    lines = [labels for labels, _, _ in sample_rows(ids, copies, model.family)]
    lines.append({key: column[:6] for key, column in lines[0].items()})
    for labels, rows in zip(lines, say_rows(model, lines), strict=True):
        expected = dense_reference.logits(name, checkpoint, labels["tokens"].tolist())
        assert difference(rows, expected) < 1e-9


def fields(**changes: Any) -> Fault:
    """Other values in config.json."""

    def fault(config: dict[str, Any], tensors: Tensors) -> None:
        assert config.keys() >= changes.keys()
        config |= changes

    return fault


def swapped(one: str, other: str) -> Fault:
    """Two tensors of every layer exchanged."""

    def fault(config: dict[str, Any], tensors: Tensors) -> None:
        pairs = [(key, key.replace(one, other)) for key in tensors if one in key]
        assert pairs
        for a, b in pairs:
            tensors[a], tensors[b] = tensors[b], tensors[a]

    return fault


def changed(part: str, how: Callable[[Tensor], Tensor]) -> Fault:
    """Another value of some tensors."""

    def fault(config: dict[str, Any], tensors: Tensors) -> None:
        keys = [key for key in tensors if part in key]
        assert keys
        for key in keys:
            tensors[key] = how(tensors[key])

    return fault


def interleaved(fused: Tensor) -> Tensor:
    """Queries, keys and values of 4 heads in 2 groups, group by group instead of kind by kind."""
    heads = fused.view(8, -1, fused.shape[-1])
    return heads[[0, 1, 4, 6, 2, 3, 5, 7]].reshape(fused.shape)


FAULTS: Mapping[str, tuple[str, Fault]] = {
    "llada gate and up": ("llada", swapped("ff_proj", "up_proj")),
    "llada rope": ("llada", fields(rope_theta=10_000.0)),
    "llada norms": ("llada", swapped("attn_norm", "ff_norm")),
    "llada epsilon": ("llada", fields(rms_norm_eps=1e-1)),
    "llada heads of keys": ("llada-gqa", changed("k_proj", lambda x: x.roll(6, 0))),
    "mmada head": ("mmada", changed("transformer.ff_out", lambda x: x.roll(1, 0))),
    "llada_moe gate and up": ("llada_moe", swapped(".gate_proj", ".up_proj")),
    "llada_moe order of experts": ("llada_moe", changed("mlp.gate.", lambda x: x.flip(0))),
    "llada_moe count of experts": ("llada_moe", fields(num_experts_per_tok=3)),
    "llada_moe norms of heads": ("llada_moe", swapped("q_norm", "k_norm")),
    "dream bias": ("dream", changed("k_proj.bias", torch.zeros_like)),
    "dream rope": ("dream", fields(rope_theta=1e6)),
    "fast_dllm bias": ("fast_dllm", changed("v_proj.bias", torch.zeros_like)),
    "fast_dllm blocks": ("fast_dllm", fields(bd_size=2)),
    "sdar norms of heads": ("sdar", swapped("q_norm", "k_norm")),
    "sdar blocks": ("sdar", fields(block_size=8)),
    "sdar_moe normalisation": ("sdar_moe", fields(norm_topk_prob=False)),
    "sdar_moe order of experts": ("sdar_moe", swapped("experts.0.", "experts.1.")),
    "llada2_moe scaling": ("llada2_moe", fields(routed_scaling_factor=1.0)),
    "llada2_moe groups": ("llada2_moe", fields(n_group=2, topk_group=1)),
    "llada2_moe open groups": ("llada2_moe", fields(topk_group=4)),
    "llada2_moe bias": ("llada2_moe", changed("expert_bias", torch.zeros_like)),
    "llada2_moe shared expert": ("llada2_moe", changed("shared_experts.down_proj", torch.zeros_like)),
    "llada2_moe part of a head": ("llada2_moe", fields(partial_rotary_factor=1.0)),
    "llada2_moe order of heads": ("llada2_moe", changed("query_key_value", interleaved)),
    "llada2_moe norms of heads": ("llada2_moe", swapped("query_layernorm", "key_layernorm")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_spoiled_checkpoint_is_noticed(fault: str, tmp_path: Path) -> None:
    """Catches comparisons too blunt for a mix-up: the model reads a spoiled checkpoint, the reference the right one."""
    case, spoils = FAULTS[fault]
    spoiled, right = write(case, tmp_path / "spoiled", spoils), write(case, tmp_path / "right")
    tokens = tokens_of()
    expected = dense_reference.logits(CASES[case][0], dense_reference.read(right), tokens.tolist())
    assert difference(say(load_model(spoiled, dtype="float64"), tokens[None])[0], expected) > 1e-2
