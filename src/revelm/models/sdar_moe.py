"""SDAR-MoE: a Qwen3-MoE decoder decoded block by block (SDAR-30B-A3B; arXiv 2510.06303).

Official layout: ``model_type: sdar_moe``, ``SDARMoeForCausalLM``, names and fields of Qwen3-MoE, blocks as in SDAR.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revelm.core.types import Attention
from revelm.data.chat_templates import CHATML
from revelm.models.decoder import DecoderConfig
from revelm.models.kind import Kind
from revelm.models.names import NameTable
from revelm.models.qwen3_moe import NAMES, qwen3_moe_sizes


@dataclass(frozen=True)
class SDARMoe(Kind):
    """SDAR with experts."""

    name: str = "sdar_moe"
    model_type: str = "sdar_moe"
    architecture: str = "SDARMoeForCausalLM"
    attention: Attention = "block"
    chat_template: str = CHATML
    names: NameTable = NAMES
    default_block_size: int | None = 4
    mask_token: str | None = "<|MASK|>"

    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Sizes of a Qwen3-MoE decoder."""
        return qwen3_moe_sizes(config)
