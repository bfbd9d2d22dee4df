"""A tiny checkpoint of every family, in the words of its official config.json.

Every size differs from every other one, so that a mix-up cannot fit. A family added to the registry needs an entry.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from revelm.core.registry import build, names
from revelm.data.tokenizer import save_tokenizer
from revelm.models.language_model import LanguageModel
from revelm.models.load import new_model, save_model
from tests.tiny_checkpoint import tiny_tokenizer

IDS = {"mask_token_id": 48, "pad_token_id": 47, "eos_token_id": 46}
STANDARD = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
QWEN3 = {**STANDARD, "head_dim": 8, "attention_bias": False}
QWEN3_MOE = {
    **QWEN3,
    "num_hidden_layers": 3,
    "moe_intermediate_size": 12,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [1],
}
LLADA = {
    "d_model": 24,
    "n_heads": 4,
    "n_kv_heads": 4,
    "n_layers": 2,
    "mlp_hidden_size": 40,
    "mlp_ratio": 4,
    "max_sequence_length": 256,
    "vocab_size": 50,
    "embedding_size": 50,
    "rms_norm_eps": 1e-5,
    "rope": True,
    "rope_full_precision": True,
    "rope_theta": 500_000.0,
    "activation_type": "silu",
    "block_type": "llama",
    "block_group_size": 1,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "attention_layer_norm": False,
    "alibi": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "bias_for_layer_norm": False,
    "scale_logits": False,
    "input_emb_norm": False,
    "weight_tying": False,
    "multi_query_attention": None,
}
LLADA_MOE = {
    **{k: v for k, v in STANDARD.items() if k != "intermediate_size"},
    "num_key_value_heads": 4,
    "dense_intermediate_size": 40,
    "expert_intermediate_size": 12,
    "shared_expert_intermediate_size": None,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_layer_freq": [1, 1],
    "norm_topk_prob": None,
    "qk_layernorm": True,
    "moe_router_score_function": "softmax",
    "moe_router_enable_expert_bias": False,
    "routed_scaling_factor": 1,
    "router_num_group": None,
    "router_topk_group": None,
    "partial_rotary_factor": 1,
    "rope_scaling": None,
    "rope_theta": 50_000.0,
    "rms_norm_eps": 1e-5,
    "clip_qkv": None,
}
LLADA2 = {
    **STANDARD,
    "head_dim": 12,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 12,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "num_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "norm_topk_prob": True,
    "score_function": "sigmoid",
    "routed_scaling_factor": 2.5,
    "moe_router_enable_expert_bias": True,
    "router_dtype": "fp32",
    "partial_rotary_factor": 0.5,
    "rotary_dim": 6,
    "rope_theta": 600_000.0,
    "use_bias": False,
    "use_qkv_bias": False,
    "use_qk_norm": True,
    "use_rmsnorm": True,
    "norm_head": False,
    "block_size": 4,
}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "sdar": {**QWEN3, "block_size": 4},
    "sdar_moe": {**QWEN3_MOE, "block_size": 4},
    "llada": LLADA,
    "mmada": {**LLADA, "llm_vocab_size": 44, "codebook_size": 6, "new_vocab_size": 50},
    "llada_moe": LLADA_MOE,
    "llada2_moe": LLADA2,
    "dream": {**STANDARD, "rope_scaling": None, "use_sliding_window": False},
    "fast_dllm": {**STANDARD, "bd_size": 4, "use_sliding_window": False, "layer_types": ["full_attention"] * 2},
    "qwen2": {**STANDARD, "use_sliding_window": False},
    "qwen3": QWEN3,
    "qwen3_moe": QWEN3_MOE,
    "llama": {**STANDARD, "attention_bias": False, "mlp_bias": False},
}


def official(name: str, **changes: Any) -> dict[str, Any]:
    """The tiny config.json of a family; ``changes`` replace fields."""
    kind = build("models", name)
    ids = {k: v for k, v in IDS.items() if kind.attention != "causal" or k != "mask_token_id"}
    return {"model_type": kind.model_type, "architectures": [kind.architecture], **CONFIGS[name], **ids, **changes}


def tiny(name: str, *, seed: int = 1, **changes: Any) -> LanguageModel:
    """A float32 model of the family with random weights."""
    return new_model(official(name, **changes), seed=seed)


def save_family(name: str, folder: Path, *, seed: int = 1, **changes: Any) -> Path:
    """A complete checkpoint with the byte tokenizer (262 ids: pad 0, mask 1, end of turn 2) in ``folder``."""
    ids = {"mask_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
    sizes = {"vocab_size": 262} | ({"embedding_size": 262} if "embedding_size" in CONFIGS[name] else {})
    if build("models", name).attention == "causal":
        ids.pop("mask_token_id")
    save_model(tiny(name, seed=seed, **(sizes | ids | changes)), folder)
    save_tokenizer(tiny_tokenizer(), folder)
    return folder


def diffusion_families() -> list[str]:
    """Registered families that write by revealing hidden tokens."""
    return [name for name in names("models") if build("models", name).attention != "causal"]


def full_families() -> list[str]:
    """Registered families with full attention."""
    return [name for name in names("models") if build("models", name).attention == "full"]
