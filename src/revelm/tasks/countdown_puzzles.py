"""Countdown puzzles: numbers and a target, generated or solved.

A solution is written as steps, ``44-15=29,79-29=50``: the result of a step takes the place of the two numbers it used.
Results are whole numbers from 0.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from random import Random

MAX_SOLVED = 6  # numbers; more take minutes
_STEP = re.compile(r"([0-9]+)([-+*/])([0-9]+)=([0-9]+)")


def steps_of(left: int, right: int) -> Iterator[tuple[str, int]]:
    """Every step on two numbers, as it is written, and its result."""
    high, low = max(left, right), min(left, right)
    yield f"{high}+{low}={high + low}", high + low
    yield f"{high}-{low}={high - low}", high - low
    yield f"{high}*{low}={high * low}", high * low
    if low and high % low == 0:
        yield f"{high}/{low}={high // low}", high // low


def draw_solution(numbers: Sequence[int], rng: Random) -> tuple[str, int]:
    """Random steps that use all ``numbers``, and what they come to."""
    left, written = list(numbers), list[str]()
    while len(left) > 1:
        pair = rng.sample(range(len(left)), 2)
        step, result = rng.choice(list(steps_of(left[pair[0]], left[pair[1]])))
        written.append(step)
        left = [number for place, number in enumerate(left) if place not in pair] + [result]
    return ",".join(written), left[0]


@lru_cache(maxsize=2**16)
def solve(numbers: tuple[int, ...], target: int) -> str | None:
    """Steps that use all ``numbers``, in ascending order, and come to ``target``; None where there are none."""
    if len(numbers) == 1:
        return "" if numbers[0] == target else None
    for first, second in combinations(range(len(numbers)), 2):
        rest = [number for place, number in enumerate(numbers) if place not in (first, second)]
        for step, result in steps_of(numbers[first], numbers[second]):
            more = solve(tuple(sorted([*rest, result])), target)
            if more is not None:
                return f"{step},{more}" if more else step
    return None


def expression_of(steps: str, numbers: Sequence[int]) -> str | None:
    """Steps as one expression in parentheses; None for steps of another form than ``a+b=c``."""
    written = [(number, str(number)) for number in numbers]
    for step in steps.split(","):
        found = _STEP.fullmatch(step.strip())
        if found is None:
            return None
        left, right = _taken(written, int(found[1])), _taken(written, int(found[3]))
        if left is None or right is None:
            return None
        written.append((int(found[4]), f"({left}{found[2]}{right})"))
    return written[0][1].removeprefix("(").removesuffix(")") if len(written) == 1 else None


def _taken(written: list[tuple[int, str]], number: int) -> str | None:
    """How ``number`` is written; it is taken out of the list. None where it is not there."""
    place = next((i for i, (value, _) in enumerate(written) if value == number), None)
    return None if place is None else written.pop(place)[1]
