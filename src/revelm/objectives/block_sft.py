"""Supervised fine-tuning of block models: hidden tokens from earlier clean blocks and the rest of their own.

The bound of ``revelm.objectives.masked_sft``, block by block (BD3LM, arXiv 2503.09573, eq. 8): each block has its own
mask rate, and one row holds the clean text and the hidden copies of all its blocks.
"""

from dataclasses import dataclass
from typing import ClassVar

from revelm.core.grid import padded_length
from revelm.core.types import Attention, Family
from revelm.objectives.masked_sft import MaskedSFT


@dataclass(frozen=True)
class BlockSFT(MaskedSFT):
    """The terminal block is filled up with the pad token, which is supervised: the engine decodes that block too."""

    attention: ClassVar[Attention] = "block"

    def num_positions(self, num_tokens: int, family: Family) -> int:
        """Whole blocks."""
        assert family.block_size is not None, "block families have a block size"
        return int(padded_length(num_tokens, family.block_size))
