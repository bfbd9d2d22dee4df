"""SDAR and TraDo, dense: a Qwen3 decoder decoded block by block (arXiv 2510.06303, 2509.06949).

Official layout: ``model_type: sdar``, ``SDARForCausalLM``, names and fields of Qwen3. ``block_size`` may be in
config.json (4 where it is not); the mask token is the tokenizer's. Blocks are counted from prompt position 0; row i is
about token i.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revelm.core.types import Attention
from revelm.data.chat_templates import CHATML
from revelm.models.decoder import DecoderConfig
from revelm.models.kind import Kind
from revelm.models.qwen3 import qwen3_sizes


@dataclass(frozen=True)
class SDAR(Kind):
    """Dense SDAR and TraDo."""

    name: str = "sdar"
    model_type: str = "sdar"
    architecture: str = "SDARForCausalLM"
    attention: Attention = "block"
    chat_template: str = CHATML
    default_block_size: int | None = 4
    mask_token: str | None = "<|MASK|>"

    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Sizes of a Qwen3 decoder."""
        return qwen3_sizes(config)
