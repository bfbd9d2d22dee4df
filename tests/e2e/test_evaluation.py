"""Evaluations of several tasks from the command line: stopped, gone on with, compared, looked at."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from revelm.cli.main import main
from revelm.core.config import load_config
from revelm.eval.config import EvalConfig
from revelm.eval.evaluation import evaluate_config
from revelm.eval.store import read_samples
from revelm.trajectories.store import read_trajectories
from tests.killable import Moment, Run
from tests.tiny_checkpoint import save_tiny

TIMES = ("seconds", "tokens_per_second", "environment")
TASKS = {
    "chain": {"num_problems": 5, "expected": {"dynamic": {"accuracy": 0.9, "source": "nowhere"}}},
    "parity": {"task": {"kind": "tests.toy_tasks:Parity", "num_test": 4}, "samples_per_problem": 4},
}
SETTINGS = {"static": {"temperature": 0, "rule": "static"}, "dynamic": {"temperature": 1, "top_k": 9}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, a recipe, and an evaluation that was never stopped (whole)."""
    folder = tmp_path_factory.mktemp("evaluation")
    save_tiny(folder / "model", max_position_embeddings=256)
    recipe = {"model": str(folder / "model"), "tasks": TASKS, "settings": SETTINGS, "max_new_tokens": 8, "n": 2}
    (folder / "eval.yaml").write_text(json.dumps({**recipe, "save_every": 2}))
    assert main(["eval", str(folder / "eval.yaml"), "--out", str(folder / "whole"), "--format", "json"]) == 0
    return folder


