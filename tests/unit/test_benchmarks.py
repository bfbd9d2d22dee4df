"""Benchmarks of mathematics: public files, the hub, splits, levels, styles of asking, tolerances."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from revelm.core.registry import build
from revelm.core.types import Completion, Problem
from revelm.data.tokenizer import build_tiny_tokenizer, encode_demonstration
from revelm.engine.prompts import prompt_ids
from revelm.tasks.task import GuardedTask
from tests.hub_cache import cache_data_set, offline

PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "data"
# name, file of the test, problems; the training file and its problems.
FILES = [
    ("gsm8k", "gsm8k/test.jsonl", 1319, "gsm8k/train.jsonl", 7473),
    ("math500", "math500/test.jsonl", 500, "math_train/train.jsonl", 7498),
    ("aime2024", "aime2024/test.jsonl", 30, None, 0),
    ("aime2025", "aime2025/test.jsonl", 30, None, 0),
    ("amc23", "amc23/test.jsonl", 40, None, 0),
    ("minerva", "minerva_math/test.jsonl", 272, None, 0),
    ("olympiadbench", "olympiadbench/test.jsonl", 675, None, 0),
]


def said(text: str) -> Completion:
    return Completion(text, len(text), 1, "stop")


def write(folder: Path, rows: Sequence[Any], name: str = "rows.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / name)


def public(name: str, file: str, train: str | None) -> Any:
    """The task over the public files; skips where they are not there."""
    if not (PUBLIC / file).is_file():
        pytest.skip("needs the public data beside the repository")
    more = {} if train is None else {"train_data": str(PUBLIC / train)}
    return build("tasks", {"kind": name, "data": str(PUBLIC / file), **more})


@pytest.mark.parametrize(("name", "file", "num", "train", "num_train"), FILES, ids=lambda value: str(value))
def test_public_files_are_read_whole(name: str, file: str, num: int, train: str | None, num_train: int) -> None:
    """Catches rows that are skipped or doubled, splits that overlap, and a gold answer that the task calls wrong."""
    task = public(name, file, train)
    found = {split: task.problems(split) for split in ("train", "test")}
    assert {split: len(problems) for split, problems in found.items()} == {"train": num_train, "test": num}
    assert {p.question for p in found["train"]}.isdisjoint(p.question for p in found["test"])
    for problems in found.values():
        some = problems[:: max(1, len(problems) // 12)]
        for problem, other in pairwise(some):
            assert task.score(problem, said(task.worked(problem))).value == 1.0, problem.id
            assert task.score(problem, said(f"It is \\boxed{{{problem.reference}}}.")).value == 1.0, problem.id
            if problem.reference != other.reference:
                assert task.score(problem, said(f"\\boxed{{{other.reference}}}")).value == 0.0, problem.id
    assert isinstance(task, GuardedTask)


def test_groups_of_the_public_files() -> None:
    """Catches a breakdown by level or field that has nothing to break down by."""
    groups = {
        name: Counter(p.info.get("group") for p in public(name, file, train).problems("test"))
        for name, file, _, train, _ in FILES
    }
    assert groups["math500"] == {
        "level 1": 43, "level 2": 90, "level 3": 105, "level 4": 128, "level 5": 134,
    }  # fmt: skip
    assert groups["olympiadbench"] == {"Algebra": 264, "Combinatorics": 154, "Geometry": 129, "Number Theory": 128}
    assert len(groups["minerva"]) == 9
    assert groups["gsm8k"] == {None: 1319}


def test_training_on_some_levels() -> None:
    """Catches levels that are compared as text, filter the test as well, or leave nothing without a word."""
    task = build("tasks", {"kind": "math500", "data": "sample", "levels": [3, 5]})
    assert [p.info["level"] for p in task.problems("train")] == [3, 5]
    assert [p.info["level"] for p in task.problems("test")] == [1, 3, 4, 2]
    own = build("tasks", {"kind": "math", "data": task_file("math500_train"), "test_share": 0.0, "levels": [1, 2]})
    assert [p.info["level"] for p in own.problems("train")] == [1, 2]
    with pytest.raises(
        ValueError, match=r"levels=\[7\]: no training problem has one .* those there are: \[1, 2, 3, 4, 5\]"
    ):
        build("tasks", {"kind": "math500", "data": "sample", "levels": [7]}).problems("train")
    with pytest.raises(ValueError, match=r"levels=\[3\]: .* those there are: \[\]"):
        build("tasks", {"kind": "gsm8k", "data": "sample", "levels": [3]}).problems("train")


def task_file(name: str) -> str:
    return str(Path(__file__).resolve().parents[2] / "src/revelm/tasks/samples" / f"{name}.jsonl")


def test_training_levels_of_the_paper() -> None:
    """Catches "Level ?" that ends a run, and levels that are read wrongly: MATH has these numbers of each."""
    task = public("math500", "math500/test.jsonl", "math_train/train.jsonl")
    levels = Counter(p.info.get("level") for p in task.problems("train"))
    assert sum(levels[level] for level in (3, 4, 5)) == 5584  # 5,586, of which two have an empty box
    assert levels[None] == 2


def test_a_test_of_ones_own_needs_training_problems_of_ones_own(tmp_path: Path) -> None:
    """Catches a run that trains on the hub's copy though it was told to use files, or on nothing."""
    test = write(tmp_path, [{"question": "a", "answer": "#### 1"}, {"question": "b", "answer": "#### 2"}], "t.jsonl")
    task = build("tasks", {"kind": "gsm8k", "data": test})
    assert len(task.problems("test")) == 2
    with pytest.raises(ValueError, match=r"task\.train_data: not given, and task\.data='.*t\.jsonl' has the test"):
        task.problems("train")
    train = write(tmp_path, [{"question": "b", "answer": "#### 2"}, {"question": "c", "answer": "#### 3"}])
    both = build("tasks", {"kind": "gsm8k", "data": test, "train_data": train})
    assert [p.question for p in both.problems("train")] == ["c"]
    bad = build("tasks", {"kind": "gsm8k", "data": test, "train_data": write(tmp_path, [{"question": "c"}])})
    with pytest.raises(ValueError, match=r"rows\.jsonl, row 1 \(line 1\): expected fields .*; found: question"):
        bad.problems("train")


