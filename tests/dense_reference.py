"""Logits of the official models, written a second time: official names and fields, one token and one head at a time.

Nothing of ``revelm`` is used. Formulas are those of the authors' modelling files, in float64; who sees whom is an
argument. A row of the result is what the network says at that row; ``aligned`` moves what shifted networks say.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

Sees = Callable[[int, int], bool]


@dataclass(frozen=True)
class Checkpoint:
    """config.json and the official tensors, in float64."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def linear(self, name: str, x: Tensor) -> Tensor:
        """One row through a projection, with its bias where the checkpoint has one."""
        y = self[f"{name}.weight"] @ x
        return y + self[f"{name}.bias"] if f"{name}.bias" in self.tensors else y


def read(folder: Path) -> Checkpoint:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return Checkpoint(config, {k: v.double() for k, v in load_file(folder / "model.safetensors").items()})


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """One row, or one head of a row."""
    return x / math.sqrt(float((x * x).mean()) + eps) * weight


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def turned(head: Tensor, position: int, theta: float, dim: int) -> Tensor:
    """One head turned: of its first ``dim`` numbers, j and j + dim / 2 are a complex number."""
    half = dim // 2
    angle = torch.tensor([position * theta ** (-2 * j / dim) for j in range(half)], dtype=torch.float64)
    pair = torch.complex(head[:half], head[half:dim]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((pair.real, pair.imag, head[dim:]))


def mixed(queries: list[Tensor], keys: list[Tensor], values: list[Tensor], sees: Sees) -> list[Tensor]:
    """Attention of heads: every row's queries [H, D] over keys and values [Hkv, D] of the rows that it sees."""
    heads, dim = queries[0].shape
    group = heads // len(keys[0])
    out = []
    for i, query in enumerate(queries):
        seen = [j for j in range(len(keys)) if sees(i, j)]
        parts = []
        for h in range(heads):
            score = torch.stack([keys[j][h // group] for j in seen]) @ query[h] / math.sqrt(dim)
            weight = torch.exp(score - score.max())
            parts.append(weight / weight.sum() @ torch.stack([values[j][h // group] for j in seen]))
        out.append(torch.cat(parts))
    return out


def feed_forward(c: Checkpoint, at: str, x: Tensor) -> Tensor:
    gate, up = c.linear(f"{at}gate_proj", x), c.linear(f"{at}up_proj", x)
    return c.linear(f"{at}down_proj", silu(gate) * up)


def best(values: Tensor, count: int) -> list[int]:
    """Indices of the ``count`` largest numbers."""
    return sorted(range(len(values)), key=lambda i: -float(values[i]))[:count]


def softmax_experts(c: Checkpoint, at: str, x: Tensor, *, normalises: bool) -> Tensor:
    """Qwen3-MoE (divides by the sum of the chosen where ``norm_topk_prob``), LLaDA-MoE (never)."""
    chance = torch.softmax(c[f"{at}gate.weight"] @ x, 0)
    chosen = best(chance, c.config["num_experts_per_tok"])
    total = float(sum(chance[e] for e in chosen)) if normalises else 1.0
    return sum(chance[e] / total * feed_forward(c, f"{at}experts.{e}.", x) for e in chosen)


def grouped_experts(c: Checkpoint, at: str, x: Tensor) -> Tensor:
    """LLaDA2: the best groups by the two best biased scores in each, the best experts in them, unbiased weights."""
    score = 1 / (1 + torch.exp(-(c[f"{at}gate.weight"] @ x)))
    biased = score + c[f"{at}gate.expert_bias"]
    size = len(score) // c.config["n_group"]
    groups = [range(g * size, (g + 1) * size) for g in range(c.config["n_group"])]
    strength = torch.stack([sum(sorted((biased[e] for e in group), key=float)[-2:]) for group in groups])
    open_ = [e for g in best(strength, c.config["topk_group"]) for e in groups[g]]
    chosen = sorted(open_, key=lambda e: -float(biased[e]))[: c.config["num_experts_per_tok"]]
    total = sum(score[e] for e in chosen) + 1e-20 if len(chosen) > 1 else 1.0
    factor = c.config["routed_scaling_factor"]
    routed = sum(score[e] / total * factor * feed_forward(c, f"{at}experts.{e}.", x) for e in chosen)
    return routed + feed_forward(c, f"{at}shared_experts.", x)


def qwen_attention(c: Checkpoint, at: str, xs: list[Tensor], sees: Sees) -> list[Tensor]:
    """Qwen2, Qwen3, LLaDA-MoE: norms of the heads before the turn, where there are any."""
    config, heads = c.config, c.config["num_attention_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    parts: dict[str, list[Tensor]] = {"q": [], "k": [], "v": []}
    for i, x in enumerate(xs):
        for name, rows in parts.items():
            row = c.linear(f"{at}{name}_proj", x).view(-1, dim)
            if name != "v":
                if f"{at}{name}_norm.weight" in c.tensors:
                    row = torch.stack([norm(h, c[f"{at}{name}_norm.weight"], config["rms_norm_eps"]) for h in row])
                row = torch.stack([turned(h, i, config["rope_theta"], dim) for h in row])
            rows.append(row)
    return [c.linear(f"{at}o_proj", y) for y in mixed(parts["q"], parts["k"], parts["v"], sees)]


def llada2_attention(c: Checkpoint, at: str, xs: list[Tensor], sees: Sees) -> list[Tensor]:
    """All queries, then all keys, then all values from one matrix; a part of each head is turned."""
    config, heads, shared = c.config, c.config["num_attention_heads"], c.config["num_key_value_heads"]
    dim, eps = config["head_dim"], config["rms_norm_eps"]
    turns = int(dim * config["partial_rotary_factor"])
    queries, keys, values = [], [], []
    for i, x in enumerate(xs):
        row = c.linear(f"{at}query_key_value", x).view(-1, dim)
        pairs = [(h, "query") for h in row[:heads]] + [(h, "key") for h in row[heads : heads + shared]]
        done = [turned(norm(h, c[f"{at}{n}_layernorm.weight"], eps), i, config["rope_theta"], turns) for h, n in pairs]
        queries.append(torch.stack(done[:heads]))
        keys.append(torch.stack(done[heads:]))
        values.append(row[heads + shared :])
    return [c.linear(f"{at}dense", y) for y in mixed(queries, keys, values, sees)]


def llada_attention(c: Checkpoint, at: str, xs: list[Tensor], sees: Sees) -> list[Tensor]:
    config = c.config
    dim = config["d_model"] // config["n_heads"]
    rows = {n: [c.linear(f"{at}{n}_proj", x).view(-1, dim) for x in xs] for n in "qkv"}
    for name in "qk":
        turn = [torch.stack([turned(h, i, config["rope_theta"], dim) for h in r]) for i, r in enumerate(rows[name])]
        rows[name] = turn
    return [c.linear(f"{at}attn_out", y) for y in mixed(rows["q"], rows["k"], rows["v"], sees)]


def llada(c: Checkpoint, tokens: list[int], sees: Sees) -> Tensor:
    """LLaDA-8B, MMaDA: [L, V]."""
    top, eps = "model.transformer.", c.config["rms_norm_eps"]
    xs = [c[f"{top}wte.weight"][t] for t in tokens]
    for layer in range(c.config["n_layers"]):
        at = f"{top}blocks.{layer}."
        ys = llada_attention(c, at, [norm(x, c[f"{at}attn_norm.weight"], eps) for x in xs], sees)
        xs = [x + y for x, y in zip(xs, ys, strict=True)]
        inner = [norm(x, c[f"{at}ff_norm.weight"], eps) for x in xs]
        inner = [silu(c.linear(f"{at}ff_proj", x)) * c.linear(f"{at}up_proj", x) for x in inner]
        xs = [x + c.linear(f"{at}ff_out", y) for x, y in zip(xs, inner, strict=True)]
    head = c[f"{top}wte.weight"] if c.config["weight_tying"] else c[f"{top}ff_out.weight"]
    return torch.stack([head @ norm(x, c[f"{top}ln_f.weight"], eps) for x in xs])


def standard(
    c: Checkpoint, tokens: list[int], sees: Sees, *, names: tuple[str, str], attention: Any, mlp: Any
) -> Tensor:
    """Layers of the usual shape: [L, V]. ``names``: of the embedding and of a layer's attention."""
    embedding, inner = names
    eps, xs = c.config["rms_norm_eps"], [c[f"model.{embedding}.weight"][t] for t in tokens]
    for layer in range(c.config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        ys = attention(c, f"{at}{inner}.", [norm(x, c[f"{at}input_layernorm.weight"], eps) for x in xs], sees)
        xs = [x + y for x, y in zip(xs, ys, strict=True)]
        normed = [norm(x, c[f"{at}post_attention_layernorm.weight"], eps) for x in xs]
        xs = [x + mlp(c, layer, f"{at}mlp.", y) for x, y in zip(xs, normed, strict=True)]
    head = c[f"model.{embedding}.weight"] if c.config["tie_word_embeddings"] else c["lm_head.weight"]
    return torch.stack([head @ norm(x, c["model.norm.weight"], eps) for x in xs])


def _dense(c: Checkpoint, layer: int, at: str, x: Tensor) -> Tensor:
    return feed_forward(c, at, x)


def _llada_moe(c: Checkpoint, layer: int, at: str, x: Tensor) -> Tensor:
    if not c.config["moe_layer_freq"][layer]:
        return feed_forward(c, at, x)
    return softmax_experts(c, at, x, normalises=False)


def _qwen3_moe(c: Checkpoint, layer: int, at: str, x: Tensor) -> Tensor:
    if layer in c.config["mlp_only_layers"] or (layer + 1) % c.config["decoder_sparse_step"]:
        return feed_forward(c, at, x)
    return softmax_experts(c, at, x, normalises=c.config["norm_topk_prob"])


def _llada2(c: Checkpoint, layer: int, at: str, x: Tensor) -> Tensor:
    return feed_forward(c, at, x) if layer < c.config["first_k_dense_replace"] else grouped_experts(c, at, x)


QWEN = {"names": ("embed_tokens", "self_attn"), "attention": qwen_attention}
LLADA2 = {"names": ("word_embeddings", "attention"), "attention": llada2_attention, "mlp": _llada2}
NETWORKS: Mapping[str, Callable[[Checkpoint, list[int], Sees], Tensor]] = {
    "llada": llada,
    "mmada": llada,
    "llada_moe": lambda *a: standard(*a, **QWEN, mlp=_llada_moe),
    "dream": lambda *a: standard(*a, **QWEN, mlp=_dense),
    "sdar": lambda *a: standard(*a, **QWEN, mlp=_dense),
    "fast_dllm": lambda *a: standard(*a, **QWEN, mlp=_dense),
    "sdar_moe": lambda *a: standard(*a, **QWEN, mlp=_qwen3_moe),
    "llada2_moe": lambda *a: standard(*a, **LLADA2),
}
SHIFTED = ("dream", "fast_dllm")
BLOCK_FIELDS = {"sdar": "block_size", "sdar_moe": "block_size", "llada2_moe": "block_size", "fast_dllm": "bd_size"}


def logits(name: str, c: Checkpoint, tokens: list[int], *, offset: int = 0) -> Tensor:
    """What a family says about every token, float64 [L, V]: full attention, or blocks counted from ``offset``.

    Shifted families: token i is said by row i - 1, the first one by its own row.
    """
    size = c.config[BLOCK_FIELDS[name]] if name in BLOCK_FIELDS else None

    def sees(i: int, j: int) -> bool:
        return size is None or (j - offset) // size <= (i - offset) // size

    rows = NETWORKS[name](c, tokens, sees)
    return torch.stack([rows[max(0, i - 1)] for i in range(len(rows))]) if name in SHIFTED else rows