def summary(out: Path) -> Any:
    """What was found, without times."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(item) for key, item in value.items() if key not in TIMES}
        return value

    return without(json.loads((out / "summary.json").read_text()))


def assert_same(one: Path, other: Path) -> None:
    """Numbers, every row and every trajectory."""
    assert summary(one) == summary(other)
    files = [file.relative_to(one) for file in sorted(one.glob("*/samples/*.jsonl"))]
    assert len(files) == 4
    for file in files:
        assert (one / file).read_bytes() == (other / file).read_bytes()
        place = file.parent.parent / "trajectories" / f"{file.stem}.parquet"
        first, second = (read_trajectories(out / place) for out in (one, other))
        assert [t.completion_ids.tolist() for t in first] == [t.completion_ids.tolist() for t in second]
        assert [t.info for t in first] == [t.info for t in second]


def test_everything_is_kept(folder: Path) -> None:
    """Catches files that are missing, samples without what a reader needs, and parts left lying about."""
    whole = folder / "whole"
    found = summary(whole)
    assert list(found["tasks"]) == ["chain", "parity"]
    assert found["tasks"]["chain"]["settings"]["dynamic"]["expected"]["verdict"] == "differs"
    parity = found["tasks"]["parity"]
    assert list(parity["settings"]["dynamic"]["pass_at_k"]) == ["1", "2", "4"]
    assert list(parity["settings"]["static"]["pass_at_k"]) == ["1"]
    assert parity["answers_per_problem"] == {"static": 1, "dynamic": 4}
    assert "chain, static (instead of 2); parity, static (instead of 4)." in (whole / "summary.md").read_text(
        encoding="utf-8"
    )
    rows = read_samples(whole / "parity" / "samples" / "dynamic.jsonl")
    assert [(row.group, row.number) for row in rows] == [(group, number) for group in range(4) for number in range(4)]
    assert len({row.seed for row in rows}) == 16
    assert "q1000" in rows[0].prompt
    trajectories = read_trajectories(whole / "parity" / "trajectories" / "dynamic.parquet")
    assert [(t.info["problem"], t.num_tokens, t.sampling["seed"]) for t in trajectories] == [
        (row.problem, row.tokens, row.seed) for row in rows
    ]
    assert not list(whole.rglob("parts"))
    for name in ("summary.md", "report.html"):
        assert "parity" in (whole / name).read_text()


def test_a_killed_evaluation_goes_on(folder: Path, tmp_path: Path) -> None:
    """Catches answers that are drawn again, counted twice or lost when a kill falls between two files of a part."""
    words = ["eval", str(folder / "eval.yaml"), "--out", str(tmp_path / "out")]
    run = Run(*words, said=tmp_path / "said.txt", moment=Moment("trajectories", 6, 10**9))
    code, said = run.finish()
    assert code == -9, said
    parts = sorted(file.relative_to(tmp_path / "out") for file in (tmp_path / "out").rglob("parts/*/*"))
    assert sum(part.suffix == ".parquet" for part in parts) == 1 + sum(part.suffix == ".json" for part in parts)
    assert not (tmp_path / "out" / "summary.json").exists()
    assert main(words) == 2
    assert main([*words, "--resume", "num_slots=3", "save_every=1"]) == 0
    assert_same(folder / "whole", tmp_path / "out")


def test_a_finished_evaluation_is_not_asked_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a second evaluation under the name of the first, and an expectation or a k that cannot be changed later
    without asking everything again."""
    before = summary(folder / "whole")
    capsys.readouterr()
    words = ["eval", str(folder / "eval.yaml"), "--out", str(folder / "whole"), "--resume", "--format", "md"]
    assert main([*words, "tasks.chain.expected.dynamic.accuracy=0.0"]) == 0
    captured = capsys.readouterr()
    assert "problems," not in captured.err
    assert "too few problems to tell" in captured.out
    assert main([*words, "tasks.parity.pass_at=[3]"]) == 0
    parity = summary(folder / "whole")["tasks"]["parity"]["settings"]["dynamic"]
    assert list(parity["pass_at_k"]) == ["3"]
    assert (
        0.0
        < parity["pass_at_k"]["3"]["mean"]
        <= before["tasks"]["parity"]["settings"]["dynamic"]["pass_at_k"]["4"]["mean"]
    )
    assert "pass_at:\n    - 3" in (folder / "whole" / "config.yaml").read_text()
    assert main(words) == 0
    assert summary(folder / "whole") == before


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("tasks.parity.samples_per_problem=3", "tasks.parity.samples_per_problem is 3, but"),
        ("settings.dynamic.top_k=8", "settings.dynamic.top_k is 8, but"),
        ("seed=1", "seed is 1, but"),
        ("tasks.chain.task.seed=3", "tasks.chain.task.seed is 3, but"),
    ],
)
def test_another_evaluation_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], word: str, reason: str
) -> None:
    """Catches answers to one question mixed with those to another, and a refusal that does not say why."""
    words = ["eval", str(folder / "eval.yaml"), "--out", str(folder / "whole")]
    assert main([*words, "--resume", word]) == 2
    assert f"resume: {reason}" in capsys.readouterr().err
    assert main(words) == 2
    assert "add --resume" in capsys.readouterr().err


def test_other_weights_and_other_problems_are_refused(folder: Path, tmp_path: Path) -> None:
    """Catches a run that trained on between two halves of its evaluation, and a data file that was changed."""
    save_tiny(tmp_path / "model")
    data = tmp_path / "data.csv"
    data.write_text("question,answer\n1+1+1,3\n1+2+3,6\n")
    words = [f"model={tmp_path / 'model'}", f"task={{kind: chain, data: {data}}}", f"out={tmp_path / 'out'}"]
    config = load_config(EvalConfig, None, [*words, "max_new_tokens=4", "resume=true"])
    evaluate_config(config)
    data.write_text("question,answer\n1+1+1,3\n1+2+4,7\n")
    with pytest.raises(ValueError, match=r"resume: problems\.chain is not what it was"):
        evaluate_config(config)
    data.write_text("question,answer\n1+1+1,3\n1+2+3,6\n")
    save_tiny(tmp_path / "model", seed=1)
    with pytest.raises(ValueError, match="resume: weights is not what it was"):
        evaluate_config(config)


