"""Countdown: what counts as making the target, public files, generated puzzles, tricks."""

import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revelm.core.registry import build
from revelm.core.types import Completion
from revelm.rewards.arithmetic import NotArithmeticError, evaluate
from revelm.rewards.countdown import score_countdown
from revelm.tasks.countdown import Countdown
from revelm.tasks.countdown_puzzles import draw_solution, expression_of, solve

PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "data" / "countdown"
NUMBERS, TARGET = (30, 100, 93), 23


def said(text: str) -> Completion:
    return Completion(text, len(text), 1, "stop")


def write(folder: Path, rows: Sequence[Any]) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / "rows.jsonl")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", 7), ("(1+2)*3", 9), ("8/4/2", 1), ("7-2-1", 4), ("-3+5", 2), ("2*(-3+5)", 4), ("1/3+1/3+1/3", 1),
        ("\\frac{6}{1+2}", 2), ("\\dfrac{1}{2} \\times 4", 2), ("\\left(2+3\\right)\\cdot4", 20), ("6 ÷ 3 − 2", 0),
        ("$2 \\div 4$", Fraction(1, 2)), (" 12 ", 12),
    ],
)  # fmt: skip
def test_expressions(text: str, value: int | Fraction) -> None:
    """Catches a wrong order of operations, and division that rounds."""
    assert evaluate(text).value == value


@pytest.mark.parametrize(
    "text",
    [
        "", "()", "1+", "+1", "1 2", "2(3)", "(1+2", "1+2)", "1**2", "2^3", "7//2", "1.5", "1e3", "0x10", "1_0", "x",
        "--1", "1/0", "1/(2-2)", "\\frac{1}{0}", "\\frac12", "1,000", "٣+1", "１+1", "²", "1+\x00", "__import__('os')",
        "9" * 13,
        "(" * 50 + "1" + ")" * 50, "1" + "+1" * 200, "-" * 300, "\ud800",
    ],
)  # fmt: skip
def test_what_is_no_expression(text: str) -> None:
    """Catches text that is run, digits of other scripts, powers that take for ever, and recursion without an end."""
    with pytest.raises(NotArithmeticError):
        evaluate(text)


@given(st.text(alphabet="0123456789+-*/() ", max_size=30))
def test_expressions_are_what_python_makes_of_them(text: str) -> None:
    """Catches a grammar of our own that means something else by the same signs."""
    try:
        found = evaluate(text)
    except NotArithmeticError:
        return
    numbers = "".join(c if c in "0123456789" else " " for c in text).split()
    assert found.numbers == tuple(map(int, numbers))
    parts = "".join(f"Fraction({part})" if part.isdigit() else part for part in _parts(text))
    assert found.value == eval(parts, {"Fraction": lambda number: Fraction(int(str(number)))})


def _parts(text: str) -> list[str]:
    """Runs of digits, without leading zeros, and single signs."""
    spread = "".join(c if c in "0123456789" else f" {c} " for c in text).split()
    return [str(int(part)) if part.isdigit() else part for part in spread]


@pytest.mark.parametrize(
    "answer",
    [
        "30-100+93",
        "(93+30)-100 = 23",
        "93-(100-30)",
        "30+93=123,123-100=23",
        "30+93=123\n123-100=23",
        "93 + 30 - 100 = 23."[:-1],
    ],
)
@pytest.mark.parametrize("form", ["{}", "so \\boxed{{{}}}.", "<answer>{}</answer>", "<think>1+1</think>\n{}"])
def test_right_answers(answer: str, form: str) -> None:
    """Catches a right way that is refused for its spelling or its place."""
    assert score_countdown(form.format(answer), NUMBERS, TARGET).value == 1.0


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("23", 0.0),
        ("30-100+93=24", 0.0),
        ("30+100+93", 1.0),
        ("93-(100-30)*1", 0.0),
        ("30-100+93+0", 0.0),
        ("30-100+93+30-30", 0.0),
        ("93-70", 0.0),
        ("30-100+(90+3)", 0.0),
        ("30+93=123,123-100=24", 0.0),
        ("30+93=124,124-100=24", 0.0),
        ("100-77=23", 0.0),
        ("100-93=7,30-7=23,23=23", 1.0),
        ("100-93=7,30-7=23", 1.0),
        ("93-100+30 or 23", 0.0),
        ("30-100+93;import os", 0.0),
        ("eval('23')", 0.0),
        ("3" * 100_000, 0.0),
        ("=23", 0.0),
        (",,,", 0.0),
        ("30-100+93=23=23", 0.0),
        ("٣٠-١٠٠+٩٣", 0.0),
        ("30**1-100+93", 0.0),
        ("", 0.0),
    ],
)
def test_tricks(answer: str, form: float) -> None:
    """Catches numbers that are not given or used twice, results that are only claimed, and code that is run."""
    verdict = score_countdown(f"\\boxed{{{answer}}}", NUMBERS, TARGET)
    is_right = answer in ("100-93=7,30-7=23", "100-93=7,30-7=23,23=23")
    assert verdict.value == verdict.breakdown["correct"] == float(is_right)
    assert verdict.breakdown["format"] == form
    assert len(verdict.reason) < 100


