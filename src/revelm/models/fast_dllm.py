"""Fast-dLLM v2: a Qwen2.5 decoder decoded block by block, shifted inside blocks (arXiv 2509.26328).

Official layout: ``model_type: Fast_dLLM_Qwen``, names and fields of Qwen2, the block size in ``bd_size``, the mask an
added token of the vocabulary. Row i says what token i + 1 is; the first token of a block is said by the last clean row
of the block before, as in the authors' decoder (their training loss reads it from the noised row instead).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revelm.core.types import Attention
from revelm.data.chat_templates import CHATML
from revelm.models.decoder import DecoderConfig
from revelm.models.kind import Kind
from revelm.models.qwen2 import qwen2_sizes


@dataclass(frozen=True)
class FastDLLM(Kind):
    """Fast-dLLM v2."""

    name: str = "fast_dllm"
    model_type: str = "Fast_dLLM_Qwen"
    architecture: str = "Fast_dLLM_QwenForCausalLM"
    attention: Attention = "block"
    chat_template: str = CHATML
    is_shifted: bool = True
    block_size_field: str = "bd_size"
    default_block_size: int | None = 32
    mask_token: str | None = "|<MASK>|"

    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Sizes of a Qwen2 decoder."""
        return qwen2_sizes(config)
