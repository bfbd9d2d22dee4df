"""LLaDA-MoE-7B-A1B: routed experts with full attention (arXiv 2509.24389).

Official layout: ``model_type: llada`` like LLaDA-8B's, told apart by ``LLaDAMoEModelLM``; fields and names after OLMoE.
Softmax over all experts, the chosen weights not renormalised. Row i is about token i.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revelm.core.types import Attention
from revelm.data.chat_templates import ROLES
from revelm.models.decoder import DecoderConfig
from revelm.models.experts import ExpertsConfig
from revelm.models.fields import MAX_LAYERS, flag, integer, integers, number
from revelm.models.kind import Kind, require, standard_sizes
from revelm.models.names import STANDARD, NameTable, sparse_names

NAMES: NameTable = (*sparse_names("model.layers.{}.mlp."), *STANDARD)


@dataclass(frozen=True)
class LLaDAMoe(Kind):
    """LLaDA with experts."""

    name: str = "llada_moe"
    model_type: str = "llada"
    architecture: str = "LLaDAMoEModelLM"
    attention: Attention = "full"
    chat_template: str = ROLES
    names: NameTable = NAMES
    mask_token: str | None = "<|mask|>"
    signature: tuple[str, ...] = ("num_experts",)

    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Sizes; KeyError names a missing field, ValueError an option that no release uses."""
        require(
            config,
            moe_router_score_function=("softmax",),
            moe_router_enable_expert_bias=(False,),
            shared_expert_intermediate_size=(None,),
            clip_qkv=(None,),
            norm_topk_prob=(False,),
        )
        layers = integer(config, "num_hidden_layers", most=MAX_LAYERS)
        sparse = integers(config, "moe_layer_freq", default=[1] * layers)
        if len(sparse) != layers:
            raise ValueError(f"config.json: moe_layer_freq has {len(sparse)} entries for {layers} layers")
        bias, inner = flag(config, "attention_bias", default=False), integer(config, "expert_intermediate_size")
        experts = ExpertsConfig(
            hidden_size=integer(config, "hidden_size"),
            intermediate_size=inner,
            num_experts=integer(config, "num_experts"),
            experts_per_token=integer(config, "num_experts_per_tok"),
            is_normalised=False,
        )
        return standard_sizes(
            config,
            partial=1.0,
            rms_norm_eps=number(config, "rms_norm_eps", default=1e-5),
            intermediate_size=integer(config, "dense_intermediate_size", default=inner),
            has_qkv_bias=bias,
            has_output_bias=bias,
            has_qk_norm=flag(config, "qk_layernorm", default=True),
            experts=experts,
            dense_layers=tuple(i for i in range(layers) if not sparse[i]),
        )