def test_equal_numbers_are_used_as_often_as_they_are_given() -> None:
    """Catches a set where a count is meant."""
    assert score_countdown("90-90/43*0", (90, 43, 90), 90).value == 0.0
    assert score_countdown("43+90-90", (90, 43, 90), 43).value == 1.0
    assert score_countdown("43+90-43", (90, 43, 90), 90).value == 0.0
    assert score_countdown("5*5=25,25-5=20", (5, 5, 5), 20).value == 1.0


def test_hedging_is_not_paid() -> None:
    """Catches the last of many boxes that counts, though they were tried one after the other in one breath."""
    assert score_countdown("\\boxed{30+100+93} or \\boxed{30-100+93}", NUMBERS, TARGET).value == 0.0
    assert score_countdown("<answer>30+1</answer> <answer>30-100+93</answer>", NUMBERS, TARGET).value == 1.0


def test_a_reward_for_the_form() -> None:
    """Catches the reward for using the numbers paid for nonsense, or a right answer that gets less."""
    task = Countdown(data="sample", format_reward=0.25)
    problem = task.problems("test")[0]
    for text, value in (("\\boxed{(6*25)+3}", 1.0), ("\\boxed{6+25+3}", 0.25), ("\\boxed{153}", 0.0), ("", 0.0)):
        assert task.score(problem, said(text)).value == value


@pytest.mark.parametrize(
    ("name", "num", "count"),
    [
        ("countdown_cd3_test", 256, 3),
        ("dream_cd3_test", 1000, 3),
        ("dream_cd4_test", 1000, 4),
        ("dream_cd5_test", 1000, 5),
    ],
)
def test_every_public_puzzle_has_a_right_answer(name: str, num: int, count: int) -> None:
    """Catches a worked answer of a public file that is refused, and a puzzle that is read wrongly."""
    file = PUBLIC / f"{name}.jsonl"
    if not file.is_file():
        pytest.skip("needs the public data beside the repository")
    task = Countdown(data=str(file))
    problems = task.problems("test")
    assert len(problems) == num
    assert {p.info["group"] for p in problems} == {f"{count} numbers"}
    for problem in problems:
        assert task.score(problem, said(task.worked(problem))).value == 1.0, problem.question
        assert task.score(problem, said(f"\\boxed{{{problem.info['target']}}}")).value == 0.0
        if "=" in problem.reference:
            assert task.score(problem, said(problem.reference)).value == 1.0, problem.question


def test_the_solver_against_all_expressions() -> None:
    """Catches a target that is called out of reach."""
    numbers, rng = (3, 4, 7), Random(1)
    reached = {draw_solution(numbers, rng)[1] for _ in range(4000)}
    for target in range(100):
        steps = solve(numbers, target)
        assert (steps is not None) == (target in reached)
        assert steps is None or score_countdown(steps, numbers, target).value == 1.0
    for _ in range(200):
        drawn = [rng.randint(1, 20) for _ in range(4)]
        steps, target = draw_solution(drawn, rng)
        assert score_countdown(steps, drawn, target).value == 1.0
        expression = expression_of(steps, drawn)
        assert expression is not None
        assert score_countdown(expression, drawn, target).value == 1.0
    assert expression_of("1+1=2", (3, 4)) is None


