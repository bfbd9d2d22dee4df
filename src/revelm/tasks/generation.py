"""Generated problems: drawing different ones from a seed, and refusing settings that cannot give them."""

from collections.abc import Callable

from revelm.core.types import Problem

_PATIENCE = 20000  # draws in a row without a new problem after which there are taken to be no more


def draw_distinct(draw: Callable[[], Problem | None], num: int, *, field: str, remedy: str) -> tuple[Problem, ...]:
    """``num`` problems of different ids from repeated calls of ``draw``, which gives None for a failed attempt.

    Raises ValueError, naming ``field`` and the ``remedy``, when no new problem turns up any more.
    """
    problems: dict[str, Problem] = {}
    misses = 0
    while len(problems) < num:
        problem = draw()
        if problem is not None and problem.id not in problems:
            problems[problem.id] = problem
            misses = 0
            continue
        misses += 1
        if misses == _PATIENCE:
            raise ValueError(f"{field}={num}: only {len(problems)} different problems found; {remedy}")
    return tuple(problems.values())


def check_counts(*, num_train: int, num_test: int, habit_rate: float) -> None:
    """Refuse counts below 1 and a rate outside [0, 1] with a ValueError that names the field."""
    for field, value in (("num_train", num_train), ("num_test", num_test)):
        if value < 1:
            raise ValueError(f"{field}={value}: expected the number of problems, at least 1")
    if not 0.0 <= habit_rate <= 1.0:
        raise ValueError(f"habit_rate={habit_rate}: expected the share of habit demonstrations, from 0 to 1")


def check_range(field: str, value: tuple[int, int], *, low: int, high: int) -> None:
    """Refuse a range that is not two ordered numbers within [low, high] with a ValueError that names the field."""
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise ValueError(f"{field}={value!r}: expected two numbers (smallest, largest) from {low} to {high}")
