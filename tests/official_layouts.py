"""Tensor names and shapes of the official releases at the sizes of ``tests/families.py``, written out by hand.

Independent of the tables in ``revelm.models``: a wrong name there is a disagreement here.
"""

Shapes = dict[str, tuple[int, ...]]


def _outer(layers: Shapes) -> Shapes:
    ends: Shapes = {"model.embed_tokens.weight": (50, 24), "model.norm.weight": (24,), "lm_head.weight": (50, 24)}
    return ends | layers


def _attention(layer: int, *, queries: int = 32, shared: int = 16, bias: bool = False, norm: int = 0) -> Shapes:
    at = f"model.layers.{layer}."
    sizes = {"q": queries, "k": shared, "v": shared}
    found: Shapes = {f"{at}self_attn.{n}_proj.weight": (size, 24) for n, size in sizes.items()}
    found[f"{at}self_attn.o_proj.weight"] = (24, queries)
    found |= {f"{at}{n}_layernorm.weight": (24,) for n in ("input", "post_attention")}
    if bias:
        found |= {f"{at}self_attn.{n}_proj.bias": (size,) for n, size in sizes.items()}
    if norm:
        found |= {f"{at}self_attn.{n}_norm.weight": (norm,) for n in "qk"}
    return found


def _mlp(at: str, size: int) -> Shapes:
    return {
        f"{at}gate_proj.weight": (size, 24),
        f"{at}up_proj.weight": (size, 24),
        f"{at}down_proj.weight": (24, size),
    }


def _experts(layer: int, count: int) -> Shapes:
    at = f"model.layers.{layer}.mlp."
    found: Shapes = {f"{at}gate.weight": (count, 24)}
    for expert in range(count):
        found |= _mlp(f"{at}experts.{expert}.", 12)
    return found


def _qwen3(layers: int = 2) -> Shapes:
    found: Shapes = {}
    for i in range(layers):
        found |= _attention(i, norm=8) | _mlp(f"model.layers.{i}.mlp.", 40)
    return _outer(found)


def _qwen2(*, bias: bool = True) -> Shapes:
    found: Shapes = {}
    for i in range(2):
        found |= _attention(i, queries=24, shared=12, bias=bias) | _mlp(f"model.layers.{i}.mlp.", 40)
    return _outer(found)


def _qwen3_moe() -> Shapes:
    found: Shapes = {}
    for i in range(3):
        found |= _attention(i, norm=8) | (_mlp("model.layers.1.mlp.", 40) if i == 1 else _experts(i, 6))
    return _outer(found)


def _llada() -> Shapes:
    top = "model.transformer."
    found: Shapes = {f"{top}wte.weight": (50, 24), f"{top}ln_f.weight": (24,), f"{top}ff_out.weight": (50, 24)}
    for i in range(2):
        at = f"{top}blocks.{i}."
        found |= {f"{at}{n}.weight": (24, 24) for n in ("q_proj", "k_proj", "v_proj", "attn_out")}
        found |= {f"{at}{n}.weight": (24,) for n in ("attn_norm", "ff_norm")}
        found |= {f"{at}{n}.weight": (40, 24) for n in ("ff_proj", "up_proj")}
        found[f"{at}ff_out.weight"] = (24, 40)
    return found


def _llada_moe() -> Shapes:
    found: Shapes = {}
    for i in range(2):
        found |= _attention(i, queries=24, shared=24, norm=6) | _experts(i, 6)
    return _outer(found)


def _llada2() -> Shapes:
    found: Shapes = {
        "model.word_embeddings.weight": (50, 24),
        "model.norm.weight": (24,),
        "lm_head.weight": (50, 24),
    } | _mlp("model.layers.0.mlp.", 40)
    for i in range(3):
        at = f"model.layers.{i}."
        found |= {f"{at}{n}_layernorm.weight": (24,) for n in ("input", "post_attention")}
        found |= {
            f"{at}attention.query_key_value.weight": ((4 + 2 * 2) * 12, 24),
            f"{at}attention.dense.weight": (24, 48),
            f"{at}attention.query_layernorm.weight": (12,),
            f"{at}attention.key_layernorm.weight": (12,),
        }
        if i:
            found |= _experts(i, 8) | {f"{at}mlp.gate.expert_bias": (8,)} | _mlp(f"{at}mlp.shared_experts.", 12)
    return found


LAYOUTS: dict[str, Shapes] = {
    "sdar": _qwen3(),
    "qwen3": _qwen3(),
    "qwen2": _qwen2(),
    "dream": _qwen2(),
    "fast_dllm": _qwen2(),
    "llama": _qwen2(bias=False),
    "qwen3_moe": _qwen3_moe(),
    "sdar_moe": _qwen3_moe(),
    "llada": _llada(),
    "mmada": _llada(),
    "llada_moe": _llada_moe(),
    "llada2_moe": _llada2(),
}
