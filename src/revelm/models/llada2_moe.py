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
from revelm.models.fields import MAX_LAYERS, flag, integer, number
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
        chosen, inner = integer(config, "num_experts_per_tok"), integer(config, "moe_intermediate_size")
        experts = ExpertsConfig(
            hidden_size=integer(config, "hidden_size"),
            intermediate_size=inner,
            num_experts=integer(config, "num_experts"),
            experts_per_token=chosen,
            scoring="sigmoid",
            is_normalised=chosen > 1,
            num_groups=integer(config, "n_group", default=8),
            groups_per_token=integer(config, "topk_group", default=4),
            scaling=number(config, "routed_scaling_factor", default=2.5),
            has_bias=True,  # the released code has it whatever moe_router_enable_expert_bias says
            shared_intermediate_size=inner * integer(config, "num_shared_experts", default=0, least=0),
            is_router_wide=True,
        )
        dense = integer(config, "first_k_dense_replace", default=0, least=0, most=MAX_LAYERS)
        return standard_sizes(
            config,
            partial=0.5,
            rms_norm_eps=number(config, "rms_norm_eps", default=1e-5),
            has_qkv_bias=flag(config, "use_qkv_bias", default=False),
            has_output_bias=flag(config, "use_bias", default=True),
            has_fused_qkv=True,
            experts=experts,
            dense_layers=tuple(range(dense)),
        )