@pytest.mark.parametrize(
    ("kind", "row", "reference"),
    [
        ("aime2024", {"ID": "2024-I-1", "Problem": "q", "Solution": "s", "Answer": 73}, "73"),
        ("aime2024", {"id": 1, "problem": "q", "solution": "s", "answer": "073", "url": "", "year": "2024"}, "073"),
        ("aime2025", {"problem": "q", "answer": "70", "id": "0"}, "70"),
        ("amc23", {"id": 0, "answer": 27.0, "url": "u", "question": "q"}, "27"),
        ("minerva", {"question": "q", "answer": "1.6"}, "1.6"),
        ("math500", {"problem": "q", "solution": "s", "answer": "7", "level": 2, "subject": "Algebra"}, "7"),
        (
            "olympiadbench",
            {
                "question": "q",
                "context": None,
                "final_answer": ["$69$,$84$"],
                "unit": None,
                "error": "",
                "image_1": None,
            },
            "69,84",
        ),
        ("gsm8k", {"question": "q", "reward_model": {"ground_truth": "72", "style": "rule"}}, "72"),
    ],
)
def test_rows_of_the_copies_on_the_hub(tmp_path: Path, kind: str, row: dict[str, Any], reference: str) -> None:
    """Catches a copy of the same data set with other names of fields, of which each benchmark has several."""
    (problem,) = build("tasks", {"kind": kind, "data": write(tmp_path, [row])}).problems("test")
    assert (problem.question, problem.reference) == ("q", reference)


ASK = """
import json, sys
from revelm.core.registry import build
answers = {}
for name in sys.argv[1:]:
    task = build("tasks", name)
    for split in ("train", "test"):
        try:
            answers[f"{name} {split}"] = [[p.question, p.reference] for p in task.problems(split)]
        except ValueError as error:
            answers[f"{name} {split}"] = str(error)
assert "torch" not in sys.modules
print(json.dumps(answers))
"""


