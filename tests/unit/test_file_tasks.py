r"""Tasks whose problems come from files: ``math`` and ``multiple_choice``, good rows and bad ones."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from revelm.core.types import COLUMNS, Completion, Problem
from revelm.tasks.code import Code
from revelm.tasks.code_collections import Apps
from revelm.tasks.math import Math
from revelm.tasks.multiple_choice import MultipleChoice

OPTIONS = {"question": "Which?", "choices": ["red", "green", "blue"], "answer": "B"}


def write(folder: Path, rows: Sequence[Any], name: str = "rows.jsonl") -> str:
    """A JSON Lines file; a row that is text is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file = folder / name
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


def said(text: str) -> Completion:
    """An answer."""
    return Completion(text, len(text), 1, "stop")


def only(task: Math | MultipleChoice) -> Problem:
    """The first problem of the test."""
    return task.problems("test")[0]


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"question": "q", "ground_truth_answer": "7"}, "7"),
        ({"problem": "q", "answer": 7}, "7"),
        ({"problem": "q", "answer": 27.0}, "27"),
        ({"problem": "q", "answer": 0.5}, "0.5"),
        ({"question": "q", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"}, "7"),
        ({"question": "q", "final_answer": ["7"]}, "7"),
        ({"question": "q", "final_answer": ["7", "-7"]}, "7, -7"),
        ({"problem": "q", "expected_answer": "\\frac{1}{2}"}, "\\frac{1}{2}"),
        ({"problem": "q", "solution": "so \\boxed{\\frac{1}{2}}."}, "\\frac{1}{2}"),
        ({"problem": "q", "solution": "so \\boxed{8}", "answer": "7"}, "7"),
        ({"problem": "q", "solution": "they are $\\boxed{(1,2)}$ and $\\boxed{(3,4)}$."}, "(1,2), (3,4)"),
        ({"problem": "q", "solution": "it is \\boxed{-b+2}, or \\boxed{2-b}"}, "2-b"),
        ({"problem": "q", "solution": "first \\boxed{1}, so the answer is \\boxed{3}"}, "3"),
        ({"problem": "q", "solution": "$x = 9$, so it is $\\boxed 9$."}, "9"),
        ({"prompt": [{"role": "user", "content": "q"}], "reward_model": {"ground_truth": "7"}}, "7"),
        ({"prompt": "other", "extra_info": {"question": "q"}, "reward_model": {"ground_truth": "7"}}, "7"),
    ],
)
def test_answers_are_found_where_data_sets_have_them(tmp_path: Path, row: dict[str, Any], reference: str) -> None:
    """Catches a worked solution taken for the answer, and numbers that are read as text of another spelling."""
    task = Math(
        data=write(tmp_path, [{"question": "other", "answer": "1"}]), test_data=write(tmp_path, [row], "t.jsonl")
    )
    problem = only(task)
    assert (problem.question, problem.reference) == ("q", reference)
    assert task.score(problem, said(task.worked(problem))).value == 1.0


def test_columns_of_other_names(tmp_path: Path) -> None:
    """Catches a column that is named and not read, in CSV as well, and columns that reward functions do not get."""
    file = tmp_path / "rows.csv"
    file.write_text("frage,antwort,answer\nwas?,7,8\n", encoding="utf-8")
    task = Math(data=str(file), test_share=0.0, question_field="frage", answer_field="antwort")
    (found,) = task.problems("train")
    assert (found.question, found.reference) == ("was?", "7")
    assert found.info[COLUMNS] == {"frage": "was?", "antwort": "7", "answer": "8"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("so \\boxed{\\frac{1}{2}}", 1.0),
        ("\\boxed{0.5}", 1.0),
        ("\\boxed{1/2}", 1.0),
        ("\\boxed{$\\frac12$}.", 1.0),
        ("\\boxed{2} then \\boxed{\\dfrac{2}{4}}", 1.0),
        ("\\boxed{\\frac{1}{2}} then \\boxed{2}", 0.0),
        ("\\boxed{\\frac{1}{2} \\text{ or } 2}", 0.0),
        ("\\frac{1}{2}", 0.0),
        ("\\boxed{}", 0.0),
        ("\\boxed{9^{9^{9^9}}", 0.0),
        ("\\boxed{" + "1" * 5000 + "}", 0.0),
        ("\\boxed{0.5" + "+0" * 200 + "}", 0.0),
        ("\\boxed{" + "{" * 200 + "}" * 200 + "}", 0.0),
    ],
)
def test_verdicts_of_math(text: str, value: float) -> None:
    """Catches equality of strings, hedging that is rewarded, and an answer that takes the verdict down with it."""
    problem = Problem("p", "q", "\\frac{1}{2}")
    verdict = Math().score(problem, said(text))
    assert verdict.value == verdict.breakdown["correct"] == value
    assert verdict.breakdown["has_box"] == float("\\boxed" in text and text.count("{") == text.count("}"))


