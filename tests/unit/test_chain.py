"""Chain: the convention, disjoint splits, demonstrations, verdicts and bad files."""

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revelm.core.types import Completion, Problem
from revelm.tasks.chain import Chain, evaluate
from revelm.tasks.task import DemonstrationTask

SMALL = Chain(num_train=2000, num_test=300)


def answer(text: str) -> Completion:
    return Completion(text, num_tokens=len(text), num_forwards=1, finish_reason="stop")


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def test_evaluation_goes_left_to_right_modulo_ten() -> None:
    """Python's precedence would give 7+5*3-4 = 18, hence 8; a negative remainder would give -1 for 3-4."""
    assert evaluate("7+5*3-4") == ["7+5=2", "2*3=6", "6-4=2"]
    assert evaluate("3-4") == ["3-4=9"]
    assert evaluate("0*9") == ["0*9=0"]


@given(st.text(max_size=12))
def test_evaluation_refuses_what_is_not_a_question(text: str) -> None:
    """Unicode digits and trailing operators slip through int() and str.isdigit()."""
    try:
        steps = evaluate(text)
    except ValueError as error:
        assert "question=" in str(error)  # noqa: PT017 - both outcomes are allowed
    else:
        assert text.isascii()
        assert len(steps) == len(text) // 2


def test_worked_answer_has_lines_of_six_characters() -> None:
    """Steps that do not line up with blocks make the block model's work harder than the task is."""
    problem = SMALL.problems("train")[0]
    *steps, box = SMALL.worked(problem).splitlines(keepends=True)
    assert {len(step) for step in steps} == {6}
    assert box == f"\\boxed{{{problem.reference}}}"
    assert len(steps) == problem.info["num_operations"]


def test_prompt_is_short_and_takes_an_instruction() -> None:
    """The instruction must reach the prompt, and cost nothing when empty."""
    problem = Problem("x", "7+5*3-4", "2")
    assert Chain().prompt(problem) == [{"role": "user", "content": "7+5=?\n?*3=?\n?-4=?"}]
    assert Chain(instruction="Mod 10.").prompt(problem) == [{"role": "user", "content": "Mod 10.\n7+5=?\n?*3=?\n?-4=?"}]


def test_problems_are_distinct_and_determined_by_the_seed() -> None:
    """Set order or a shared generator would make two processes disagree."""
    train = SMALL.problems("train")
    assert len({problem.question for problem in train}) == len({problem.id for problem in train}) == 2000
    assert Chain(num_train=50).problems("train") == train[:50]
    assert Chain(num_train=50, seed=1).problems("train") != train[:50]
    assert train[0].question == "4-9*8*9*7*3"


def test_train_and_test_share_no_operands_across_seeds() -> None:
    """A model trained with one seed and evaluated with another must not meet its training operands."""
    train = {problem.question[0::2] for seed in (0, 1) for problem in Chain(seed=seed).problems("train")}
    test = {problem.question[0::2] for seed in (0, 1) for problem in Chain(seed=seed).problems("test")}
    assert not train & test


def test_no_answer_and_no_habit_is_right_too_often() -> None:
    """Multiplying by 0 or 5 would let a constant answer score well."""
    problems = Chain(num_train=5000).problems("train")
    counts = [sum(problem.reference == digit for problem in problems) / 5000 for digit in "0123456789"]
    assert min(counts) > 0.07
    assert max(counts) < 0.13
    right = [SMALL.score(problem, answer(SMALL.habit(problem, Random(0)))).value for problem in problems]
    assert 0.08 < sum(right) / 5000 < 0.16


def test_demonstrations_are_mixed_exactly_and_shuffled() -> None:
    """Drawing each kind by a coin would make the habit rate vary from run to run."""
    shown = SMALL.demonstrations(101, seed=3)
    assert shown == SMALL.demonstrations(101, seed=3) != SMALL.demonstrations(101, seed=4)
    kinds = [demonstration.kind for demonstration in shown]
    assert kinds.count("habit") == round(0.7 * 101)
    assert kinds != sorted(kinds) != kinds[::-1]
    assert [message["role"] for message in shown[0].messages] == ["user", "assistant"]
    train = {SMALL.prompt(problem)[0]["content"]: problem for problem in SMALL.problems("train")}
    for demonstration in shown:
        problem = train[demonstration.messages[0]["content"]]
        if demonstration.kind == "worked":
            assert SMALL.score(problem, answer(demonstration.messages[-1]["content"])).value == 1.0
    assert SMALL.demonstrations(0, seed=0) == []


