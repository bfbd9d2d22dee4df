"""What every task offers: problems, their prompts, verdicts and, optionally, demonstrations to learn from.

A task is a frozen dataclass whose fields are its configuration; it is picklable (workers score with it), deterministic
in its fields, and imports no torch.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from revelm.core.types import Completion, Demonstration, Problem, Score

Messages = list[dict[str, str]]


@runtime_checkable
class Task(Protocol):
    """Problems, how they are asked, and how answers are judged."""

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        ...

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test", the same ones in the same order at each call.

        Raises ValueError for another split, and for an external file that cannot be used.
        """
        ...

    def prompt(self, problem: Problem) -> Messages:
        """The chat that asks ``problem``, up to the assistant's turn."""
        ...

    def score(self, problem: Problem, completion: Completion) -> Score:
        """The verdict on an answer: 1 for a right one, less for any other. Never raises, whatever the text."""
        ...


@runtime_checkable
class GuardedTask(Task, Protocol):
    """A task whose verdicts can take long or crash: worker processes reach them (``revelm.rollout.workers``)."""

    @property
    def score_seconds(self) -> float:
        """CPU seconds that a worker may use for one verdict; of wall clock time, ten times as many. 0: as it is set,
        verdicts of this task are cheap and safe, and need no worker."""
        ...


@runtime_checkable
class WarmedTask(GuardedTask, Protocol):
    """A guarded task that has something to load before its first verdict, which should not pay for it."""

    def warm_up(self) -> None:
        """Load what verdicts need (libraries, a sandbox). Called once in each worker process, without a limit."""
        ...


@runtime_checkable
class AnswerTask(Task, Protocol):
    """A task that can say which answers are the same, so that majorities can be counted (``revelm.eval.votes``)."""

    def answer(self, problem: Problem, completion: Completion) -> str | None:
        """The final answer, spelt the same way whenever it is the same; None where there is none. Never raises.

        Answers with one spelling get one verdict; two spellings of one value only split its votes.
        """
        ...


@runtime_checkable
class DemonstrationTask(Task, Protocol):
    """A task that can also show how its training problems are answered."""

    def worked(self, problem: Problem) -> str:
        """A full answer to ``problem`` that scores 1."""
        ...

    def demonstrations(self, num: int, seed: int) -> list[Demonstration]:
        """``num`` answered training problems, determined by the task's fields and ``seed``."""
        ...


def check_split(split: str) -> None:
    """Refuse a split other than "train" and "test" with a ValueError."""
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}: expected 'train' or 'test'")
