"""What a reward of whole answers is: a number for one answer, or numbers for many, from what is known about them.

A reward is a frozen dataclass whose fields are its configuration; it is picklable and deterministic in these and the
answers, and imports no torch. ``Reward`` looks at one answer at a time, ``BatchReward`` at all of a step, and a
``SeededReward`` becomes one of these when a run begins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from revelm.core.types import Completion, Problem, Score


@dataclass(frozen=True)
class Judged:
    """An answer as a reward sees it: what was asked (a chat), what was said, and what the task says about it.

    ``group``: the number of the problem among those asked together. ``token_ids``: of the response, as decoded.
    """

    problem: Problem
    completion: Completion
    score: Score
    prompt: tuple[Mapping[str, str], ...] = ()
    group: int = 0
    token_ids: tuple[int, ...] = ()

    @property
    def is_correct(self) -> bool:
        """What the task says."""
        return self.score.breakdown["correct"] > 0


@dataclass(frozen=True)
class Ratings:
    """A number for each answer, in order, None for no opinion; what else is to be logged about each, or nothing at all;
    and counts of what happened on the way."""

    values: tuple[float | None, ...]
    details: tuple[Mapping[str, float], ...] = ()
    counts: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Reward(Protocol):
    """A reward of one answer."""

    def rate(self, answer: Judged) -> float | None:
        """A finite number; None for no opinion. Never raises, whatever the text."""
        ...


@runtime_checkable
class BatchReward(Protocol):
    """A reward of many answers at once."""

    def rate_all(self, answers: Sequence[Judged]) -> Ratings:
        """One entry per answer, in order. RunError when it cannot go on."""
        ...


@runtime_checkable
class SeededReward(Protocol):
    """A reward that has a life: a connection, a memory, randomness."""

    def open(self, seed: int) -> BatchReward:
        """What rates answers in a run with this seed. ValueError for what it lacks."""
        ...