def test_mistakes_cost_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a mistake that is found behind the weights or another task's answers: the weights here are damaged."""
    (tmp_path / "model").mkdir()
    for file in (folder / "model").iterdir():
        (tmp_path / "model" / file.name).write_bytes(b"" if file.suffix == ".safetensors" else file.read_bytes())
    words = ["eval", str(folder / "eval.yaml"), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    for word, reason in (
        ("tasks.parity.task.kind=parities", "tasks.parity.task.kind: 'parities' is not known"),
        ("tasks.chain.task.data=/nowhere.csv", "error: tasks.chain: task.data='/nowhere.csv': cannot be read"),
        ("tasks.parity.max_new_tokens=300", "tasks.parity.settings.static"),
        ("tasks.parity.settings.static.rule=statik", "tasks.parity.settings.static.rule.kind: 'statik' is not known"),
    ):
        assert main([*words, word]) == 2
        assert reason in capsys.readouterr().err
    assert main(["eval", "a.yaml", "b.yaml"]) == 2
    assert "expected one recipe" in capsys.readouterr().err


def test_a_comparison_of_two(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a comparison that is not paired, does not know a task of the other, or prints nothing."""
    words = [
        "eval",
        "--model",
        str(folder / "model"),
        "max_new_tokens=8",
        "n=2",
        "seed=5",
        f"settings={json.dumps(SETTINGS)}",
    ]
    entry = json.dumps({"parity": TASKS["parity"]})
    assert main([*words, f"tasks={entry}", "--out", str(tmp_path / "other")]) == 0
    capsys.readouterr()
    assert main(["eval", "compare", str(folder / "whole"), str(tmp_path / "other")]) == 0
    assert "| parity | dynamic |" in capsys.readouterr().out
    out = tmp_path / "difference.json"
    assert main(["eval", "compare", str(folder / "whole"), str(tmp_path / "other"), "--out", str(out)]) == 0
    found = json.loads(out.read_text())["comparisons"]
    assert [(one["task"], one["setting"]) for one in found] == [("parity", "static"), ("parity", "dynamic")]
    static = found[0]
    assert (static["difference"]["mean"], static["p"], static["num_equal"]) == (0.0, 1.0, 4)
    page = tmp_path / "page.html"
    assert main(["eval", "compare", str(folder / "whole"), str(tmp_path / "other"), "--out", str(page)]) == 0
    assert page.read_text(encoding="utf-8").count("data-result=") == sum(
        len(one["won"]) + len(one["lost"]) for one in found
    )
    assert main(["eval", "compare", str(folder / "whole"), str(tmp_path / "other"), "--out", "page.txt"]) == 2
    assert "--out page.txt: expected a folder, or a file name that ends in .md" in capsys.readouterr().err
    assert main(["eval", "compare", str(folder / "whole")]) == 2
    assert "expected two folders" in capsys.readouterr().err


def test_traces_and_report_of_an_evaluation(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches trajectories of an evaluation that cannot be viewed with its model's tokenizer, and its page overwritten
    by that of a run."""
    page = tmp_path / "page.html"
    file = folder / "whole" / "parity" / "trajectories" / "static.parquet"
    assert main(["trace", "view", str(file), "--out", str(page)]) == 0
    assert "shown as ids" not in page.read_text(encoding="utf-8")
    assert main(["report", str(folder / "whole"), "--out", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == (folder / "whole" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("damage", ["cut", "lost", "twice", "missing"])
def test_samples_that_were_changed_are_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    """Catches numbers that are worked out anew from a part of the answers, and a damaged line that nobody names."""
    out = tmp_path / "out"
    shutil.copytree(folder / "whole", out)
    file = out / "parity" / "samples" / "dynamic.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    if damage == "missing":
        file.unlink()
    else:
        changed = {"cut": [lines[5][:40] + "\n"], "lost": [], "twice": [lines[5]] * 2}[damage]
        file.write_text("".join([*lines[:5], *changed, *lines[6:]]), encoding="utf-8")
    capsys.readouterr()
    words = ["eval", str(folder / "eval.yaml"), "--out", str(out), "--resume"]
    said = {
        "cut": f"{file}, line 6: not a sample of an evaluation",
        "lost": f"{file} was changed: expected the 16 answers in the order of the problems, found 15",
        "twice": f"{file} was changed: expected the 16 answers in the order of the problems, found 17",
        "missing": f"{file} is missing, though the evaluation is finished",
    }[damage]
    for more in ([], ["tasks.parity.pass_at=[2]"]):
        assert main([*words, *more]) == 2
        assert said in capsys.readouterr().err
