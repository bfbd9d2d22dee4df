"""Supervised fine-tuning of full-attention models: the whole response is hidden at one rate, all of it sees all of it.

The bound of ``revelm.objectives.masked_sft`` with one unit per response (LLaDA, arXiv 2502.09992, eq. 5 and section
2.3). Every hidden copy is a row of its own, because under full attention no part of it can be shared.
"""

from dataclasses import dataclass
from typing import ClassVar

from revelm.core.types import Attention, Family
from revelm.objectives.masked_sft import MaskedSFT


@dataclass(frozen=True)
class RandomMaskSFT(MaskedSFT):
    """``num_pad``: pad tokens behind the stop that are hidden and predicted like the response.

    A full-attention model decodes a canvas of fixed length, so it must learn what stands behind an answer; without
    pads it also learns that the last position of a canvas is always the stop.
    """

    attention: ClassVar[Attention] = "full"

    num_pad: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_pad < 0:
            raise ValueError(f"objective.num_pad is {self.num_pad}, must be at least 0")

    def num_positions(self, num_tokens: int, family: Family) -> int:
        """The tokens and the pads behind them."""
        del family
        return num_tokens + self.num_pad
