"""``revelm score``: weighted sums of rewards, as in training, and rows with several answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from revelm.cli.main import main
from revelm.core.config import apply_overrides
from revelm.core.types import Completion
from revelm.data.rows import read_rows
from revelm.rollout.pair_rows import MathRows
from revelm.rollout.part_rewards import PartRewards, read_parts
from revelm.rollout.predictions import answer_rows
from revelm.rollout.score_file import ScoreJob, score_file
from revelm.rollout.sum_rows import read_sum, sum_items
from revelm.tasks.custom import Custom
from tests.unit.test_part_rewards import answer
from tests.unit.test_score_file import lines, written

POLITE = """
def polite(prompts, completions, style, **columns):
    return [None if s is None else float("please" in c[0]["content"]) for c, s in zip(completions, style)]
"""
TEXTS = ["<think>x</think> \\boxed{3}", "The answer is 3. please", "\\boxed{4}, please"]
ROWS: list[dict[str, Any]] = [
    {"question": f"{i}+1?", "completion": text, "answer": str(i + 1), "style": None if i == 1 else "s"}
    for i, text in ((2, TEXTS[0]), (1, TEXTS[0]), (2, TEXTS[1]), (2, TEXTS[2]))
]
RECIPE = """
model: {{path: not read}}
task: {{kind: custom, data: nowhere.jsonl, test_share: 0.5, answer_field: answer}}
reward:
  parts: [task, {{kind: format, has_box: true, weight: 0.2}}, {{kind: function, path: "{mine}:polite", weight: 0.5}}]
"""


def test_a_sum_that_is_written_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches weights, fields of parts and columns that are lost, and an opinion that is none."""
    (tmp_path / "mine.py").write_text(POLITE)
    path, out = written(tmp_path, ROWS), tmp_path / "out.jsonl"
    words = ["score", f"math=1,format=0.2,{tmp_path}/mine.py:polite=-0.5", path, "--out", str(out), "--workers", "1"]
    assert main([*words, "format.has_box=true"]) == 0
    found = lines(out)
    assert [row["score"] for row in found] == pytest.approx([1.2, 0.2, 0.5, -0.3])
    assert [row["reason"] for row in found] == [
        "equal",
        "different: 3 instead of 2",
        "equal",
        "different: 4 instead of 3",
    ]
    assert found[1]["breakdown"] == {"correct": 0.0, "has_box": 1.0, "reward/math": 0.0, "reward/format": 1.0}
    assert found[3]["breakdown"]["reward/polite"] == 1.0
    assert "4 rows, mean score 0.4000, 2 correct" in capsys.readouterr().out
    spec = read_sum("math=1,format=0.2", apply_overrides({}, ["format.has_box=true", "math.answer=box"]))
    judge, _ = sum_items("math=1", spec, read_rows(path), path=path)
    assert judge.task == MathRows(answer="box")


def test_a_recipe_scores_as_in_training(tmp_path: Path) -> None:
    """Catches a sum that is another one on the command line than in training, and rows kept for a test."""
    (tmp_path / "mine.py").write_text(POLITE.replace("style", "problem_id"))
    (tmp_path / "rl.yaml").write_text(RECIPE.format(mine=tmp_path / "mine.py"))
    path, out = written(tmp_path, ROWS), tmp_path / "out.jsonl"
    score_file(ScoreJob(str(tmp_path / "rl.yaml"), path, str(out), num_workers=1))
    task = Custom(data=path, test_share=0.0, answer_field="answer")
    asked = [replace(answer("x"), problem=one, group=i) for i, one in enumerate(task.problems("train"))]
    said = [Completion(row["completion"], 1, 1, "stop") for row in ROWS]
    answers = [replace(a, completion=c, score=task.score(a.problem, c)) for a, c in zip(asked, said, strict=True)]
    specs: list[dict[str, Any]] = [
        {"kind": "task"},
        {"kind": "format", "has_box": True, "weight": 0.2},
        {"kind": "function", "path": f"{tmp_path}/mine.py:polite", "weight": 0.5},
    ]
    wanted = PartRewards(read_parts(specs), task, seed=0).score(answers).results
    assert [row["score"] for row in lines(out)] == [one.outcome for one in wanted]
    for row, one, given in zip(lines(out), wanted, answers, strict=True):
        assert row["breakdown"] == {**given.score.breakdown, **one.breakdown}


def test_a_recipe_names_its_task_by_a_word(tmp_path: Path) -> None:
    """Catches an override of a field of the task that drops its kind, and a sum of nothing without parts."""
    (tmp_path / "rl.yaml").write_text("task: custom\nreward: {judge: null}")
    spec = read_sum(str(tmp_path / "rl.yaml"), {"task": {"answer_field": "answer"}})
    assert spec.task == {"kind": "custom", "answer_field": "answer"}
    assert spec.reward.parts == ({"kind": "task"},)


