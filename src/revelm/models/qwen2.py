"""Qwen2 and Qwen2.5, dense and autoregressive (arXiv 2412.15115): a source for conversion, the backbone of Dream."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revelm.core.types import Attention
from revelm.data.chat_templates import CHATML
from revelm.models.decoder import DecoderConfig
from revelm.models.kind import Kind, standard_sizes


@dataclass(frozen=True)
class Qwen2(Kind):
    """Names and fields as transformers writes them."""

    name: str = "qwen2"
    model_type: str = "qwen2"
    architecture: str = "Qwen2ForCausalLM"
    attention: Attention = "causal"
    chat_template: str = CHATML
    is_shifted: bool = True

    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Sizes; KeyError names a missing field."""
        return qwen2_sizes(config)


def qwen2_sizes(config: Mapping[str, Any]) -> DecoderConfig:
    """A decoder with biases on queries, keys and values, and no norms on them."""
    return standard_sizes(config, has_qkv_bias=True, has_qk_norm=False)
