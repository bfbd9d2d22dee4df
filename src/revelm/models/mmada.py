"""MMaDA, its text part: LLaDA with image codes behind the words of the vocabulary (arXiv 2505.15809).

Official layout: ``model_type: mmada``, ``MMadaModelLM``, fields and names of LLaDA. Image tokenizer and image
generation are not here; image ids are rows of the embedding like any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revelm.core.types import Attention
from revelm.data.chat_templates import LLAMA3
from revelm.models.decoder import DecoderConfig
from revelm.models.kind import Kind
from revelm.models.llada import NAMES, llada_sizes
from revelm.models.names import NameTable


@dataclass(frozen=True)
class MMaDA(Kind):
    """MMaDA-8B."""

    name: str = "mmada"
    model_type: str = "mmada"
    architecture: str = "MMadaModelLM"
    attention: Attention = "full"
    chat_template: str = LLAMA3
    names: NameTable = NAMES
    mask_token: str | None = "<|mdm_mask|>"

    def sizes(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Sizes as LLaDA's."""
        return llada_sizes(config)
