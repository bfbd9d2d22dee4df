"""RL with random masking: TraceRL's baseline, blind to the order of reveals (UniGRPO's idea, arXiv 2505.15809).

Each hidden copy of a block draws one mask rate and hides tokens at random; what is hidden is predicted. Contexts are
not those the tokens were decided in, so the behaviour policy is evaluated on the same masks before the update.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from revelm.core.types import Family
from revelm.objectives.batch import Batch, Episode
from revelm.objectives.block_sft import drawn_rows, random_copies
from revelm.objectives.objective import Need
from revelm.objectives.policy import PolicyObjective, token_weights
from revelm.objectives.rows import Row, collate
from revelm.objectives.trace_rl import episode_row


@dataclass(frozen=True)
class RandomMaskRL(PolicyObjective):
    """``num_masks``: hidden copies per block; ``low``, ``high``: range of the mask rate, one draw per copy."""

    num_masks: int = 1
    low: float = 0.1
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_masks < 1:
            raise ValueError(f"objective.num_masks is {self.num_masks}, must be at least 1")
        if not 0.0 <= self.low <= self.high <= 1.0 or self.high == 0.0:
            raise ValueError(f"objective.low, high are {self.low}, {self.high}; need 0 <= low <= high <= 1, high > 0")

    @property
    def needs(self) -> frozenset[Need]:
        """The behaviour policy on the masked rows."""
        return frozenset({"behaviour"})

    def prepare(self, samples: Sequence[Episode], family: Family, seed: int) -> Batch:
        """One row per response: its clean text and ``num_masks`` randomly hidden copies of every block."""
        rows = drawn_rows(
            lambda attempt: [self._row(sample, family, (seed, sample.key, attempt)) for sample in samples]
        )
        return collate(rows, family)

    def _row(self, sample: Episode, family: Family, seed: tuple[int, int, int]) -> Row | None:
        trajectory = sample.trajectory
        start = len(trajectory.prompt_ids)
        rng = np.random.default_rng(seed)
        seen, _ = random_copies(
            (start, start + trajectory.stop_length), trajectory.block_size, rng, (self.low, self.high, self.num_masks)
        )
        if not seen.target.any():
            return None
        return episode_row(sample, seen, family, token_weights(seen.target, self.normalisation))