def test_demonstrations_repeat_problems_only_when_they_run_out() -> None:
    """Sampling with replacement would leave problems out."""
    task = Chain(num_train=10, num_test=1)
    prompts = [demonstration.messages[0]["content"] for demonstration in task.demonstrations(25, seed=0)]
    assert len(set(prompts[:10])) == len(set(prompts[10:20])) == 10


def test_score_takes_the_last_box_only() -> None:
    """Boxing every digit, or the right one among others, must not pay."""
    problem = Problem("x", "7+5*3-4", "2")
    assert SMALL.score(problem, answer(r"\boxed{2}")).breakdown == {"correct": 1.0, "has_box": 1.0}
    assert SMALL.score(problem, answer(r"\boxed{3} \boxed{ 2 }")).value == 1.0
    assert SMALL.score(problem, answer(r"\boxed{2} \boxed{3}")).breakdown == {"correct": 0.0, "has_box": 1.0}
    assert SMALL.score(problem, answer(r"\boxed{12}")).value == 0.0
    assert SMALL.score(problem, answer("2")).breakdown == {"correct": 0.0, "has_box": 0.0}
    assert SMALL.score(problem, answer("")).value == 0.0


@given(st.text() | st.text(alphabet="\\boxed{}0123456789=+-*\n", max_size=40))
def test_score_never_raises(text: str) -> None:
    """A half-trained model writes anything."""
    score = SMALL.score(Problem("x", "7+5*3-4", "2"), answer(text))
    assert score.value == score.breakdown["correct"] in (0.0, 1.0)


def test_task_and_problems_are_picklable() -> None:
    """Reward workers get both through a pipe."""
    assert isinstance(SMALL, DemonstrationTask)
    for thing in (SMALL, SMALL.problems("test"), SMALL.demonstrations(3, seed=0)):
        assert pickle.loads(pickle.dumps(thing)) == thing


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_external_file_takes_the_place_of_the_test_split(tmp_path: Path, suffix: str) -> None:
    """Seen and unseen questions are reported apart, so the flag must be right."""
    known = SMALL.problems("train")[0]
    path = tmp_path / f"mine{suffix}"
    if suffix == ".csv":
        path.write_text(f"answer,question,note\n2,7 + 5*3-4 =?,a\n{known.reference},{known.question},b\n")
    else:
        write(path, {"question": "7+5*3-4", "answer": 2}, {"question": known.question, "answer": known.reference})
    task = Chain(num_train=2000, data=str(path))
    first, second = task.problems("test")
    assert (first.id, first.question, first.reference, first.info["seen"]) == ("chain:mine:1", "7+5*3-4", "2", False)
    assert second.info["seen"]
    assert task.problems("train") == SMALL.problems("train")


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.jsonl", '{"question": "7+5"}\n', ["row 1", "'answer'", "missing"]),
        (
            "a.jsonl",
            '{"question": "7+5", "answer": 2}\n\n{"question": "7", "answer": 7}\n',
            ["row 2 (line 3)", "joined"],
        ),
        ("a.jsonl", '{"question": "7+5*3", "answer": "22"}\n', ["row 1", "'answer'", "'22'", "is 6"]),
        ("a.jsonl", '{"question": "7+5", "answer": null}\n', ["row 1", "'answer'", "None"]),
        ("a.jsonl", '{"question": "7+5", "answer": true}\n', ["row 1", "'answer'", "True"]),
        ("a.jsonl", "{oops\n", ["row 1", "not JSON"]),
        ("a.jsonl", "[" * 100_000, ["not JSON"]),
        ("a.jsonl", "[1]\n", ["row 1", "JSON object"]),
        ("a.jsonl", "\n\n", ["no rows"]),
        ("a.csv", "", ["no rows"]),
        ("a.csv", "question,answer\n", ["no rows"]),
        ("a.csv", "question,answer\n7+5\n", ["row 1 (line 2)", "1 values"]),
        ("a.csv", "question,answer\n7+5,\n", ["row 1", "'answer'", "empty"]),
        ("a.csv", 'question,answer\n"7+5,2\n', ["not CSV"]),
        ("a.csv", "frage,answer\n7+5,2\n", ["row 1", "'question'", "frage"]),
        ("a.txt", "7+5", [".csv", ".jsonl"]),
    ],
)
def test_bad_file_names_file_row_and_field(tmp_path: Path, name: str, content: str, parts: list[str]) -> None:
    """A KeyError from deep inside tells a user nothing."""
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.") as error:
        Chain(num_train=10, data=str(path)).problems("test")
    assert [part for part in parts if part not in str(error.value)] == []


