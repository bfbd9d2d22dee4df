"""The score of an answer as a weighted sum of rewards, each logged under its name.

    score = sum of weight x value, over the parts that have an opinion

A part without an opinion on an answer adds nothing to its sum (as in TRL). Whether an answer is correct is still what
the task says.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isfinite
from typing import Any

from revelm.core.errors import RunError
from revelm.core.registry import build
from revelm.core.types import Completion, Problem, Score
from revelm.rewards.answer_format import Format
from revelm.rewards.regex_match import Regex
from revelm.rewards.reward import BatchReward, Judged, Ratings, Reward, SeededReward
from revelm.rollout.collect import Answer
from revelm.rollout.guarded_patterns import has_pattern, rate_patterns
from revelm.rollout.reward_functions import Function
from revelm.rollout.reward_source import Rewarded, RewardResult
from revelm.tasks.task import Task

_NAME = re.compile(r"[A-Za-z_][\w.-]*")


@dataclass(frozen=True)
class Part:
    """One reward of a sum."""

    name: str
    weight: float
    reward: Reward | BatchReward | SeededReward


def read_parts(specs: Sequence[Mapping[str, Any]], *, field: str = "reward.parts") -> tuple[Part, ...]:
    """The parts that a recipe names. ValueError, naming the field, for what is wrong with one, or with all together."""
    parts = tuple(_read_part(spec, f"{field}.{i}") for i, spec in enumerate(specs))
    taken = Counter(part.name for part in parts)
    twice = [name for name, count in taken.items() if count > 1]
    if twice:
        raise ValueError(f"{field}: {taken[twice[0]]} parts are called {twice[0]!r}; give each a name of its own")
    if parts and not any(part.weight for part in parts):
        raise ValueError(f"{field}: all weights are 0, so that every answer scores the same; give one of them a weight")
    return parts


def _read_part(spec: Mapping[str, Any], where: str) -> Part:
    fields = {key: value for key, value in spec.items() if key not in ("weight", "name")}
    weight = spec.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not isfinite(weight):
        raise ValueError(f"{where}.weight: must be a finite number, got {weight!r}")
    reward = build("rewards", fields, field=where)
    if not isinstance(reward, Reward | BatchReward | SeededReward):
        raise ValueError(f"{where}.kind: {spec['kind']!r} is no reward; it needs a method rate, rate_all or open")
    usual = reward.name if isinstance(reward, Function) else str(spec["kind"]).rpartition(":")[2]
    name = spec.get("name", usual)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{where}.name: must be a word, under which the reward is logged, got {name!r}")
    return Part(name, float(weight), reward)


def check_columns(parts: Sequence[Part], task: Task) -> None:
    """ValueError for a function that demands an argument which the task's problems do not have."""
    problems = task.problems("train")[:1]
    for part in parts:
        if isinstance(part.reward, Function) and problems:
            part.reward.check_columns(_example(problems[0], task))


def _example(problem: Problem, task: Task) -> Judged:
    return Judged(problem, Completion("", 0, 0, "stop"), Score(0.0, {"correct": 0.0}), tuple(task.prompt(problem)))


@dataclass(frozen=True)
class WeightedSum:
    """The sum for one answer, None where no part has an opinion. Breakdown: ``reward/<name>`` for each opinion, and
    ``reward/<name>/<what>`` for its details."""

    value: float | None
    breakdown: Mapping[str, float]


def weighted_sums(
    parts: Sequence[tuple[Part, Reward | BatchReward]], answers: Sequence[Judged]
) -> tuple[list[WeightedSum], dict[str, float]]:
    """The sum for each answer, in order, and the counts of the parts. RunError as from ``ratings_of``."""
    terms: list[list[float]] = [[] for _ in answers]
    logged: list[dict[str, float]] = [{} for _ in answers]
    counts = Counter[str]()
    for part, reward in parts:
        ratings = ratings_of(part.name, reward, answers)
        counts.update(ratings.counts)
        for i, value in enumerate(ratings.values):
            if value is not None:
                terms[i].append(part.weight * value)
                logged[i][f"reward/{part.name}"] = value
        for i, detail in enumerate(ratings.details):
            logged[i] |= {f"reward/{part.name}/{key}": number for key, number in detail.items()}
    sums = [WeightedSum(fsum(some) if some else None, each) for some, each in zip(terms, logged, strict=True)]
    return sums, dict(counts)


def open_part(part: Part, seed: int) -> tuple[Part, Reward | BatchReward]:
    """A part and what rates answers for it. ValueError as from ``SeededReward.open``."""
    return part, part.reward.open(seed) if isinstance(part.reward, SeededReward) else part.reward


class PartRewards:
    """A weighted sum of rewards; a ``RewardSource``."""

    def __init__(self, parts: Sequence[Part], task: Task, *, seed: int) -> None:
        """Opens what is to be opened. ValueError as from ``SeededReward.open``."""
        self._task = task
        self._parts = [open_part(part, seed) for part in parts]

    def score(self, answers: Sequence[Answer]) -> Rewarded:
        """New scores, with the breakdown of ``weighted_sums``.

        Counts: those of the parts, and ``rewards_unrated``, answers on which no part has an opinion, and which score 0.
        RunError for a value that is not finite, and for what a part cannot go on with.
        """
        sums, counts = weighted_sums(self._parts, [self._judged(answer) for answer in answers])
        results = [RewardResult(outcome=one.value or 0.0, breakdown=one.breakdown) for one in sums]
        return Rewarded(tuple(results), {**counts, "rewards_unrated": float(sum(one.value is None for one in sums))})

    def _judged(self, answer: Answer) -> Judged:
        prompt, ids = tuple(self._task.prompt(answer.problem)), tuple(answer.trajectory.response_ids.tolist())
        return Judged(answer.problem, answer.completion, answer.score, prompt, answer.group, ids)


def ratings_of(name: str, reward: Reward | BatchReward, answers: Sequence[Judged]) -> Ratings:
    """What a reward says about every answer, checked."""
    if isinstance(reward, BatchReward):
        found = reward.rate_all(answers)
    elif isinstance(reward, Regex | Format) and has_pattern(reward):
        found = rate_patterns(reward, answers)
    else:
        found = Ratings(tuple(reward.rate(answer) for answer in answers))
    if len(found.values) != len(answers) or len(found.details) not in (0, len(answers)):
        raise RunError(f"reward {name!r}: gave {len(found.values)} values for {len(answers)} answers")
    for answer, value in zip(answers, found.values, strict=True):
        if value is not None and not (isinstance(value, int | float) and isfinite(value)):
            raise RunError(f"reward {name!r}: gave {value!r} about problem {answer.problem.id!r}; expected a number")
    return found
