"""``revelm score``: rows of a file, judged and written back."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from revelm.cli.main import main
from revelm.core.config import apply_overrides
from revelm.data.rows import read_rows
from revelm.rollout.row_rewards import read_items
from revelm.rollout.score_file import ScoreJob, score_file
from revelm.tasks.task import GuardedTask

ROOT = Path(__file__).resolve().parents[2]
TASK = "tests.guarded_tasks:FromRows"
FUNCTION = {
    "question": "Add one.",
    "test_method": "function",
    "test_list": ["assert f(1) == 2", "assert f(-1) == 0"],
    "test_time_limit": 2,
    "prefix": "",
}
STDIO = {
    "question": "Double it.",
    "test_method": "stdio",
    "test_input": ["2\n", "-3\n"],
    "test_output": ["4\n", "-6\n"],
}


def written(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> str:
    """A file of these rows."""
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def lines(file: Path) -> list[dict[str, Any]]:
    """The rows of a result."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_rows_come_back_in_order_with_their_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches rows out of order, fields that are lost, and a row that no encoding can hold."""
    pairs = [("so \\boxed{3}.", "3"), ("4", 3), ("", "3"), ("\\frac{1}{2}", 0.5), (7, "7")] * 30
    rows: list[dict[str, Any]] = [{"prediction": p, "reference": r, "n": i} for i, (p, r) in enumerate(pairs)]
    rows[0]["odd"], rows[1]["odd"] = "\ud800", "ü"
    out = tmp_path / "new" / "scored.jsonl"
    assert main(["score", "math", written(tmp_path, rows), "--out", str(out), "--workers", "2"]) == 0
    found = lines(out)
    assert [{k: v for k, v in row.items() if k not in ("score", "reason")} for row in found] == rows
    assert [row["score"] for row in found] == [1.0, 0.0, 0.0, 1.0, 1.0] * 30
    assert [row["reason"] for row in found[:3]] == ["equal", "different: 4 instead of 3", "no answer"]
    assert '"ü"' in out.read_text(encoding="utf-8")
    assert [file.name for file in out.parent.iterdir()] == ["scored.jsonl"]
    said = capsys.readouterr()
    assert "150 rows, mean score 0.6000, 90 correct, 0 errors" in said.out
    assert [line.split(maxsplit=1) for line in said.out.splitlines()[1:]] == [
        ["90", "equal"],
        ["30", "different"],
        ["30", "no answer"],
    ]
    assert said.err.endswith("150 of 150 scored\n")


@pytest.mark.parametrize(
    ("reward", "row", "fields", "score"),
    [
        ("math", {"prediction": "it is 3", "reference": "3"}, ["answer=box"], 0.0),
        ("math", {"said": "3", "gold": "3"}, ["prediction_field=said", "reference_field=gold"], 1.0),
        ("exact", {"completion": "A b", "reference": "a  B"}, [], 1.0),
        ("exact", {"completion": "A b", "reference": "a  B"}, ["is_normalised=false"], 0.0),
        ("fuzzy", {"response": "abcd", "reference": "abcx"}, [], 0.75),
        ("choice", {"prediction": "The answer is (b).", "ground_truth": "B"}, [], 1.0),
        ("regex", {"prediction": "x = 12", "reference": r"\d+"}, [], 1.0),
        ("regex", {"prediction": "x = 12", "reference": r"\d+"}, ["is_whole=true"], 0.0),
        # The rows of a task: what it says, not what a reward does.
        ("gsm8k", {"question": "1+2?", "answer": "so\n#### 3", "completion": "\\boxed{3}"}, [], 1.0),
        ("gsm8k", {"question": "1+2?", "answer": "so\n#### 3", "it": "3"}, ["prediction_field=it"], 0.0),
    ],
)
def test_rewards(tmp_path: Path, reward: str, row: dict[str, Any], fields: list[str], score: float) -> None:
    """Catches a reward that cannot be reached, or whose fields are not."""
    path = written(tmp_path, [row])
    task, items = read_items(reward, apply_overrides({}, fields), read_rows(path), path=path)
    assert isinstance(task, GuardedTask)
    assert [task.score(*item).value for item in items] == [score]


def test_programs(tmp_path: Path) -> None:
    """Catches code records that are judged by other functions than the tasks', and a reason that says nothing."""
    rows = [
        {**FUNCTION, "completion": "```python\ndef f(x):\n    return x + 1\n```"},
        {**FUNCTION, "completion": "```python\ndef f(x):\n    return 2\n```"},
        {**FUNCTION, "completion": "I do not know."},
        {**STDIO, "completion": "print(2 * int(input()))"},
    ]
    summary = score_file(ScoreJob("code", written(tmp_path, rows), str(tmp_path / "s.jsonl"), num_workers=2))
    found = lines(tmp_path / "s.jsonl")
    assert [row["score"] for row in found] == [1.0, 0.0, 0.0, 1.0]
    assert summary.num_correct == 2
    assert dict(summary.reasons)["all tests passed"] == 2
    job = ScoreJob("code", written(tmp_path, rows), str(tmp_path / "s.jsonl"), {"is_partial": True}, num_workers=2)
    assert score_file(job).mean == pytest.approx(2.5 / 4)