def test_generated_puzzles() -> None:
    """Catches numbers that stand on both sides, targets out of range, and puzzles that change with their number."""
    task = Countdown(num_train=400, num_test=100, max_target=50)
    train, test = task.problems("train"), task.problems("test")
    assert (len(train), len(test)) == (400, 100)
    sides = [{tuple(sorted(p.info["numbers"])) for p in problems} for problems in (train, test)]
    assert sides[0].isdisjoint(sides[1])
    for problem in (*train, *test):
        assert 1 <= problem.info["target"] <= 50
        assert len(problem.info["numbers"]) in (3, 4)
        assert task.score(problem, said(task.worked(problem))).value == 1.0
    assert Countdown(num_train=10, max_target=50).problems("train") == train[:10]
    assert Countdown(num_train=10, max_target=50, seed=1).problems("train") != train[:10]


def test_training_without_the_puzzles_of_the_test(tmp_path: Path) -> None:
    """Catches a puzzle that is trained on with its numbers in another order."""
    train = [{"nums": [3, 25, 6], "target": 153}, {"nums": [3, 25, 6], "target": 34}]
    task = build("tasks", {"kind": "countdown", "data": "sample", "train_data": write(tmp_path, train)})
    assert [p.info["target"] for p in task.problems("train")] == [34]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"input": "1,2"},
            r"row 1 \(line 1\): expected fields input, output or nums, target or numbers, target; found",
        ),
        ({"input": "1,b", "output": "3"}, r"field 'input': '1,b'; expected 2 to 10 whole numbers joined by commas"),
        ({"input": "1", "output": "3"}, r"field 'input': '1'; expected 2 to 10"),
        ({"input": "1,2", "output": "three"}, r"field 'output': 'three'; expected the target, a whole number"),
        ({"input": "1,2", "output": "-3"}, r"field 'output': '-3'; expected the target"),
        (
            {"input": "1,2,4", "output": "1+2=3"},
            r"field 'output': '1\+2=3' does not make 4 from \[1, 2\] \(different: 3",
        ),
        ({"nums": "1,2", "target": 3}, r"field 'nums': expected a list of texts"),
        ({"nums": [1, 2.5], "target": 3}, r"field 'nums': '1,2\.5'; expected"),
        ({"nums": [1, 2], "target": None}, r"field 'target': expected text, not None"),
        ({"nums": [1, "٢"], "target": 3}, r"field 'nums': '1,٢'; expected"),
    ],
)
def test_bad_rows(tmp_path: Path, row: Any, message: str) -> None:
    """Catches a puzzle that is asked with other numbers than the file has."""
    with pytest.raises(ValueError, match=message):
        Countdown(data=write(tmp_path, [row])).problems("test")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_numbers": (1, 3)}, "num_numbers"),
        ({"max_number": 2}, "max_number=2"),
        ({"max_target": 0}, "max_target=0"),
        ({"format_reward": 1.0}, r"format_reward=1\.0"),
        ({"instruction": "Make {target}."}, r"has no \{numbers\}"),
        ({"num_test": 0}, "num_test=0"),
    ],
)
def test_settings_that_cannot_work(fields: dict[str, Any], message: str) -> None:
    """Catches a setting that is found to be wrong in the middle of a run."""
    with pytest.raises(ValueError, match=message):
        Countdown(**fields)


def test_puzzles_that_cannot_be_shown(tmp_path: Path) -> None:
    """Catches a search without an end, and a demonstration that is wrong."""
    rows = [{"nums": [1, 1], "target": 99}, {"nums": list(range(1, 9)), "target": 99}]
    task = Countdown(data=write(tmp_path, rows))
    for problem in task.problems("test"):
        with pytest.raises(ValueError, match="no steps in whole numbers found; give some as output"):
            task.worked(problem)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("\\boxed{(30+93)-100}", "23"),
        ("<answer>93 - (100 - 30) = 23</answer>", "23"),
        ("30+93=123,123-100=23", "23"),
        ("\\boxed{100-93+30}", "37"),
        ("\\boxed{30/93*100}", "1000/31"),
        ("\\boxed{20+3}", None),
        ("\\boxed{30/(93-93)}", None),
        ("", None),
    ],
)
def test_answers_are_the_same_that_come_to_the_same(text: str, key: str | None) -> None:
    """Catches a majority in which every way to the target is a vote of its own, and one for what breaks the rules."""
    problem = Countdown().problems("test")[0]
    problem = replace(problem, info={"numbers": NUMBERS, "target": TARGET})
    assert Countdown().answer(problem, said(text)) == key
