r"""Rows of mathematical data sets as problems: where the question, the answer and the solution stand.

A row has a question (``question`` or ``problem``, in small letters or with a capital, or else what verl's rows have:
``extra_info.question``, or a ``prompt`` of one turn) and an answer: the first of
``ground_truth_answer``, ``answer``, ``final_answer``, ``expected_answer``, ``reward_model.ground_truth``, from which a
worked solution in front of ``####``, or around the last box, is taken off; or a ``solution``, whose last box counts, or
the boxes that it joins with "and" or "or". What a ``context`` says stands before the question.

``info``: ``solution`` and ``level``, where the row has them; ``group``, by which accuracy is broken down (the level, or
else the field or the course); ``tolerance``, by how much a number may differ from the reference.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from revelm.core.types import Problem
from revelm.data.rows import Row, shortened
from revelm.rewards.final_answer import final_answer
from revelm.rewards.math_answer import is_equal
from revelm.tasks.problem_files import find_fields

QUESTIONS = ("question", "problem")
PROMPTS = ("extra_info.question", "prompt")
ANSWERS = (
    "ground_truth_answer",
    "answer",
    "final_answer",
    "expected_answer",
    "reward_model.ground_truth",
    "solution",
)
SOLUTIONS = ("solution", "reference_solution")
GROUPS = ("level", "subfield", "type")
_WORKED, _BOX = "####", "\\boxed"
_CALCULATION = re.compile(r"<<[^<>]*>>")  # annotations in GSM8K for a calculator that is not there
_DOLLAR = re.compile(r"(?<!\\)\$")
_LEVEL = re.compile(r"(?:level\s*)?([0-9])", re.IGNORECASE)


def math_problem(
    row: Row, name: str, *, question: str | None = None, answer: str | None = None, tolerance: str | None = None
) -> Problem:
    """The problem that a row holds. ``question``, ``answer``: fields with other names than the usual ones.

    ``tolerance``: a field that says by how much a number may be off, where the data set has one.
    Raises ValueError, with the row and the field, for what is missing, empty or of another type.
    """
    asked = _question(row, question)
    answer_field = _field(row, answer, ANSWERS)
    raw = row.number_or_text(answer_field)
    is_worked = _WORKED in raw or answer_field.lower() == "solution"
    solution = raw if is_worked else _solution(row) or (raw if _BOX in raw else "")
    info: dict[str, Any] = {"solution": _boxed_ending(solution)} if solution else {}
    if (level := level_of(row.get("level"))) is not None:
        info["level"] = level
    if (group := _group(row)) is not None:
        info["group"] = group
    if tolerance is not None and (allowed := row.optional_text(tolerance)):
        info["tolerance"] = _tolerance(row, tolerance, allowed)
    asked = "\n".join(part for part in (row.optional_text("context"), asked) if part)
    return Problem(name, asked, _reference(row, answer_field, raw), info)


def at_levels(problems: Sequence[Problem], levels: Sequence[int] | None) -> Sequence[Problem]:
    """The problems of these ``levels``; None: all. Raises ValueError where none is left."""
    if levels is None:
        return problems
    found = [problem for problem in problems if problem.info.get("level") in levels]
    if not found:
        known = sorted({problem.info["level"] for problem in problems if "level" in problem.info})
        raise ValueError(f"levels={list(levels)}: no training problem has one of them; those there are: {known}")
    return found


def level_of(value: object) -> int | None:
    """A level of MATH, given as 4, "4" or "Level 4"; None for anything else, such as "Level ?"."""
    found = _LEVEL.fullmatch(str(value).strip())
    return None if found is None else int(found[1])


def _group(row: Row) -> str | None:
    level = level_of(row.get("level"))
    if level is not None:
        return f"level {level}"
    return next((value.strip() for name in GROUPS if isinstance(value := row.get(name), str) and value.strip()), None)


def _question(row: Row, given: str | None) -> str:
    """What is asked; of verl's rows ``extra_info.question``, which has no instruction yet, or else the ``prompt``."""
    named = given or any(row.has(name) for name in (*QUESTIONS, *map(str.capitalize, QUESTIONS)))
    fallback = None if named else next((name for name in PROMPTS if row.get(name)), None)
    field = fallback or _field(row, given, QUESTIONS)
    chat = row.get(field)
    if field != PROMPTS[-1] or not isinstance(chat, list):
        return row.text(field)
    if len(chat) != 1 or not isinstance(chat[0], Mapping) or chat[0].get("role") != "user":
        raise row.error(field, f"expected one turn of the user, not {shortened(chat)}; name a text in question_field")
    return replace(row, fields={f"{field}.0.content": chat[0].get("content")}).text(f"{field}.0.content")


def _field(row: Row, given: str | None, usual: Sequence[str]) -> str:
    """The first of the ``usual`` fields that the row has; or the one that is ``given``, and no other."""
    names = (given,) if given else (*usual, *map(str.capitalize, usual))
    found = next((name for name in names if row.has(name)), None)
    setting = "question_field" if usual is QUESTIONS else "answer_field"
    remedy = f"; rename a column (of the task math, or name it with {setting})"
    return found or find_fields(row, [(name,) for name in ([given] if given else usual)], remedy=remedy)[0]


def _solution(row: Row) -> str:
    """The worked solution, the first of several; "" where there is none."""
    field = next((name for name in (*SOLUTIONS, *map(str.capitalize, SOLUTIONS)) if row.get(name)), None)
    if field is None:
        return ""
    return row.texts(field)[0] if isinstance(row.get(field), list) else row.optional_text(field)


def _reference(row: Row, field: str, raw: str) -> str:
    """The final answer in a field: all of it, what follows the last ``####``, or a solution's last box (or boxes).

    Answers in a list are formulas between dollar signs, which are taken off.
    """
    if isinstance(row.get(field), list):
        raw = _DOLLAR.sub("", raw)
    answer = _boxed_answer(raw) or "" if field.lower() == "solution" else final_reference(raw)
    if not answer.strip():
        raise row.error(field, f"holds no final answer ({raw[-40:]!r}); fill it in or remove the row")
    return answer.strip()


def final_reference(text: str) -> str:
    """The final answer of a reference: what follows the last ``####``, or else its last box, or else all of it.

    Empty where the box is, or nothing follows.
    """
    if _WORKED in text:
        return text.rpartition(_WORKED)[2].strip()
    return (_boxed_answer(text) or "").strip() if _BOX in text else text.strip()


def _boxed_answer(solution: str) -> str | None:
    """What a solution boxes last; of boxes that belong together all, unless they say the same in two ways."""
    found = final_answer(solution, sources=("box", "bare box"))
    if found is None:
        return None
    last = found.parts[-1]
    return last if all(is_equal(last, part) for part in found.parts[:-1]) else found.text


def _tolerance(row: Row, field: str, text: str) -> float:
    try:
        return abs(float(text))
    except ValueError as error:
        raise row.error(field, f"{text[:40]!r} is no number; give by how much an answer may be off") from error


def _boxed_ending(solution: str) -> str:
    """A solution whose last line is ``#### 7``, that line as a box; without notes for a calculator."""
    before, found, answer = _CALCULATION.sub("", solution).rpartition(_WORKED)
    return f"{before.rstrip()}\nThe answer is \\boxed{{{answer.strip()}}}." if found else answer
