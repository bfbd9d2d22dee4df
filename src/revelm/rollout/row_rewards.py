"""What ``revelm score`` can judge the rows of a file by: pairs of a prediction and a reference, or problems of a task.

Pairs are judged by the functions that training and evaluation use (``revelm.rollout.pair_rows``); the rows of a task,
such as ``code`` or ``gsm8k``, each with an answer in it, by the task itself.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from revelm.core import registry
from revelm.core.types import Completion, Problem
from revelm.core.validation import choices
from revelm.data.rows import Row
from revelm.rollout import part_rows
from revelm.rollout.predictions import said
from revelm.tasks.problem_files import row_ids
from revelm.tasks.task import Task

_ROWS = {
    "choice": "revelm.rollout.pair_rows:ChoiceRows",
    "exact": "revelm.rollout.pair_rows:ExactRows",
    "fuzzy": "revelm.rollout.pair_rows:FuzzyRows",
    "math": "revelm.rollout.pair_rows:MathRows",
    "regex": "revelm.rollout.pair_rows:RegexRows",
}


def read_items(
    reward: str, fields: Mapping[str, Any], rows: Sequence[Row], *, path: str
) -> tuple[Task, list[tuple[Problem, Completion]]]:
    """What judges the ``rows`` of the file ``path``, with these ``fields``, and its items, one for each row.

    ValueError for an unknown reward or field, and for a row that cannot be judged, with its number and field.
    """
    if reward not in _ROWS:
        return task_items(reward, fields, rows, path=path)
    judge = registry.build("tasks", {**fields, "kind": _ROWS[reward]}, field=reward)
    return judge, [judge.read(row) for row in rows]


def reward_names() -> list[str]:
    """What rows can be judged by, sorted: rewards, and the tasks whose problems are rows."""
    return sorted({*_ROWS, *part_rows.KINDS, *registry.names("tasks")})


def task_items(
    reward: str, fields: Mapping[str, Any], rows: Sequence[Row], *, path: str
) -> tuple[Task, list[tuple[Problem, Completion]]]:
    """The same where the rows are problems of a registered task, each with an answer."""
    if ":" not in reward and reward not in registry.names("tasks"):
        unfit = "; its values need the tokens of answers" if reward in registry.names("rewards") else ""
        raise ValueError(f"REWARD: {reward!r} is not known{unfit}{choices(reward, reward_names())}")
    known = {field.name for field in dataclasses.fields(registry.resolve("tasks", reward))}
    if "data" not in known:
        raise ValueError(f"REWARD: the problems of {reward!r} are not read from rows; use its task in a recipe")
    if "data" in fields:
        raise ValueError(f"{reward}.data: is the file that is scored; leave it out")
    own = {name: value for name, value in fields.items() if name != "prediction_field"}
    answers = [said(row, fields.get("prediction_field")) for row in rows]
    # By their numbers, as several rows may answer one problem; and none of them is kept for a test.
    usual = {name: value for name, value in {"id_field": None, "test_share": 0.0}.items() if name in known}
    task: Task = registry.build("tasks", {**usual, **own, "kind": reward, "data": path}, field=reward)
    names = _ids(rows, task.name)
    problems = {problem.id: problem for problem in task.problems("test")}
    if any(name not in problems for name in names):
        problems |= {problem.id: problem for problem in task.problems("train")}
    for row, name in zip(rows, names, strict=True):
        if name not in problems:
            raise ValueError(f"{row.place}: is none of the problems that task {reward!r}, as it is set, asks")
    return task, [(problems[name], answer) for name, answer in zip(names, answers, strict=True)]


def _ids(rows: Sequence[Row], task: str) -> list[str]:
    """The ids of the problems; several answers to one row share theirs."""
    firsts = {row.place: row for row in rows}
    ids = dict(zip(firsts, row_ids(list(firsts.values()), task, field=None), strict=True))
    return [ids[row.place] for row in rows]
