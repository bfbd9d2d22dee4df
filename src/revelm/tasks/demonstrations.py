"""Demonstrations of mixed quality: some worked out properly, the others following a habit that is usually wrong.

A model trained on them can do the task but often does not, like a base model, which is what reinforcement learning is
then to cure.
"""

from random import Random
from typing import Protocol

from revelm.core.seeds import derive_seed
from revelm.core.types import Demonstration, Problem
from revelm.tasks.chats import answered_chat
from revelm.tasks.task import DemonstrationTask, Task


class HabitTask(Task, Protocol):
    """What a task must know for its demonstrations to be mixed."""

    @property
    def seed(self) -> int:
        """The seed of the task's problems."""
        ...

    @property
    def habit_rate(self) -> float:
        """The share of demonstrations that follow the habit."""
        ...

    def worked(self, problem: Problem) -> str:
        """The answer as it should be given."""
        ...

    def habit(self, problem: Problem, rng: Random) -> str:
        """The answer as the habit gives it."""
        ...


def mixed_demonstrations(task: HabitTask, num: int, *, seed: int) -> list[Demonstration]:
    """``num`` demonstrations on training problems, of which ``round(habit_rate * num)`` have kind "habit".

    No problem repeats before all have been used. Order and kinds are shuffled. Raises ValueError for a negative num.
    """
    if num < 0:
        raise ValueError(f"num={num}: expected the number of demonstrations, at least 0")
    rng = Random(derive_seed(task.name, "demonstrations", task.seed, seed))
    pool = list(task.problems("train"))
    chosen: list[Problem] = []
    while len(chosen) < num:
        chosen += rng.sample(pool, min(len(pool), num - len(chosen)))
    num_habit = round(task.habit_rate * num)
    kinds = ["habit"] * num_habit + ["worked"] * (num - num_habit)
    rng.shuffle(kinds)
    return [_demonstration(task, problem, kind, rng) for problem, kind in zip(chosen, kinds, strict=True)]


def worked_demonstrations(task: DemonstrationTask, num: int, *, seed: int) -> list[Demonstration]:
    """``num`` worked training problems, all of kind "worked"; none repeats before all have been used.

    Raises ValueError for a negative num.
    """
    if num < 0:
        raise ValueError(f"num={num}: expected the number of demonstrations, at least 0")
    rng = Random(derive_seed(task.name, "demonstrations", seed))
    pool, chosen = list(task.problems("train")), list[Problem]()
    while pool and len(chosen) < num:
        chosen += rng.sample(pool, min(len(pool), num - len(chosen)))
    return [Demonstration(answered_chat(task.prompt(p), task.worked(p)), "worked") for p in chosen]


def _demonstration(task: HabitTask, problem: Problem, kind: str, rng: Random) -> Demonstration:
    answer = task.habit(problem, rng) if kind == "habit" else task.worked(problem)
    return Demonstration(answered_chat(task.prompt(problem), answer), kind)
