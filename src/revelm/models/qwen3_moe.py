"""Qwen3-MoE, autoregressive (arXiv 2505.09388): a source for conversion, and the backbone of SDAR-MoE."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revelm.core.types import Attention
from revelm.data.chat_templates import CHATML
from revelm.models.decoder import DecoderConfig
from revelm.models.experts import ExpertsConfig
from revelm.models.fields import MAX_LAYERS, flag, integer, integers
from revelm.models.kind import Kind, standard_sizes
from revelm.models.names import STANDARD, NameTable, sparse_names

NAMES: NameTable = (*sparse_names("model.layers.{}.mlp."), *STANDARD)


@dataclass(frozen=True)
class Qwen3Moe(Kind):
    """Names and fields as transformers writes them, one tensor per expert."""

    name: str = "qwen3_moe"
    model_type: str = "qwen3_moe"
    architecture: str = "Qwen3MoeForCausalLM"
    attention: Attention = "causal"
    chat_template: str = CHATML
    is_shifted: bool = True
    names: NameTable = NAMES

    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Sizes; KeyError names a missing field."""
        return qwen3_moe_sizes(config)


def qwen3_moe_sizes(config: Mapping[str, Any]) -> DecoderConfig:
    """Every ``decoder_sparse_step``-th layer that is not in ``mlp_only_layers`` is sparse; no shared expert.

    transformers 5 calls the number of experts ``num_local_experts``.
    """
    step = integer(config, "decoder_sparse_step", default=1)
    only = integers(config, "mlp_only_layers", default=())
    layers = range(integer(config, "num_hidden_layers", most=MAX_LAYERS))
    bias = flag(config, "attention_bias", default=False)
    count = "num_experts" if config.get("num_local_experts") is None else "num_local_experts"
    experts = ExpertsConfig(
        hidden_size=integer(config, "hidden_size"),
        intermediate_size=integer(config, "moe_intermediate_size"),
        num_experts=integer(config, count),
        experts_per_token=integer(config, "num_experts_per_tok"),
        is_normalised=flag(config, "norm_topk_prob", default=False),
    )
    return standard_sizes(
        config,
        has_qkv_bias=bias,
        has_output_bias=bias,
        experts=experts,
        dense_layers=tuple(i for i in layers if i in only or (i + 1) % step),
    )