def test_rows_of_a_task(tmp_path: Path) -> None:
    """Catches problems of the wrong row, those for training left out, and two answers to one problem refused."""
    texts = [("x", "x"), ("x", "y"), ("y", "y"), ("x", "x")]
    rows = [{"reference": r, "id": "same", "completion": c} for r, c in texts]
    path, out = written(tmp_path, rows), str(tmp_path / "out.jsonl")
    assert score_file(ScoreJob(TASK, path, out, num_workers=1)).num_rows == 4
    assert [row["score"] for row in lines(tmp_path / "out.jsonl")] == [1.0, 0.0, 1.0, 1.0]
    with pytest.raises(ValueError, match=r"rows\.jsonl, row 4 \(line 4\): is none of the problems"):
        score_file(ScoreJob(TASK, path, out, {"is_short": True}))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["math", "{bad}"], r"rows.jsonl, row 2 \(line 2\), field 'prediction': expected text, not None"),
        (
            ["math", "{bad}", "reference_field=gold"],
            r"row 1 \(line 1\): expected fields gold; found",
        ),
        (["code", "{bad}"], r"row 2 \(line 2\), field 'prediction': expected text, not None"),
        (["code", "{bad}", "prediction_field=reference"], r"row 1 \(line 1\): has no tests"),
        (["math", "{missing}"], "FILE='.*': cannot be read"),
        (["mats", "{bad}"], "REWARD: 'mats' is not known; did you mean 'math'"),
        (["tests.toy_tasks:Parity", "{bad}"], "REWARD: the problems of 'tests.toy_tasks:Parity' are not read"),
        (["gsm8k", "{bad}", "data=x"], "gsm8k.data: is the file that is scored"),
        (["math", "{bad}", "answers=box"], "math.answers: unknown field; did you mean 'answer'"),
        (["math", "{bad}", "--workers", "0"], "--workers: 0, must be at least 1"),
        (["math", "{bad}", "--out", "{bad}"], "--out: '.*' is the file that is scored"),
        (["math", "{bad}", "--out", "x.csv"], "--out: 'x.csv' must end in .jsonl"),
    ],
)
def test_bad_input_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    """Catches a row that fails after an hour of work, and an error that does not say which one."""
    bad = written(tmp_path, [{"prediction": "1", "reference": "1"}, {"prediction": None, "reference": "1"}])
    out = [] if "--out" in words else ["--out", str(tmp_path / "out.jsonl")]
    given = [word.format(bad=bad, missing=tmp_path / "no.jsonl") for word in words]
    assert main(["score", *given, *out]) == 2
    said = capsys.readouterr().err
    assert re.search(error, said), said
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_killed_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a result that is half written, work that is done twice, and scores of other rows."""
    log, out, was_killed = tmp_path / "log", tmp_path / "out.jsonl", tmp_path / "was-killed"
    rows = [{"reference": "x", "completion": f"log {log} 0" if i % 2 else "x", "i": i} for i in range(80)]
    rows[60]["completion"] = f"orphan {was_killed}"
    path = written(tmp_path, rows)
    was_killed.touch()
    words = ["score", TASK, path, "--out", str(out), "--workers", "2"]
    whole = score_file(ScoreJob(TASK, path, str(tmp_path / "whole.jsonl"), num_workers=2))
    log.unlink()
    was_killed.unlink()
    run = subprocess.run([sys.executable, "-m", "revelm", *words], cwd=ROOT, env=os.environ | {"PYTHONPATH": "."})
    assert run.returncode == -signal.SIGKILL
    assert was_killed.exists()
    assert not out.exists()
    partial = tmp_path / ".out.jsonl.partial"
    kept = partial.read_text()
    partial.write_text(kept[:-5])  # as if the last line had not got to the disk
    done = sum('"logged"' in line for line in partial.read_text().split("\n")[:-1])
    log.unlink()
    other = written(tmp_path, rows[:-1], "other.jsonl")
    assert main(["score", TASK, other, "--out", str(out), "--resume"]) == 2
    assert "holds scores of other rows or another reward; remove it" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert len(log.read_text()) == 40 - done > 0
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not partial.exists()
    assert f"{whole.num_rows} rows, mean score {whole.mean:.4f}" in capsys.readouterr().out


def test_other_formats(tmp_path: Path) -> None:
    """Catches a file that only JSON Lines can be."""
    (tmp_path / "rows.csv").write_text("prediction,reference\n03,3\n4,3\n", encoding="utf-8")
    score_file(ScoreJob("math", str(tmp_path / "rows.csv"), str(tmp_path / "out.jsonl"), num_workers=1))
    assert lines(tmp_path / "out.jsonl")[0] | {"reason": ""} == {
        "prediction": "03",
        "reference": "3",
        "score": 1.0,
        "reason": "",
    }
