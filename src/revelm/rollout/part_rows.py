"""Rows judged by rewards that are parts of a sum in training: functions of users, forms of answers, a language model.

A row has an answer, and perhaps a question (a text, or a chat in ``prompt``) and a reference; its other fields are the
columns that a function is given. A reward is a number, which need not lie between 0 and 1: from 1 on it counts as
correct. Where a reward has no opinion the row has no score.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from revelm.core.registry import build
from revelm.core.types import Problem, Score
from revelm.data.rows import Row
from revelm.rewards.reward import BatchReward, Judged, Ratings, Reward, SeededReward
from revelm.rollout.pair_rows import REFERENCES
from revelm.rollout.part_rewards import ratings_of
from revelm.rollout.predictions import said
from revelm.rollout.reward_functions import Function

KINDS = ("format", "function", "judge_outcome")
QUESTIONS = ("question", "problem", "prompt")
CHUNK = 256  # answers that a reward is asked about together
NO_VERDICT = Score(0.0, {"correct": 0.0})


@dataclass(frozen=True)
class PartRows:
    """A reward and the name under which errors speak of it."""

    name: str
    reward: Reward | BatchReward

    def stream(self, items: Sequence[Judged]) -> Iterator[tuple[int, Score]]:
        """The score of each item with its place, some at a time. RunError for a value that is no number."""
        for start in range(0, len(items), CHUNK):
            found = ratings_of(self.name, self.reward, items[start : start + CHUNK])
            yield from ((start + i, score) for i, score in enumerate(_scores(found)))


def is_part(reward: str) -> bool:
    """Whether ``reward`` is the name of one, or the address of a function, ``file.py:name``."""
    return reward in KINDS or ".py:" in reward


def part_items(reward: str, fields: Mapping[str, Any], rows: Sequence[Row]) -> tuple[PartRows, list[Judged]]:
    """What judges the ``rows``, with these ``fields``, and its items, one for each row.

    ValueError for an unknown field, a row without an answer, and a function that wants columns that rows do not have.
    """
    own = {name: value for name, value in fields.items() if name not in ("prediction_field", "reference_field")}
    spec = {"kind": reward, **own} if reward in KINDS else {"kind": "function", "path": reward, **own}
    found = build("rewards", spec, field=reward)
    items = read_judged(rows, fields)
    if isinstance(found, Function):
        found.check_columns(items[0])
    return PartRows(reward, found.open(0) if isinstance(found, SeededReward) else found), items


def read_judged(rows: Sequence[Row], fields: Mapping[str, Any]) -> list[Judged]:
    """The answers in ``rows`` without a verdict. ValueError, with row and field, where there is none."""
    return [_item(row, group, fields) for row, group in zip(rows, group_numbers(rows), strict=True)]


def group_numbers(rows: Sequence[Row]) -> list[int]:
    """A number for each row, the same for all answers to it."""
    places = {place: i for i, place in enumerate(dict.fromkeys(row.place for row in rows))}
    return [places[row.place] for row in rows]


def _item(row: Row, group: int, fields: Mapping[str, Any]) -> Judged:
    wanted = fields.get("reference_field")
    field = next((name for name in ((wanted,) if wanted else REFERENCES) if row.get(name) is not None), None)
    if field is None and wanted:
        raise row.error(wanted, "missing or null; correct reference_field")
    completion = said(row, fields.get("prediction_field"))
    asked = next((name for name in QUESTIONS if row.get(name)), None)
    chat = row.get(asked) if asked else ""
    prompt = tuple(chat) if isinstance(chat, list) else ({"role": "user", "content": str(chat)},)
    question = str(prompt[-1].get("content", "")) if isinstance(prompt[-1], Mapping) else str(chat)
    reference = "" if field is None else row.number_or_text(field)
    problem = Problem(row.place, question, reference, {"data_source": row.name, **row.fields})
    return Judged(problem, completion, NO_VERDICT, prompt, group)


def _scores(found: Ratings) -> Iterator[Score]:
    details = found.details or ({},) * len(found.values)
    for value, detail in zip(found.values, details, strict=True):
        told = ", ".join(f"{name}: {number:g}" for name, number in detail.items())
        if value is None:
            yield Score(float("nan"), {"correct": 0.0}, reason="no opinion")
        else:
            yield Score(float(value), {"correct": float(value >= 1)}, reason=told)
