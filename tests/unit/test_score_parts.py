"""``revelm score``: rewards that are parts of a sum in training, worked references, and results that could be lost."""

import json
from pathlib import Path
from typing import Any

import pytest

from revelm.cli.main import main
from revelm.data.rows import read_rows
from revelm.rollout.row_rewards import read_items
from revelm.rollout.score_file import ScoreJob, score_file
from revelm.tasks.math import Math
from tests.fake_judge import fake_judge, says
from tests.unit.test_score_file import lines, written

FUNCTIONS = """
def politeness(prompts, completions, style, **columns):
    assert prompts[0] == [{"role": "user", "content": "hi"}]
    return [None if s is None else float("please" in c[0]["content"]) for c, s in zip(completions, style)]

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(solution_str == ground_truth) + len(extra_info["style"] or ""), "size": len(solution_str)}

def fails(completions, **columns):
    raise KeyError("column")
"""
ROWS: list[dict[str, Any]] = [
    {"question": "hi", "completion": "please", "style": "", "reward_model": {"ground_truth": "please"}},
    {"prompt": [{"role": "user", "content": "q"}], "completion": "no", "style": None, "answer": "please"},
]


def test_functions_judge_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches functions that can be tried in a training run alone, and columns that they do not get."""
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    path, out = written(tmp_path, ROWS), tmp_path / "out.jsonl"
    assert main(["score", f"{tmp_path}/mine.py:politeness", path, "--out", str(out)]) == 0
    assert [(row["score"], row["reason"]) for row in lines(out)] == [(1.0, ""), (None, "no opinion")]
    assert "2 rows, mean score 1.0000, 1 correct" in capsys.readouterr().out
    words = ["function", path, "--out", str(out), f"path={tmp_path}/mine.py:compute_score"]
    assert main(["score", *words]) == 0
    assert [(row["score"], row["reason"]) for row in lines(out)] == [(1.0, "size: 6"), (0.0, "size: 2")]
    assert main(["score", f"{tmp_path}/mine.py:fails", path, "--out", str(out)]) == 1
    assert "KeyError: 'column' (mine.py, line 10), about problem '" in capsys.readouterr().err
    (tmp_path / "wants.py").write_text("def f(completions, unknown): return []")
    assert main(["score", f"{tmp_path}/wants.py:f", path, "--out", str(out)]) == 2
    assert "the function wants unknown, but problems of this task have answer" in capsys.readouterr().err


def test_forms_and_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a judge that is asked about one row after another, and rewards that texts cannot have."""
    path, out = written(tmp_path, ROWS * 4), str(tmp_path / "out.jsonl")
    assert score_file(ScoreJob("format", path, out, {"pattern": "pl.*"})).num_correct == 4
    with fake_judge(
        lambda body, _: says(
            "\\boxed{10}" if "\nplease\n" in body["messages"][-1]["content"] else "\\boxed{5}", delay=0.1
        )
    ) as judge:
        spec = {"base_url": judge.base_url, "model": "m"}
        template = "{answer}"
        summary = score_file(ScoreJob("judge_outcome", path, out, {"judge": spec, "template": template}))
        assert summary.mean == 0.75
        assert len(judge.bodies) == 2
    assert main(["score", "length", path, "--out", out, "limit=3"]) == 2
    assert "REWARD: 'length' is not known; its values need the tokens of answers" in capsys.readouterr().err


WORKED = "She has 70 + 2 = <<70+2=72>>72 clips.\n#### 72"


def judged(path: str) -> list[float]:
    """The scores of rows by ``math``, reached in this process."""
    task, items = read_items("math", {}, read_rows(path), path=path)
    return [task.score(*item).value for item in items]


@pytest.mark.parametrize("answer", [WORKED, "The sum is $\\boxed{72}$.", "72"])
def test_worked_references(answer: str, tmp_path: Path) -> None:
    """Catches a solution taken for the answer: every right answer would score 0."""
    path = written(tmp_path, [{"prediction": "\\boxed{72}", "answer": answer, "question": "How many?"}])
    assert judged(path) == [1.0]
    task = Math(data=path, test_share=0.0)
    (problem,) = task.problems("train")
    assert (problem.reference, "72" in task.worked(problem)) == ("72", True)


def test_a_question_says_what_an_answer_is(tmp_path: Path) -> None:
    """Catches verdicts that differ from those of the task."""
    row = {"prediction": "\\boxed{25\\%}", "reference": "25"}
    assert judged(written(tmp_path, [row, {**row, "question": "What percentage of them is red?"}])) == [0.0, 1.0]
    copied = {"prediction": "\\boxed{x^2-1}", "reference": "(x-1)(x+1)"}
    assert judged(written(tmp_path, [copied, {**copied, "problem": "Factor $x^2-1$."}])) == [1.0, 0.0]


def test_nothing_is_lost_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches hours of scores that the same command without --resume begins again, fields that are written over
    without a word, and a result that turns out to be a folder at the end."""
    path, out = written(tmp_path, [{"prediction": "1", "reference": "1", "score": 7}] * 3), tmp_path / "out.jsonl"
    words = ["score", "format", path, "--out", str(out), "pattern=.*"]
    assert main(words) == 0
    assert f"{path}: score of its rows are replaced in {out}" in capsys.readouterr().err
    job, partial = ScoreJob("format", path, str(out), {"pattern": ".*"}), tmp_path / ".out.jsonl.partial"
    with pytest.raises(ZeroDivisionError):
        score_file(job, lambda done, _: 1 // (2 - done))
    assert main(words) == 2
    assert f"{partial} holds 2 scores of a run that was stopped; go on with --resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert not partial.exists()
    partial.write_text(json.dumps({"reward": "of other rows"}) + "\n")
    assert main(words) == 0
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ValueError, match=r"--out: '.*folder\.jsonl' is a folder; name a file"):
        score_file(ScoreJob("exact", path, str(tmp_path / "folder.jsonl")))
    with pytest.raises(ValueError, match=r"--out: .* cannot be written \(.*\); name another place"):
        score_file(ScoreJob("exact", path, "/proc/none/out.jsonl"))
    missing = written(tmp_path, [{"prediction": "1", "gold": "1"}])
    with pytest.raises(ValueError, match="found: gold, prediction; name the field with reference_field=NAME"):
        score_file(ScoreJob("exact", missing, str(out)))
