"""A probe: TraceRL that learns from the first block of every response only.

If it learns as fast as TraceRL on all tokens, the task holds no decision after its first block, and methods that differ
in how they treat later reveals cannot differ in what they reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from revelm.core.grid import block_of
from revelm.core.types import Family
from revelm.objectives.batch import Batch, Episode
from revelm.objectives.policy import PolicyObjective, token_weights
from revelm.objectives.rows import collate
from revelm.objectives.trace_rl import episode_rows
from revelm.trajectories.replay import Copies, copies


@dataclass(frozen=True)
class FirstBlockOnly(PolicyObjective):
    """``is_inverted``: every block but the first instead."""

    is_inverted: bool = False

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Nothing: contexts are the recorded ones."""
        return frozenset()

    def prepare(self, samples: Sequence[Episode], family: Family, seed: int) -> Batch:
        """One row per response with the hidden copies of its first block (or of all others)."""
        del seed
        rows = []
        for sample in samples:
            seen = copies(sample.trajectory)
            first = block_of(len(sample.trajectory.prompt_ids), sample.trajectory.block_size)
            keep = (seen.block != first) if self.is_inverted else (seen.block == first)
            part = _select(seen, keep)
            if part.target.any():
                rows.extend(episode_rows(sample, part, family, token_weights(part.target, self.normalisation)))
        return collate(rows, family)


def _select(seen: Copies, keep: np.ndarray) -> Copies:
    return Copies(seen.block[keep], seen.round[keep], seen.hidden[keep], seen.target[keep])
