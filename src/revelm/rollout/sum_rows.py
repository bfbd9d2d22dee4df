"""Rows judged by a weighted sum of rewards, as in training (``revelm.rollout.part_rewards``).

A sum is that of a recipe, ``reward.parts`` over the verdicts of its ``task``, or it is written out: names and weights,
``math=1,format=0.2``. Of these at most one is what judges rows by itself, as ``math`` or ``code``; the others are kinds
of parts or functions of users.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from revelm.core import registry
from revelm.core.config import Schema, Spec, merge, parse_config, read_yaml
from revelm.core.types import Completion, Problem, Score
from revelm.core.validation import choices
from revelm.data.rows import Row
from revelm.rewards.reward import BatchReward, Judged, Reward
from revelm.rollout.pair_rows import PairRows
from revelm.rollout.part_rewards import Part, WeightedSum, open_part, read_parts, weighted_sums
from revelm.rollout.part_rows import CHUNK, NO_VERDICT, group_numbers, read_judged
from revelm.rollout.reward_config import RewardSpec
from revelm.rollout.reward_functions import Function
from revelm.rollout.row_rewards import read_items, reward_names, task_items
from revelm.rollout.verdicts import verdict_stream
from revelm.rollout.workers import ScorePool
from revelm.tasks.task import Task

_SOURCES = ("data", "test_data", "id_field", "test_share")
_COUNTING = ("cosine_length", "length", "tokens_per_forward")


class SumSpec(Schema):
    """What a sum is made of. ``task``: what judges a row before the parts do; None: nothing does, and the part ``task``
    is none. ``prediction_field``, ``reference_field``: None: the first of the usual."""

    task: Spec | None = None
    reward: RewardSpec = RewardSpec()
    prediction_field: str | None = None
    reference_field: str | None = None

    @property
    def row_fields(self) -> dict[str, str]:
        """The fields that were named."""
        named = {"prediction_field": self.prediction_field, "reference_field": self.reference_field}
        return {name: field for name, field in named.items() if field is not None}


def is_sum(reward: str) -> bool:
    """Whether ``reward`` is the name of a recipe, or a sum that is written out."""
    return is_recipe(reward) or "=" in reward


def is_recipe(reward: str) -> bool:
    """Whether ``reward`` is the name of a recipe."""
    return reward.endswith((".yaml", ".yml"))


def read_sum(reward: str, fields: Mapping[str, Any]) -> SumSpec:
    """The sum that is meant, with these ``fields`` changed. ValueError for what cannot be one, with its field."""
    spec = _of_recipe(reward, fields) if is_recipe(reward) else _written_out(reward, fields)
    if spec.reward.judge is not None or spec.reward.reward_model is not None:
        raise ValueError(f"{reward}: reward.judge and reward.reward_model are for training alone; leave them out")
    kinds = spec.reward.kinds()
    if unfit := [kind for kind in kinds if kind in _COUNTING]:
        raise ValueError(f"{reward}: {unfit[0]!r} needs the tokens of answers, and rows have texts; leave it out")
    if spec.task is None and ("task" in kinds or not kinds):
        raise ValueError(f"{reward}: has no task, whose score the part 'task' is; name one in task")
    return spec


def _of_recipe(path: str, fields: Mapping[str, Any]) -> SumSpec:
    """Of a recipe for training only what is said about rewards counts."""
    written = read_yaml(path)
    if isinstance(written.get("task"), str):
        written["task"] = {"kind": written["task"]}
    given = merge(written, fields)
    spec = parse_config(
        SumSpec, {name: given[name] for name in given if name in SumSpec.model_fields or name in fields}
    )
    reward = spec.reward if spec.reward.parts else spec.reward.model_copy(update={"parts": ({"kind": "task"},)})
    task = spec.task and {name: value for name, value in spec.task.items() if name not in _SOURCES}
    return spec.model_copy(update={"reward": reward, "task": task})


def _written_out(text: str, fields: Mapping[str, Any]) -> SumSpec:
    pairs = [_named_weight(word) for word in text.split(",")]
    own = {_short(name): fields.get(_short(name), {}) for name, _ in pairs}
    rest = {name: value for name, value in fields.items() if name not in own}
    if wrong := [name for name in rest if name not in SumSpec.model_fields or name in ("task", "reward")]:
        raise ValueError(f"{wrong[0]}: is none of the rewards; write NAME.field=value{choices(wrong[0], own)}")
    known = registry.names("rewards")
    tasks = [name for name, _ in pairs if name not in known and ":" not in name]
    if len(tasks) > 1:
        raise ValueError(f"REWARD: {' and '.join(tasks)} each judge rows by themselves; a sum has one of them")
    if tasks and tasks[0] not in reward_names():
        raise ValueError(f"REWARD: {tasks[0]!r} is not known{choices(tasks[0], reward_names())}")
    parts = [{**_kind(name, tasks), **({} if name in tasks else own[_short(name)]), "weight": w} for name, w in pairs]
    task = {"kind": tasks[0], **own[_short(tasks[0])]} if tasks else None
    return parse_config(SumSpec, {**rest, "task": task, "reward": {"parts": parts}})


def _named_weight(word: str) -> tuple[str, float]:
    name, equals, weight = word.strip().partition("=")
    try:
        return name, float(weight) if equals else 1.0
    except ValueError:
        raise ValueError(f"REWARD: {word!r}: must look like NAME=WEIGHT, as in math=1,format=0.2") from None


def _kind(name: str, tasks: Sequence[str]) -> dict[str, str]:
    if name in tasks:
        return {"kind": "task", "name": _short(name)}
    return {"kind": "function", "path": name} if ".py:" in name else {"kind": name}


def _short(name: str) -> str:
    """How a reward is called in the fields: by its last name."""
    return name.rpartition(":")[2]


@dataclass(frozen=True)
class SumRows:
    """A sum whose parts are at work, and what judges rows before them."""

    parts: tuple[tuple[Part, Reward | BatchReward], ...]
    task: Task | None

    def stream(self, items: Sequence[Judged], pool: ScorePool) -> Iterator[tuple[int, Score]]:
        """The score of each item with its place, some at a time. RunError for a value that is no number.

        Items are handed to the parts in the same groups whatever the order of verdicts, as parts may compare them.
        """
        waiting: dict[int, dict[int, Score]] = {}
        for place, score in self._verdicts(items, pool):
            chunk = waiting.setdefault(place // CHUNK, {})
            chunk[place] = score
            if len(chunk) == len(items[place // CHUNK * CHUNK :][:CHUNK]):
                yield from self._sums(items, waiting.pop(place // CHUNK))

    def _verdicts(self, items: Sequence[Judged], pool: ScorePool) -> Iterator[tuple[int, Score]]:
        if self.task is None:
            return ((place, item.score) for place, item in enumerate(items))
        return verdict_stream(self.task, [(item.problem, item.completion) for item in items], pool=pool)

    def _sums(self, items: Sequence[Judged], verdicts: Mapping[int, Score]) -> Iterator[tuple[int, Score]]:
        places = sorted(verdicts)
        sums, _ = weighted_sums(self.parts, [replace(items[place], score=verdicts[place]) for place in places])
        for place, found in zip(places, sums, strict=True):
            verdict = verdicts[place]
            correct = verdict.breakdown["correct"] if self.task is not None else float((found.value or 0.0) >= 1)
            told = (verdict.reason or _opinions(found)) if found.value is not None else "no opinion"
            value = float("nan") if found.value is None else found.value
            yield place, Score(value, {**verdict.breakdown, "correct": correct, **found.breakdown}, reason=told)


def _opinions(found: WeightedSum) -> str:
    names = {key.removeprefix("reward/"): value for key, value in found.breakdown.items()}
    return ", ".join(f"{name}: {value:g}" for name, value in names.items() if "/" not in name)


def sum_items(reward: str, spec: SumSpec, rows: Sequence[Row], *, path: str) -> tuple[SumRows, list[Judged]]:
    """What judges the ``rows`` of the file ``path``, and an item for each. ``spec``: what ``reward`` means.

    ValueError as from ``revelm.rollout.row_rewards.read_items``, and for a function that wants columns that rows do not
    have.
    """
    parts = read_parts(spec.reward.parts)
    task: Task | None = None
    if spec.task is None:
        items = read_judged(rows, spec.row_fields)
    else:
        read = task_items if is_recipe(reward) else read_items
        own = {name: value for name, value in spec.task.items() if name != "kind"}
        task, pairs = read(spec.task["kind"], {**own, **spec.row_fields}, rows, path=path)
        items = _judged(task, pairs, rows)
    for part in parts:
        if isinstance(part.reward, Function):
            part.reward.check_columns(items[0])
    return SumRows(tuple(open_part(part, 0) for part in parts), task), items


def _judged(task: Task, pairs: Sequence[tuple[Problem, Completion]], rows: Sequence[Row]) -> list[Judged]:
    """The answers as parts see them. Fields of a row are columns where nothing but the row says what they are."""
    groups, items = group_numbers(rows), []
    for (problem, completion), row, group in zip(pairs, rows, groups, strict=True):
        known = {"data_source": row.name, **row.fields} if isinstance(task, PairRows) else problem.info
        asked = tuple(task.prompt(problem))
        items.append(Judged(replace(problem, info=known), completion, NO_VERDICT, asked, group))
    return items