@pytest.mark.parametrize(
    ("reference", "answer"),
    [("12", "1,2"), ("(1,2)", "(12)"), ("5", "-5"), ("\\text{east}", "west"), ("10", "10^{10}")],
)
def test_what_is_not_equal(reference: str, answer: str) -> None:
    """Catches normalisation that deletes commas, signs and words until everything is equal."""
    assert Math().score(Problem("p", "q", reference), said(f"\\boxed{{{answer}}}")).value == 0.0


def test_a_parser_that_fails_is_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an error of the library that compares answers, which would end a run hours after its start."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("inside the parser")

    assert Math().score(Problem("p", "q", "a+7"), said("\\boxed{7+a}")).value == 1.0
    monkeypatch.setattr("latex2sympy2_extended.latex2sympy2.latex2sympy", fail)
    assert Math().score(Problem("p", "q", "b+7"), said("\\boxed{7+b}")).value == 0.0
    assert Math().score(Problem("p", "q", "b+7"), said("\\boxed{b+7}")).value == 1.0


def test_solutions_of_the_file_are_shown_where_they_are_right(tmp_path: Path) -> None:
    """Catches a demonstration that teaches a wrong answer, and one that gives the reasoning away."""
    rows = [
        {"question": "a", "answer": "Half of 14 is <<14/2=7>>7.\n#### 7"},
        {"question": "b", "answer": "7", "solution": "It is \\boxed{7}."},
        {"question": "c", "answer": "7", "solution": "It is \\boxed{8}."},
    ]
    task = Math(data=write(tmp_path, rows), test_share=0.0)
    worked = {p.question: task.worked(p) for p in task.problems("train")}
    assert worked == {
        "a": "Half of 14 is 7.\nThe answer is \\boxed{7}.",
        "b": "It is \\boxed{7}.",
        "c": "\\boxed{7}",
    }
    shown = task.demonstrations(5, 0)
    assert {d.messages[0]["content"][0] for d in shown[:3]} == {"a", "b", "c"}
    with pytest.raises(ValueError, match="num=-1"):
        task.demonstrations(-1, 0)


def test_a_question_is_on_one_side_in_every_file(tmp_path: Path) -> None:
    """Catches a split by row number: the same question in a shuffled or longer file would change sides."""
    rows = [{"question": f"q{i}", "answer": str(i)} for i in range(200)]
    first = Math(data=write(tmp_path, rows))
    again = Math(data=write(tmp_path, [*rows[::-1], {"question": "new", "answer": "1"}], "other.jsonl"))
    test = {p.question for p in first.problems("test")}
    assert 20 < len(test) < 60
    assert {p.question for p in again.problems("test")} - {"new"} == test
    assert {p.question for p in first.problems("train")} == {f"q{i}" for i in range(200)} - test


