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
from revelm.models.fields import integer
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
        """Sizes as LLaDA's, with rows for the image codes.

        Where ``embedding_size`` is absent, or still that of the language model (``llm_vocab_size``), ``new_vocab_size``
        says how many rows there are once those of the images were added.
        """
        rows = config.get("embedding_size")
        is_stale = rows is None or rows == config.get("llm_vocab_size")
        text = integer(config, "vocab_size", default=1) if rows is None else rows
        if is_stale and isinstance(text, int) and (new := integer(config, "new_vocab_size", default=text)) > text:
            config = {**config, "embedding_size": new}
        return llada_sizes(config)
