"""LLaDA2.0 and 2.1, mini and flash: routed experts, decoded in blocks of 32 (arXiv 2512.15745).

Official layout: ``model_type: llada2_moe``, ``LLaDA2MoeModelLM``, names after Bailing: one matrix for queries, keys and
values, ``attention.dense``, ``word_embeddings``. Half of each head is rotated. Sigmoid routing within the best groups
of experts, a bias that only chooses, one shared expert, dense first layers. Row i is about token i.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revelm.core.types import Attention
from revelm.data.chat_templates import ROLES
from revelm.models.decoder import DecoderConfig
from revelm.models.experts import ExpertsConfig
from revelm.models.kind import Kind, require, standard_sizes
from revelm.models.names import LAYER, STANDARD, NameTable, sparse_names

ATTENTION = "model.layers.{}.attention."
NAMES: NameTable = (
    ("model.word_embeddings.", "decoder.embed_tokens."),
    (f"{ATTENTION}query_key_value.", f"{LAYER}self_attn.qkv_proj."),
    (f"{ATTENTION}query_layernorm.", f"{LAYER}self_attn.q_norm."),
    (f"{ATTENTION}key_layernorm.", f"{LAYER}self_attn.k_norm."),
    (f"{ATTENTION}dense.", f"{LAYER}self_attn.o_proj."),
    *sparse_names("model.layers.{}.mlp.", shared="shared_experts."),
    *STANDARD,
)


@dataclass(frozen=True)
class LLaDA2Moe(Kind):
    """LLaDA2.0, LLaDA2.1."""

    name: str = "llada2_moe"
    model_type: str = "llada2_moe"
    architecture: str = "LLaDA2MoeModelLM"
    attention: Attention = "block"
    chat_template: str = ROLES
    names: NameTable = NAMES
    default_block_size: int | None = 32
    mask_token: str | None = "<|mask|>"

    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Sizes; KeyError names a missing field, ValueError an option that no release uses."""
        require(config, score_function=("sigmoid",), use_rmsnorm=(True,), norm_head=(False,))
        config = {"partial_rotary_factor": 0.5, "rms_norm_eps": 1e-5, **config}
        count = config["num_experts"]
        experts = ExpertsConfig(
            hidden_size=config["hidden_size"],
            intermediate_size=config["moe_intermediate_size"],
            num_experts=count,
            experts_per_token=config["num_experts_per_tok"],
            scoring="sigmoid",
            is_normalised=config["num_experts_per_tok"] > 1,
            num_groups=config.get("n_group", 8),
            groups_per_token=config.get("topk_group", 4),
            scaling=config.get("routed_scaling_factor", 2.5),
            has_bias=bool(config.get("moe_router_enable_expert_bias", True)),
            shared_intermediate_size=config["moe_intermediate_size"] * (config.get("num_shared_experts") or 0),
            is_router_wide=True,
        )
        return standard_sizes(
            config,
            has_qkv_bias=bool(config.get("use_qkv_bias", False)),
            has_output_bias=bool(config.get("use_bias", True)),
            has_fused_qkv=True,
            experts=experts,
            dense_layers=tuple(range(config.get("first_k_dense_replace", 0))),
        )
