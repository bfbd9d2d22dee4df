"""Dream, DiffuCoder and Dream-Coder: a Qwen2.5 decoder with full attention, shifted (arXiv 2508.15487, 2506.20639).

Official layout: ``model_type: Dream``, ``DreamModel``, names and fields of Qwen2, ``mask_token_id`` in config.json.
Row i says what token i + 1 is, as in the autoregressive model it came from.
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
class Dream(Kind):
    """Dream and the models of its architecture."""

    name: str = "dream"
    model_type: str = "Dream"
    architecture: str = "DreamModel"
    attention: Attention = "full"
    chat_template: str = CHATML
    is_shifted: bool = True
    mask_token: str | None = "<|mask|>"
    tokenizers: tuple[tuple[str, str], ...] = (("DreamTokenizer", "Qwen2Tokenizer"),)

    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Sizes of a Qwen2 decoder."""
        return qwen2_sizes(config)
