"""TraceRL: reinforcement learning on the order in which tokens were really revealed (arXiv 2509.06949, section 4).

Every token is scored in the context it was decided in. With shrinkage s, s neighbouring steps of a block are merged
into one round: fewer forwards, contexts with up to s - 1 steps less revealed than there were.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from revelm.core.types import Family
from revelm.objectives.batch import Batch, Episode
from revelm.objectives.objective import Need
from revelm.objectives.policy import PolicyObjective, token_weights
from revelm.objectives.rows import Row, block_row, collate
from revelm.trajectories.record import Trajectory
from revelm.trajectories.replay import Copies, canvas, copies


@dataclass(frozen=True)
class TraceRL(PolicyObjective):
    """``shrinkage``: neighbouring steps merged into one training round. With 1, the behaviour policy's
    log-probabilities are the recorded ones; otherwise contexts differ and the trainer computes them."""

    shrinkage: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shrinkage < 1:
            raise ValueError(f"objective.shrinkage is {self.shrinkage}, must be at least 1")

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing with shrinkage 1; else the behaviour policy on the merged contexts."""
        return frozenset() if self.shrinkage == 1 else frozenset({"behaviour"})

    def prepare(self, samples: Sequence[Episode], family: Family, seed: int) -> Batch:
        """One row per response: its clean text and one hidden copy per block and round."""
        del seed
        rows = [self._row(sample, family) for sample in samples]
        return collate([row for row in rows if row is not None], family)

    def _row(self, sample: Episode, family: Family) -> Row | None:
        trajectory = sample.trajectory
        seen = copies(trajectory, self.shrinkage)
        if not seen.target.any():
            return None
        return episode_row(sample, seen, family, token_weights(seen.target, self.normalisation))


def episode_row(sample: Episode, seen: Copies, family: Family, weight: np.ndarray) -> Row:
    """A row that scores the targets of ``seen`` with the sample's credit and its recorded log-probabilities."""
    trajectory = sample.trajectory
    labels, scored, targets = block_row(canvas(trajectory), seen, family, grid_offset=trajectory.grid_offset)
    place = _completion_places(trajectory, seen)
    columns = {
        "weight": weight,
        "credit": np.full(len(targets), sample.credit),
        "behaviour": trajectory.logprob[place].astype(np.float64),
        "temperature": np.full(len(targets), float(trajectory.sampling["temperature"])),
    }
    return Row(labels, scored, targets, columns, float(weight.sum()))


def _completion_places(trajectory: Trajectory, seen: Copies) -> np.ndarray:
    """Index within the completion of every target, in row order."""
    size = trajectory.block_size
    position = seen.block[:, None] * size + trajectory.grid_offset + np.arange(size)
    return position[seen.target] - len(trajectory.prompt_ids)