def test_training_leaves_out_what_the_test_asks(tmp_path: Path) -> None:
    """Catches a test question that was trained on because both files have it."""
    train = [{"question": q, "answer": "1"} for q in ("a", "b", "c")]
    test = [{"question": q, "answer": "1"} for q in ("b", "d")]
    task = Math(data=write(tmp_path, train), test_data=write(tmp_path, test, "t.jsonl"))
    assert [p.question for p in task.problems("train")] == ["a", "c"]
    assert [p.question for p in task.problems("test")] == ["b", "d"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"question": "a", "answer": "1"}, {"question": "b"}],
            r"rows\.jsonl, row 2 \(line 2\): expected fields .*found",
        ),
        (
            [{"answer": "1"}],
            r"row 1 \(line 1\): expected fields question or problem; found: answer; rename .* with question_field",
        ),
        ([{"question": "", "answer": "1"}], r"row 1 \(line 1\), field 'question': empty; fill it in"),
        ([{"question": ["a"], "answer": "1"}], r"field 'question': expected text, not \['a'\]"),
        ([{"question": "a", "answer": None}], r"field 'answer': expected text, not None"),
        ([{"question": "a", "answer": True}], r"field 'answer': expected text, not True"),
        (
            [{"prompt": [{"role": "system", "content": "a"}], "answer": "1"}],
            r"field 'prompt': expected one turn of the",
        ),
        ([{"question": "a", "answer": {"v": 1}}], r"field 'answer': expected text"),
        ([{"question": "a", "answer": []}], r"field 'answer': expected text, not \[\]"),
        ([{"question": "a", "answer": [None]}], r"field 'answer': expected text, not None"),
        (['{"question": "a", "answer": NaN}'], r"field 'answer': nan is no answer; correct it"),
        ([{"question": "a", "answer": "####"}], r"field 'answer': holds no final answer"),
        ([{"question": "a", "solution": "it is 7"}], r"field 'solution': holds no final answer \('it is 7'\)"),
        (['{"question": "a", '], r"row 1 \(line 1\): not JSON"),
        (["[1, 2]"], r"row 1: expected a JSON object"),
        ([""], "has no rows"),
    ],
)
def test_bad_rows_of_math_are_named(tmp_path: Path, rows: list[Any], message: str) -> None:
    """Catches a bad row that is skipped, asked with an empty reference, or dies as a KeyError somewhere."""
    with pytest.raises(ValueError, match=message):
        Math(data=write(tmp_path, rows)).problems("train")


