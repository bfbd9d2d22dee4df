"""LLaDA-8B and LLaDA-1.5: a Llama-shaped decoder with full attention (arXiv 2502.09992, 2505.19223).

Official layout: ``model_type: llada``, ``LLaDAModelLM``, fields and names after OLMo: ``ff_proj`` is the gate,
``ff_out`` of a block its down projection, ``transformer.ff_out`` the head. Row i is about token i.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from revelm.core.types import Attention
from revelm.data.chat_templates import LLAMA3
from revelm.models.decoder import DecoderConfig
from revelm.models.fields import MAX_LAYERS, flag, integer, number
from revelm.models.kind import Kind, require
from revelm.models.names import LAYER, NameTable
from revelm.models.rotary import rope_of

BLOCK = "model.transformer.blocks.{}."
NAMES: NameTable = (
    ("model.transformer.wte.", "decoder.embed_tokens."),
    ("model.transformer.ln_f.", "decoder.norm."),
    ("model.transformer.ff_out.", "lm_head."),
    *((f"{BLOCK}{name}.", f"{LAYER}self_attn.{name}.") for name in ("q_proj", "k_proj", "v_proj")),
    (f"{BLOCK}attn_out.", f"{LAYER}self_attn.o_proj."),
    (f"{BLOCK}attn_norm.", f"{LAYER}input_layernorm."),
    (f"{BLOCK}ff_norm.", f"{LAYER}post_attention_layernorm."),
    (f"{BLOCK}ff_proj.", f"{LAYER}mlp.gate_proj."),
    (f"{BLOCK}up_proj.", f"{LAYER}mlp.up_proj."),
    (f"{BLOCK}ff_out.", f"{LAYER}mlp.down_proj."),
)


def llada_fields(sizes: DecoderConfig) -> dict[str, Any]:
    """config.json of a LLaDA of these ``sizes``. Stretched rotary positions cannot be said: its own code has none."""
    return {
        "d_model": sizes.hidden_size,
        "n_heads": sizes.num_attention_heads,
        "n_kv_heads": sizes.num_key_value_heads,
        "n_layers": sizes.num_hidden_layers,
        "mlp_hidden_size": sizes.intermediate_size,
        "mlp_ratio": 4,
        "max_sequence_length": sizes.max_position_embeddings,
        "vocab_size": sizes.vocab_size,
        "embedding_size": sizes.vocab_size,
        "rms_norm_eps": sizes.rms_norm_eps,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": sizes.rope.theta,
        "activation_type": "silu",
        "block_type": "llama",
        "block_group_size": 1,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "attention_layer_norm": False,
        "alibi": False,
        "include_bias": False,
        "include_qkv_bias": sizes.has_qkv_bias,
        "bias_for_layer_norm": False,
        "scale_logits": False,
        "input_emb_norm": False,
        "weight_tying": sizes.tie_word_embeddings,
        "multi_query_attention": None,
    }


@dataclass(frozen=True)
class LLaDA(Kind):
    """LLaDA-8B, LLaDA-1.5."""

    name: str = "llada"
    model_type: str = "llada"
    architecture: str = "LLaDAModelLM"
    attention: Attention = "full"
    chat_template: str = LLAMA3
    names: NameTable = NAMES
    mask_token: str | None = "<|mdm_mask|>"
    fields_of: Callable[[DecoderConfig], dict[str, Any]] | None = llada_fields
    signature: tuple[str, ...] = ("n_layers",)

    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Sizes; KeyError names a missing field, ValueError an option of OLMo that no release uses."""
        return llada_sizes(config)


def llada_sizes(config: Mapping[str, Any]) -> DecoderConfig:
    """A decoder in LLaDA's words: ``d_model``, ``n_heads``, ``mlp_hidden_size``, ``embedding_size``."""
    # Where a field is absent, OLMo's own default holds: no rotary positions, a tied head.
    config = {"rope": False, **{name: value for name, value in config.items() if value is not None}}
    require(
        config,
        activation_type=("silu",),
        block_type=("llama",),
        block_group_size=(1,),
        layer_norm_type=("rms",),
        layer_norm_with_affine=(True,),
        attention_layer_norm=(False,),
        alibi=(False,),
        rope=(True,),
        include_bias=(False,),
        bias_for_layer_norm=(False,),
        scale_logits=(False,),
        input_emb_norm=(False,),
    )
    heads, hidden = integer(config, "n_heads"), integer(config, "d_model")
    shared = 1 if flag(config, "multi_query_attention", default=False) else heads
    inner = integer(config, "mlp_hidden_size", default=0) or integer(config, "mlp_ratio") * hidden
    return DecoderConfig(
        vocab_size=integer(config, "embedding_size", default=0) or integer(config, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=integer(config, "n_layers", most=MAX_LAYERS),
        num_attention_heads=heads,
        num_key_value_heads=integer(config, "n_kv_heads", default=shared),
        head_dim=hidden // heads,
        max_position_embeddings=integer(config, "max_sequence_length"),
        rope=rope_of(config, hidden // heads),
        rms_norm_eps=number(config, "rms_norm_eps", default=1e-5),
        tie_word_embeddings=flag(config, "weight_tying", default=True),
        has_qkv_bias=flag(config, "include_qkv_bias", default=False),
        has_qk_norm=False,
    )
