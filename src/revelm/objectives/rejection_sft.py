"""Rejection sampling: supervised fine-tuning on the model's own answers that scored well enough (expert iteration)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from revelm.core.types import Family
from revelm.objectives.batch import Batch, Episode, Loss, Scored, Text
from revelm.objectives.block_sft import BlockSFT
from revelm.objectives.objective import Need
from revelm.trajectories.replay import canvas


@dataclass(frozen=True)
class RejectionSFT:
    """Keeps answers with a score of at least ``min_score`` that ended with a stop; trains on them as ``BlockSFT``."""

    min_score: float = 1.0
    low: float = 0.1
    high: float = 1.0
    num_masks: int = 1
    weighting: Literal["elbo", "none"] = "elbo"

    def __post_init__(self) -> None:
        self._sft()

    def _sft(self) -> BlockSFT:
        return BlockSFT(low=self.low, high=self.high, num_masks=self.num_masks, weighting=self.weighting)

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing but the current policy."""
        return frozenset()

    def credit(self, samples: Sequence[Episode], values: np.ndarray | None = None) -> list[Episode]:
        """The answers to learn from, each with credit 1."""
        del values
        good = [s for s in samples if s.score >= self.min_score and s.trajectory.finish_reason == "stop"]
        return [replace(s, credit=1.0) for s in good]

    def prepare(self, samples: Sequence[Episode], family: Family, seed: int) -> Batch:
        """Block SFT rows of the responses up to their stop."""
        return self._sft().prepare([_text(s) for s in samples], family, seed)

    def judge(self, scored: Scored, batch: Batch) -> Loss:
        """The block SFT loss."""
        return self._sft().judge(scored, batch)


def _text(sample: Episode) -> Text:
    start = len(sample.trajectory.prompt_ids)
    return Text(canvas(sample.trajectory)[: start + sample.trajectory.stop_length], start, sample.key)