def test_without_a_file_the_hub_is_asked(tmp_path: Path) -> None:
    """Catches a benchmark that asks for another configuration or split than there is, and errors without a remedy."""
    rows = [{"question": f"q{i}", "answer": f"#### {i}"} for i in range(3)]
    cache_data_set(tmp_path, "openai/gsm8k", {"train": rows[:2], "test": rows[2:]}, config="main")
    names = ("gsm8k", "math500", "aime2024", "gpqa")
    done = subprocess.run(
        [sys.executable, "-c", ASK, *names], capture_output=True, text=True, env=offline(tmp_path), check=False
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert answers["gsm8k train"] == [["q0", "0"], ["q1", "1"]]
    assert answers["gsm8k test"] == [["q2", "2"]]
    for name in names[1:]:
        said = answers[f"{name} test"]
        assert "is not in the local cache, and the hub cannot be reached from here" in said
        assert said.startswith("task.data='")
        assert "give task.data=FILE" in said
    assert "Idavidrein/gpqa:gpqa_diamond[train]" in answers["gpqa test"]


def test_the_two_styles_of_asking() -> None:
    """Catches a prompt other than the paper's, and an answer that is begun in the prompt and not judged so."""
    plain, think = (
        build("tasks", {"kind": "aime2025", "data": "sample", "style": style}) for style in ("boxed", "think")
    )
    problem = plain.problems("test")[1]
    ask = "Please reason step by step, and put your final answer within \\boxed{}."
    assert plain.prompt(problem) == [{"role": "user", "content": f"{problem.question}\n{ask}"}]
    question, opening = think.prompt(problem)
    assert (
        question["content"]
        == f"You need to put your final answer in \\boxed{{}}. This is the problem:\n{problem.question}"
    )
    assert opening == {"role": "assistant", "content": "<think>\n"}
    for text, value in (
        ("It is 84.\n</think>\n\n\\boxed{84}", 1.0),
        ("\\boxed{84} perhaps\n</think>\n\n\\boxed{85}", 0.0),
        ("\\boxed{84} perhaps", 0.0),
        (think.worked(problem), 1.0),
    ):
        assert think.score(problem, said(text)).value == value, text
    assert plain.score(problem, said("\\boxed{84}")).value == 1.0
    first = build("tasks", {"kind": "aime2025", "data": "sample", "style": "instruction_first"})
    assert first.prompt(problem) == [question]
    assert first.score(problem, said("\\boxed{84} perhaps")).value == 1.0
    own = build("tasks", {"kind": "aime2025", "style": "instruction_first", "instruction": "Box it."})
    assert own.prompt(problem) == [{"role": "user", "content": f"Box it.\n{problem.question}"}]
    with pytest.raises(ValueError, match="style"):
        build("tasks", {"kind": "aime2025", "style": "thinking"})


def test_demonstrations_go_on_from_the_beginning_that_is_asked_with() -> None:
    """Catches two assistant's turns in a row, and a model that is trained on another prompt than it is asked with."""
    task = build("tasks", {"kind": "gsm8k", "data": "sample", "style": "think"})
    tokenizer = build_tiny_tokenizer(["<think>\n</think> Please reason step by step"], 300)
    problems = {p.question: p for p in task.problems("train")}
    for shown in task.demonstrations(3, 0):
        assert [message["role"] for message in shown.messages] == ["user", "assistant"]
        problem = problems[shown.messages[0]["content"].partition("\n")[2]]
        opening = task.prompt(problem)[1]["content"]
        answer = shown.messages[1]["content"]
        assert answer == opening + task.worked(problem)
        ids, _ = encode_demonstration(tokenizer, shown.messages)
        asked = prompt_ids(task.prompt(problem), tokenizer)
        assert ids[: len(asked)] == asked


def test_a_tolerance_is_for_numbers_near_the_reference(tmp_path: Path) -> None:
    """Catches a tolerance that is ignored, taken for every problem, or opened to text and to infinity."""
    row = {"question": "q", "final_answer": ["4.2"], "unit": "%", "error": "1e-1"}
    task = build(
        "tasks", {"kind": "olympiadbench", "data": write(tmp_path, [row, {**row, "question": "r", "error": None}])}
    )
    near, exact = task.problems("test")
    for answer, value in (
        ("4.2", 1.0), ("4.2\\%", 1.0), ("4.25", 1.0), ("4.12 \\%", 1.0), ("4.35", 0.0), ("-4.2", 0.0), ("inf", 0.0),
        ("nan", 0.0), ("4.2e999", 0.0), ("about 4", 0.0), ("", 0.0), ("4,25", 0.0),
    ):  # fmt: skip
        verdict = task.score(near, said(f"\\boxed{{{answer}}}"))
        assert verdict.value == verdict.breakdown["correct"] == value, answer
    assert task.score(exact, said("\\boxed{4.25}")).value == 0.0
    wrong = build("tasks", {"kind": "olympiadbench", "data": write(tmp_path, [{**row, "error": "small"}])})
    with pytest.raises(ValueError, match=r"row 1 \(line 1\), field 'error': 'small' is no number"):
        wrong.problems("test")


def test_problems_cross_to_workers_without_their_solutions_being_asked(tmp_path: Path) -> None:
    """Catches a solution that stands in the prompt."""
    row = {"problem": "q", "answer": "7", "solution": "secret \\boxed{7}", "level": "Level ?"}
    task = build("tasks", {"kind": "math500", "data": write(tmp_path, [row])})
    problem: Problem = task.problems("test")[0]
    assert "secret" not in json.dumps(task.prompt(problem))
    assert "level" not in problem.info
    assert problem.info["group"] == "Level ?"
