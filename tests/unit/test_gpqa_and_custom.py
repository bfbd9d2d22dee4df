"""GPQA, and questions of one's own: options, verdicts, bad rows."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from revelm.core.registry import build
from revelm.core.types import Completion, Problem
from revelm.tasks.task import Task


def said(text: str) -> Completion:
    return Completion(text, len(text), 1, "stop")


def write(folder: Path, rows: Sequence[Any], name: str = "rows.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / name)


def gpqa_row(**fields: str) -> dict[str, str]:
    wrong = {f"Incorrect Answer {i}": f"wrong {i}" for i in (1, 2, 3)}
    return {"Question": " Which? ", "Correct Answer": "right\n", **wrong, "High-level domain": "Physics", **fields}


def test_options_of_gpqa_are_shuffled_once_and_for_all(tmp_path: Path) -> None:
    """Catches a right answer that always comes first, and an order that depends on the place in the file."""
    rows = [gpqa_row(Question=f"Which {i}?") for i in range(60)]
    task = build("tasks", {"kind": "gpqa", "data": write(tmp_path, rows)})
    problems = task.problems("test")
    letters = Counter(p.reference for p in problems)
    assert set(letters) == set("ABCD")
    assert max(letters.values()) < 30
    for problem in problems:
        assert problem.info["options"]["ABCD".index(problem.reference)] == "right"
        assert problem.info["group"] == "Physics"
    turned = build("tasks", {"kind": "gpqa", "data": write(tmp_path, rows[::-1], "turned.jsonl")}).problems("test")
    assert {p.question: p.info["options"] for p in turned} == {p.question: p.info["options"] for p in problems}
    other = build("tasks", {"kind": "gpqa", "data": write(tmp_path, rows), "seed": 1}).problems("test")
    assert [p.reference for p in other] != [p.reference for p in problems]
    with pytest.raises(ValueError, match=r"row 1 \(line 1\), field 'Incorrect Answer 2': empty"):
        build("tasks", {"kind": "gpqa", "data": write(tmp_path, [gpqa_row(**{"Incorrect Answer 2": ""})])}).problems(
            "test"
        )


def test_options_of_gpqa_may_be_numbers(tmp_path: Path) -> None:
    """Catches typed files whose options are numbers, not texts."""
    row = {**gpqa_row(), "Correct Answer": 0.5, "Incorrect Answer 1": 3.0}
    (problem,) = build("tasks", {"kind": "gpqa", "data": write(tmp_path, [row])}).problems("test")
    assert {"0.5", "3"} < set(problem.info["options"])


def test_gpqa_is_asked_for_one_letter() -> None:
    """Catches letters that do not belong to the options shown, and a hedge that is paid."""
    task = build("tasks", {"kind": "gpqa", "data": "sample"})
    problem = task.problems("test")[0]
    content = task.prompt(problem)[0]["content"]
    assert f"\n{problem.reference}. Its temperature\n" in content + "\n"
    right, wrong = problem.reference, "A" if problem.reference != "A" else "B"
    for text, value in (
        (f"\\boxed{{{right}}}", 1.0),
        (f"\\boxed{{\\text{{({right})}}}}", 1.0),
        (f"\\boxed{{{wrong}}}", 0.0),
        (f"\\boxed{{{wrong}}} or \\boxed{{{right}}}", 0.0),
        (f"\\boxed{{{wrong},{right}}}", 0.0),
        (right, 0.0),
    ):
        assert task.score(problem, said(text)).value == value, text
    think = build("tasks", {"kind": "gpqa", "data": "sample", "style": "think"})
    assert think.prompt(problem)[1]["content"] == "<think>\n"
    assert think.score(problem, said(f"\\boxed{{{right}}}")).value == 0.0
    assert think.score(problem, said(f"</think>\\boxed{{{right}}}")).value == 1.0


@pytest.mark.parametrize(
    ("reward", "reference", "right", "wrong"),
    [
        ("exact", "Blue Whale", "blue  whale.", "whale"),
        ("exact", "7", "\\boxed{7}", "7 or 8"),
        ("math", "\\frac{1}{2}", "\\boxed{0.5}", "0.5"),
        ("choice", "B", "The answer is (B)", "\\boxed{A}"),
        ("regex", r"\b4[0-9]\b", "It is 42.", "It is 52."),
        ("math", 27.0, "\\boxed{27}", "\\boxed{2}"),
    ],
)
def test_verdicts_of_custom(tmp_path: Path, reward: str, reference: Any, right: str, wrong: str) -> None:
    """Catches a field that names one verdict and gets another."""
    row = {"prompt": "q", "reward_model": {"ground_truth": reference}}
    fields = {"question_field": "prompt", "answer_field": "reward_model.ground_truth", "test_share": 0.0}
    task: Task = build("tasks", {"kind": "custom", "data": write(tmp_path, [row]), "reward": reward, **fields})
    (problem,) = task.problems("train")
    assert task.score(problem, said(right)).value == 1.0
    assert task.score(problem, said(wrong)).value == 0.0


@pytest.mark.parametrize(
    ("row", "reward", "message"),
    [
        (
            {"question": "q"},
            "exact",
            r"row 1 \(line 1\): expected .*_answer; found: question; name the column with answer_field",
        ),
        ({"question": 1.5, "ground_truth_answer": "a"}, "exact", r"field 'question': expected text, not 1\.5"),
        ({"question": "q", "ground_truth_answer": "green"}, "choice", r"'green' is no reference for reward='choice'"),
        ({"question": "q", "ground_truth_answer": "("}, "regex", r"'\(' is no reference for reward='regex'"),
    ],
)
def test_bad_rows_of_custom(tmp_path: Path, row: dict[str, Any], reward: str, message: str) -> None:
    """Catches a reference that no answer can ever meet, found in the accuracy."""
    with pytest.raises(ValueError, match=message):
        build("tasks", {"kind": "custom", "data": write(tmp_path, [row]), "reward": reward}).problems("train")


@pytest.mark.parametrize(
    ("reward", "same", "other"),
    [
        ("math", ("so \\boxed{1,200}", "\\boxed{1200.0}"), "\\boxed{1201}"),
        ("exact", ("I say \\boxed{New  York.}", "<answer>new york</answer>"), "\\boxed{York}"),
        ("choice", ("\\boxed{b}", "The answer is (B)"), "\\boxed{C}"),
        ("regex", ("yes", " yes\n"), "Yes"),
    ],
)
def test_answers_to_own_questions_can_be_counted(reward: str, same: tuple[str, str], other: str) -> None:
    """Catches majorities that are missing for own questions, and one key for answers that get two verdicts."""
    task = build("tasks", {"kind": "custom", "reward": reward})
    reference = {"math": "1200", "exact": "New York", "choice": "B", "regex": "^yes"}[reward]
    problem = Problem("p", "q", reference)
    first, second, third = (task.answer(problem, said(text)) for text in (*same, other))
    assert first is not None
    assert first == second != third
    assert [task.score(problem, said(text)).value for text in (*same, other)] == [1.0, 1.0, 0.0]
    assert task.answer(problem, said("")) is None
