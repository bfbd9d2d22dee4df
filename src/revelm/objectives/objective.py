"""What an objective is: two pure halves, and for RL the assignment of credit in between."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from revelm.core.types import Family
from revelm.objectives.batch import Batch, Episode, Loss, Scored

Need = Literal["behaviour", "reference", "value", "entropy"]


class Judge(Protocol):
    """The half of an objective that says what log-probabilities, or values, are worth; a sum of several is one too.

    Loss and metrics are sums over scored positions: a batch may hold some of a row's positions, and then a count of 0.
    """

    def judge(self, scored: Scored, batch: Batch) -> Loss: ...


class Objective(Protocol):
    """``prepare`` says what the model is shown, ``judge`` what its log-probabilities are worth.

    Both are pure; all randomness comes from ``seed`` and each sample's own key, so that a sample's noise does not
    depend on its neighbours. A batch may have no rows: nothing was hidden, or nothing was left; who trains then asks
    again with another seed. ``needs`` lists what the trainer must compute for ``Scored`` beside the current policy:
    "behaviour" asks for log-probabilities of the same rows under the policy before the update, "reference" for those
    under the frozen policy the run began with, "value" for what a critic expects, "entropy" for a gradient of it.
    """

    @property
    def needs(self) -> frozenset[Need]: ...

    def prepare(self, samples: Sequence[Any], family: Family, seed: int) -> Batch: ...

    def judge(self, scored: Scored, batch: Batch) -> Loss: ...


@runtime_checkable
class FamilyObjective(Objective, Protocol):
    """Does not suit every family, or not with every setting."""

    def check_family(self, family: Family) -> None:
        """ValueError for a family that cannot be trained with these settings; asked before weights are loaded."""
        ...


@runtime_checkable
class RLObjective(Objective, Protocol):
    """Learns from scored trajectories."""

    def credit(self, samples: Sequence[Episode], values: np.ndarray | None = None) -> list[Episode]:
        """The samples worth training on, each with its credit; empty when nothing distinguishes them."""
        ...