def test_missing_folder_and_binary_files_are_refused(tmp_path: Path) -> None:
    """OSError and UnicodeDecodeError must not reach the user as they are."""
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "binary.csv").write_bytes(b"question,answer\n\xff\xfe")
    found = {"none.csv": "No such file", "folder.csv": "a folder without files", "binary.csv": "UTF-8"}
    for name, reason in found.items():
        with pytest.raises(ValueError, match=reason):
            Chain(num_train=10, data=str(tmp_path / name)).problems("test")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_train": 0}, "num_train=0"),
        ({"num_test": -1}, "num_test=-1"),
        ({"habit_rate": 1.5}, r"habit_rate=1\.5"),
        ({"slip_rate": -0.1}, r"slip_rate=-0\.1"),
        ({"num_echoes": -1}, r"num_echoes=-1"),
        ({"num_operations": (6, 4)}, "num_operations"),
        ({"num_operations": (1, 4)}, "num_operations"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, object], message: str) -> None:
    """The message must name the field and its value."""
    with pytest.raises(ValueError, match=message):
        Chain(**fields)


def test_impossible_requests_end_with_an_error() -> None:
    """Rejection sampling without an end would hang on more problems than there are."""
    with pytest.raises(ValueError, match="num_test=5000: only"):
        Chain(num_operations=(2, 2), num_test=5000).problems("test")
    with pytest.raises(ValueError, match="split='dev'"):
        SMALL.problems("dev")
    with pytest.raises(ValueError, match="num=-1"):
        SMALL.demonstrations(-1, seed=0)


def test_operations_and_operands_are_those_asked_for() -> None:
    """A field that generation ignores would make recipes lie about how hard their problems are."""
    small = Chain(num_operations=(4, 4), operations="+-", max_operand=3, num_train=500, num_test=50)
    for problem in (*small.problems("train"), *small.problems("test")):
        assert re.fullmatch(r"[1-9](?:[+-][1-3]){4}", problem.question), problem.question
    with pytest.raises(ValueError, match="operations"):
        Chain(operations="/")
    with pytest.raises(ValueError, match="max_operand"):
        Chain(max_operand=10)


def test_slips_are_carried_on() -> None:
    """Catches slips that the next line does not take up (a decision nobody could learn), and another rate of them."""
    task = replace(SMALL, slip_rate=0.3, habit_rate=1.0)
    slipped = steps = 0
    for problem in task.problems("train")[:300]:
        lines = task.habit(problem, Random(problem.id)).splitlines()
        value, question = int(problem.question[0]), problem.question
        for line, operation, digit in zip(lines[:-1], question[1::2], question[2::2], strict=True):
            assert line[:4] == f"{value}{operation}{digit}="
            right = int(evaluate(f"{value}{operation}{digit}")[0][-1])
            assert int(line[-1]) in (right, (right + 1) % 10)
            slipped, steps, value = slipped + (int(line[-1]) != right), steps + 1, int(line[-1])
        assert lines[-1] == f"\\boxed{{{value}}}"
    assert abs(slipped / steps - 0.3) < 0.05


def test_echoes_repeat_the_result() -> None:
    """Catches echoes of another number than the result, which would contradict it, and slips that are not echoed."""
    problem = Problem("a", "7+5*3", "6")
    assert replace(SMALL, num_echoes=2).worked(problem) == "7+5=222\n2*3=666\n\\boxed{6}"
    slipping = replace(SMALL, num_echoes=1, slip_rate=1.0)
    assert slipping.habit(problem, Random(0)) == "7+5=33\n3*3=00\n\\boxed{0}"
    assert slipping.score(problem, answer(replace(slipping, slip_rate=0.0).worked(problem))).value == 1.0
