"""Qwen3, dense and autoregressive (arXiv 2505.09388): a source for conversion, and the backbone of SDAR."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revelm.core.types import Attention
from revelm.data.chat_templates import CHATML
from revelm.models.decoder import DecoderConfig
from revelm.models.fields import flag
from revelm.models.kind import Kind, standard_sizes

QWEN3_HEAD_DIM = 128


@dataclass(frozen=True)
class Qwen3(Kind):
    """Names and fields as transformers writes them."""

    name: str = "qwen3"
    model_type: str = "qwen3"
    architecture: str = "Qwen3ForCausalLM"
    attention: Attention = "causal"
    chat_template: str = CHATML
    is_shifted: bool = True

    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Sizes; KeyError names a missing field."""
        return qwen3_sizes(config)


def qwen3_sizes(config: Mapping[str, Any]) -> DecoderConfig:
    """A decoder with norms on queries and keys; ``attention_bias`` is for all four projections.

    Without ``head_dim`` heads have 128 dimensions, as in transformers, whatever hidden_size says.
    """
    bias = flag(config, "attention_bias", default=False)
    config = {"head_dim": QWEN3_HEAD_DIM, **config}
    return standard_sizes(config, has_qkv_bias=bias, has_output_bias=bias)