def test_a_few_bad_rows_may_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches ids or answers that slip to the row behind one that was left out, and a bound that does not bind."""
    good = [{"question": q, "answer": str(i)} for i, q in enumerate("abc")]
    file = write(tmp_path, [good[0], {"question": "?"}, good[1], {"question": "?", "answer": ""}, good[2]])
    with caplog.at_level(logging.WARNING):
        found = Math(data=file, test_share=0.0, max_bad_rows=2).problems("train")
    assert [(p.id, p.question, p.reference) for p in found] == [
        ("math:rows:1", "a", "0"),
        ("math:rows:3", "b", "1"),
        ("math:rows:5", "c", "2"),
    ]
    assert "2 of 5 rows are left out; the first: " in caplog.text
    assert "row 2 (line 2)" in caplog.text
    with pytest.raises(ValueError, match=r"row 4 \(line 4\), field 'answer': empty"):
        Math(data=file, test_share=0.0, max_bad_rows=1).problems("train")


def test_ids(tmp_path: Path) -> None:
    """Catches two problems of one id, whose answers would be drawn from the same noise."""
    rows = [{"question": q, "answer": "1", "id": i} for q, i in (("a", 5), ("b", 6), ("c", 5))]
    file = write(tmp_path, rows)
    assert [p.id for p in Math(data=file, test_share=0.0).problems("train")] == [f"math:rows:{i}" for i in (1, 2, 3)]
    with pytest.raises(
        ValueError, match=r"row 3 \(line 3\), field 'id': '5' is also the id of row 1; give each row its own"
    ):
        Math(data=file, id_field="id").problems("train")
    with pytest.raises(ValueError, match=r"row 1 \(line 1\), field 'uid': missing"):
        Math(data=file, id_field="uid").problems("train")
    named = write(tmp_path, rows[:2], "named.jsonl")
    assert [p.id for p in Math(data=named, id_field="id", test_share=0.0).problems("train")] == [
        "math:named:5",
        "math:named:6",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test_share": 1.0}, "test_share=1.0"),
        ({"max_bad_rows": -1}, "max_bad_rows=-1"),
        ({"data": "a.jsonl", "test_data": "a.jsonl"}, "is the training file"),
    ],
)
@pytest.mark.parametrize("kind", [Math, MultipleChoice])
def test_settings_that_cannot_work(kind: Any, fields: dict[str, Any], message: str) -> None:
    """Catches an evaluation on the training problems, and a setting that is ignored."""
    with pytest.raises(ValueError, match=message):
        kind(**fields)


@pytest.mark.parametrize("kind", [Math, Code, Apps])
def test_a_test_file_alone(tmp_path: Path, kind: Any) -> None:
    """Catches an evaluation on one's own file that needs a training file beside it, or that asks the hub's problems."""
    row = {"question": "Add.", "answer": "3", "problem_id": 1, "test_list": ["assert add(1, 2) == 3"]}
    task = kind(test_data=write(tmp_path, [row]))
    assert [problem.question for problem in task.problems("test")] == ["Add."]
    if kind is not Apps:  # whose training problems are the hub's
        assert list(task.problems("train")) == []


def choice(folder: Path, row: Any, **fields: Any) -> Problem:
    """The problem made of one row."""
    (problem,) = MultipleChoice(data=write(folder, [row]), test_share=0.0, **fields).problems("train")
    return problem


@pytest.mark.parametrize(
    "row",
    [
        OPTIONS,
        {**OPTIONS, "answer": 1},
        {**OPTIONS, "answer": "1"},
        {"question": "Which?", "options": ["red", "green", "blue"], "ground_truth_answer": "B"},
        {
            "question": "Which?",
            "choices": {"text": ["red", "green", "blue"], "label": ["1", "2", "3"]},
            "answerKey": "2",
        },
        {
            "question": "Which?",
            "choices": {"text": ["red", "green", "blue"], "label": ["C", "A", "B"]},
            "answerKey": "A",
        },
    ],
)
def test_the_right_option_survives_the_shuffle(tmp_path: Path, row: dict[str, Any]) -> None:
    """Catches options that are shuffled without their letter, and labels that are mistaken for places."""
    seen = set()
    for seed in range(12):
        problem = choice(tmp_path, row, seed=seed)
        options = problem.info["options"]
        assert sorted(options) == ["blue", "green", "red"]
        assert options["ABC".index(problem.reference)] == "green"
        assert problem == choice(tmp_path, row, seed=seed)
        seen.add(options)
    assert len(seen) > 2
    plain = choice(tmp_path, row, is_shuffled=False)
    assert (plain.info["options"], plain.reference) == (("red", "green", "blue"), "B")


@pytest.mark.parametrize(
    ("options", "is_fixed"),
    [
        (["red", "green", "both A and B", "blue"], True),
        (["red", "green", "A, B, and C", "none"], True),
        (["red", "green", "neither (A) nor (B)", "blue"], True),
        (["red", "green", "only A", "blue"], True),
        (["red", "green", "Option B is wrong", "blue"], True),
        (["red", "green", "All of the above", "none of the above"], True),
        (["vitamin A", "vitamin E", "both a cat and a dog", "vitamins X and Y"], False),
        (["red", "green", "all of them", "none"], False),
    ],
)
def test_options_that_speak_of_others_stay_where_they_are(tmp_path: Path, options: list[str], is_fixed: bool) -> None:
    """Catches "both A and B" behind a shuffle, which makes the right answer a wrong one."""
    row = {"question": "Which?", "choices": options, "answer": "C"}
    seen = {choice(tmp_path, row, seed=seed).info["options"] for seed in range(12)}
    assert (seen == {tuple(options)}) == is_fixed


def test_right_answers_are_spread_over_the_letters() -> None:
    """Catches a sample in which one letter is the best guess."""
    letters = [p.reference for split in ("train", "test") for p in MultipleChoice().problems(split)]
    assert set(letters) == set("ABCD")
    assert max(map(letters.count, "ABCD")) <= len(letters) / 2


def test_prompts_of_multiple_choice(tmp_path: Path) -> None:
    """Catches letters that belong to other options than the verdict thinks."""
    task = MultipleChoice(data=write(tmp_path, [OPTIONS]), test_share=0.0, is_shuffled=False, instruction="Answer.")
    (message,) = task.prompt(task.problems("train")[0])
    assert message["content"] == "Which?\nA. red\nB. green\nC. blue\nAnswer."


@pytest.mark.parametrize(
    ("text", "value", "form"),
    [
        ("so \\boxed{B}", 1.0, 1.0),
        ("\\boxed{ B }", 1.0, 1.0),
        ("\\boxed{A} no, \\boxed{B}", 1.0, 1.0),
        ("\\boxed{A}", 0.25, 1.0),
        ("\\boxed{D}", 0.0, 0.0),
        ("\\boxed{b}", 1.0, 1.0),
        ("\\boxed{B.}", 1.0, 1.0),
        ("\\boxed{(B)}", 1.0, 1.0),
        ("\\boxed{(B) green}", 1.0, 1.0),
        ("\\boxed{B. green}", 1.0, 1.0),
        ("\\boxed{\\text{B}}", 1.0, 1.0),
        ("\\boxed{\\textbf{(B)}}", 1.0, 1.0),
        ("\\boxed{$\\mathrm{\\text{b}}$}", 1.0, 1.0),
        ("\\boxed{\\text{C. blue}}", 0.25, 1.0),
        ("\\boxed{(D)}", 0.0, 0.0),
        ("\\boxed{B or C}", 0.0, 0.0),
        ("\\boxed{b green}", 0.0, 0.0),
        ("\\boxed{\\text{}}", 0.0, 0.0),
        ("\\boxed{AB}", 0.0, 0.0),
        ("\\boxed{green}", 0.0, 0.0),
        ("\\boxed{}", 0.0, 0.0),
        ("B", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_verdicts_of_multiple_choice(tmp_path: Path, text: str, value: float, form: float) -> None:
    """Catches a format reward for letters that name no option, one that makes a wrong answer right, and a right letter
    that scores 0 because of how it is written."""
    task = MultipleChoice(data=write(tmp_path, [OPTIONS]), test_share=0.0, is_shuffled=False, format_reward=0.25)
    verdict = task.score(task.problems("train")[0], said(text))
    assert (verdict.value, verdict.breakdown) == (value, {"correct": float(value == 1.0), "format": form})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "D"}, r"field 'answer': 'D' is none of A, B, C, nor a number from 0 to 2"),
        ({"answer": 3}, r"field 'answer': '3' is none of A, B, C"),
        ({"answer": None}, r"field 'answer': expected text, not None"),
        ({"choices": "red"}, r"field 'choices': expected a list of texts, not 'red'"),
        ({"choices": ["red"]}, r"field 'choices': has 1 options; expected 2 to 26"),
        ({"choices": ["red", "red", "blue"]}, r"field 'choices': has the same option twice"),
        ({"choices": ["red", "", "blue"]}, r"field 'choices': empty"),
        ({"choices": ["red", None]}, r"field 'choices': expected text, not None"),
        ({"choices": {"text": ["a", "b"], "label": ["A"]}}, r"field 'choices': has labels A for 2 options"),
        ({"choices": {"label": ["A"]}}, r"field 'text': missing; the row has: label"),
        ({"question": 5.5}, r"field 'question': expected text, not 5.5"),
    ],
)
def test_bad_rows_of_multiple_choice_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Catches a question without a right option, which would punish every answer."""
    with pytest.raises(ValueError, match=rf"rows\.jsonl, row 1 \(line 1\), {message}"):
        choice(tmp_path, {**OPTIONS, **changes})


def test_a_format_reward_is_less_than_a_right_answer() -> None:
    """Catches a reward that makes any letter as good as the right one."""
    with pytest.raises(ValueError, match=r"format_reward=1\.0"):
        MultipleChoice(format_reward=1.0)
