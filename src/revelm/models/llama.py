"""Llama 2 and 3, dense and autoregressive (arXiv 2407.21783): a source for conversion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revelm.core.types import Attention
from revelm.data.chat_templates import LLAMA3
from revelm.models.decoder import DecoderConfig
from revelm.models.fields import flag
from revelm.models.kind import Kind, require, standard_sizes


@dataclass(frozen=True)
class Llama(Kind):
    """Names and fields as transformers writes them."""

    name: str = "llama"
    model_type: str = "llama"
    architecture: str = "LlamaForCausalLM"
    attention: Attention = "causal"
    chat_template: str = LLAMA3
    is_shifted: bool = True

    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """No norms on queries and keys; ``attention_bias`` is for all four projections."""
        require(config, pretraining_tp=(1,))
        bias = flag(config, "attention_bias", default=False)
        return standard_sizes(config, has_qkv_bias=bias, has_output_bias=bias, has_qk_norm=False)
