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

    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Sizes; KeyError names a missing field, ValueError an option that no release uses."""
        require(
            config,
            moe_router_score_function=("softmax", None),
            moe_router_enable_expert_bias=(False, None),
            shared_expert_intermediate_size=(None,),
            clip_qkv=(None,),
            norm_topk_prob=(False, None),
        )
        config = {"rms_norm_eps": 1e-5, **config}
        layers = config["num_hidden_layers"]
        sparse = config.get("moe_layer_freq") or [1] * layers
        bias = bool(config.get("attention_bias", False))
        experts = ExpertsConfig(
            hidden_size=config["hidden_size"],
            intermediate_size=config["expert_intermediate_size"],
            num_experts=config["num_experts"],
            experts_per_token=config["num_experts_per_tok"],
            is_normalised=False,
        )
        return standard_sizes(
            config,
            intermediate_size=config.get("dense_intermediate_size") or config["expert_intermediate_size"],
            has_qkv_bias=bias,
            has_output_bias=bias,
            has_qk_norm=bool(config.get("qk_layernorm", True)),
            experts=experts,
            dense_layers=tuple(i for i in range(layers) if not sparse[i]),
        )
