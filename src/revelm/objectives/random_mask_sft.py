"""Supervised fine-tuning of full-attention models: the whole response is hidden at one rate, all of it sees all of it.

The bound of ``revelm.objectives.masked_sft`` with one unit per response (LLaDA, arXiv 2502.09992, eq. 5 and section
2.3). Every hidden copy is a row of its own, because under full attention no part of it can be shared.
"""

from dataclasses import dataclass

import numpy as np

from revelm.core.types import Family
from revelm.objectives.batch import Text
from revelm.objectives.masked_sft import CanvasSFT
from revelm.objectives.random_copies import random_copies
from revelm.objectives.supervised import require_attention
from revelm.trajectories.replay import Copies


@dataclass(frozen=True)
class RandomMaskSFT(CanvasSFT):
    """The whole canvas at one rate. ``num_pad``: see ``CanvasSFT``."""

    def check_family(self, family: Family) -> None:
        """ValueError for models that decode block by block."""
        require_attention(family, "full", "random_mask_sft")

    def max_copies(self, num_tokens: int, family: Family) -> int:
        """As many as are drawn."""
        del num_tokens, family
        return self.noise.num_copies

    def hide(self, sample: Text, family: Family, rng: np.random.Generator) -> tuple[Copies, np.ndarray]:
        """Copies of the whole canvas."""
        end = self.num_positions(len(sample.ids), family)
        return random_copies((sample.prompt_length, end), end, rng, self.noise)