def test_without_a_task(tmp_path: Path) -> None:
    """Catches a sum of parts alone that is refused, or says nothing, and parts that are asked in another order."""
    rows = [{"completion": "a", "reference": "a"}, {"completion": "b"}] * 300
    path, out = written(tmp_path, rows), tmp_path / "out.jsonl"
    assert score_file(ScoreJob("exact=2,fuzzy=1", path, str(out))).num_correct == 300
    assert [(row["score"], row["reason"]) for row in lines(out)] == [
        (3.0, "exact: 1, fuzzy: 1"),
        (None, "no opinion"),
    ] * 300


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["math=1,format=x"], "REWARD: 'format=x': must look like NAME=WEIGHT"),
        (["math=1,format=0.2"], "reward.parts.1: a format of nothing; give tags"),
        (["math=1,gsm8k=0.2"], "REWARD: math and gsm8k each judge rows by themselves"),
        (["mats=1"], "REWARD: 'mats' is not known; did you mean 'math'"),
        (["exact=1,length=1"], "'length' needs the tokens of answers"),
        (["task=1"], "has no task, whose score the part 'task' is"),
        (["math=0,exact=0"], "all weights are 0"),
        (["math=1,exact=0.2", "part=box"], "part: is none of the rewards; write NAME.field=value; known: exact, math"),
        (["math=1,exact=0.2", "exact.prat=box"], "reward.parts.1.prat: unknown field; did you mean 'part'"),
        (["math=1,exact=0.2", "prediction_field=x"], "row 1 (line 1): expected fields x; found"),
        (["{here}/rl.yaml", "tsk=math"], "tsk: unknown field; did you mean 'task'"),
        (
            ["{here}/rl.yaml", "reward.judge.base_url=http://x", "reward.judge.model=m", "reward.parts=[]"],
            "training alone",
        ),
        (
            ["{here}/rl.yaml", "task.kind=tests.toy_tasks:Parity"],
            "the problems of 'tests.toy_tasks:Parity' are not read from rows",
        ),
        (["{here}/none.yaml"], "none.yaml: no such recipe file"),
        (["{here}/mine.py:wants=1,math=1"], "the function wants unknown, but problems of this task have"),
    ],
)
def test_bad_sums(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], error: str) -> None:
    """Catches a sum that is not what was meant, and an error that does not say which word is wrong."""
    (tmp_path / "mine.py").write_text(POLITE + "\ndef wants(completions, unknown): return []\n")
    (tmp_path / "rl.yaml").write_text(RECIPE.format(mine=tmp_path / "mine.py"))
    reward, *fields = (word.format(here=tmp_path) for word in words)
    assert main(["score", reward, written(tmp_path, ROWS), "--out", str(tmp_path / "out.jsonl"), *fields]) == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_a_recipe_that_changed_is_not_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches scores of two recipes in one file, and a recipe that is never gone on with."""
    recipe, path, out = tmp_path / "sum.yaml", written(tmp_path, ROWS), str(tmp_path / "out.jsonl")
    recipe.write_text("reward: {parts: [{kind: exact, weight: 2}]}")

    def stopped(done: int, _: int) -> None:
        assert done < 2

    with pytest.raises(AssertionError):
        score_file(ScoreJob(str(recipe), path, out), stopped)
    recipe.write_text("reward: {parts: [{kind: exact, weight: 3}]}")
    assert main(["score", str(recipe), path, "--out", out, "--resume"]) == 2
    assert "holds scores of other rows or another reward" in capsys.readouterr().err
    recipe.write_text("reward: {parts: [{kind: exact, weight: 2}]}")
    assert main(["score", str(recipe), path, "--out", out, "--resume"]) == 0


def test_several_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches rows with a list of answers that are refused, scores in another order, and single answers in lists."""
    rows = [
        {"completions": ["1", "3", 3], "reference": "3"},
        {"prediction": "3", "reference": "3"},
        {"response": ["2"], "reference": "3"},
    ]
    out = tmp_path / "out.jsonl"
    assert main(["score", "exact", written(tmp_path, rows), "--out", str(out), "--workers", "1"]) == 0
    found = lines(out)
    assert [row["score"] for row in found] == [[0.0, 1.0, 1.0], 1.0, [0.0]]
    assert found[0]["reason"] == ["different: 1 instead of 3", "equal", "equal"]
    assert [{k: v for k, v in row.items() if k not in ("score", "reason")} for row in found] == rows
    said = capsys.readouterr()
    assert "3 rows, 5 answers, mean score 0.6000, 3 correct" in said.out
    assert said.err.endswith("5 of 5 scored\n")
    (row,) = read_rows(written(tmp_path, [{"completions": "no list", "mine": ["1", "2"]}]))
    assert answer_rows(row) is None
    assert [one.get("mine") for one in answer_rows(row, "mine") or ()] == ["1", "2"]


def test_several_answers_to_tasks_and_functions(tmp_path: Path) -> None:
    """Catches several answers that only pairs can have: those of tasks, functions and sums."""
    out = tmp_path / "out.jsonl"
    asked = {"question": "1+1?", "ground_truth_answer": "2"}
    rows = [{**asked, "completions": ["1", "2"]}, {**asked, "response": ""}]
    score_file(ScoreJob("custom", written(tmp_path, rows), str(out), num_workers=1))
    assert [row["score"] for row in lines(out)] == [[0.0, 1.0], 0.0]
    (tmp_path / "mine.py").write_text(POLITE)
    path = written(tmp_path, [{"responses": ["no", "please"], "style": "s", "reference": "please"}])
    score_file(ScoreJob(f"{tmp_path}/mine.py:polite", path, str(out)))
    assert lines(out)[0]["score"] == [0.0, 1.0]
    score_file(ScoreJob(f"exact=1,{tmp_path}/mine.py:polite=1", path, str(out)))
    assert lines(out)[0]["score"] == [0.0, 2.0]
    assert [one["reward/exact"] for one in lines(out)[0]["breakdown"]] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        (["1", None], r"row 2 \(line 2\), field 'completions\[1\]': expected text, not None"),
        ([["1"]], r"row 2 \(line 2\), field 'completions\[0\]': expected text, not \['1'\]"),
        ([], r"row 2 \(line 2\), field 'completions': a list without answers"),
    ],
)
def test_bad_lists(tmp_path: Path, answers: list[Any], error: str) -> None:
    """Catches a list whose wrong answer is not named."""
    path = written(tmp_path, [{"completions": ["1"], "reference": "1"}, {"completions": answers, "reference": "1"}])
    with pytest.raises(ValueError, match=error):
        score_file(ScoreJob("math", path, str(tmp_path / "out.jsonl")))
