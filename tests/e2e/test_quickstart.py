"""The quickstart's own path, a few steps of everything."""

import json
from pathlib import Path

import pytest

from revelm.cli.main import main
from revelm.models.load import load_model
from revelm.trainers import quickstart
from revelm.trajectories.store import read_trajectories

# Less than `--smoke` leaves, which `.ci/run` runs as it is.
LESS = ("sft.data.num=640",)


@pytest.mark.parametrize(("task", "less"), [("chain", LESS), pytest.param("sudoku4", (), marks=pytest.mark.slow)])
def test_smoke_run_leaves_what_it_promises_and_resumes(
    task: str, less: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that loses its output, or a resume that starts over, would only show after minutes of a real run."""
    name = f"quickstart-{task}.yaml"
    recipe = (quickstart.RECIPES / name).read_text(encoding="utf-8")
    (tmp_path / name).write_text("\n".join([recipe.rstrip(), *(f"  - {word}" for word in less), ""]), encoding="utf-8")
    monkeypatch.setattr(quickstart, "RECIPES", tmp_path)
    words = ["quickstart", "--task", task, "--smoke", "--out", str(tmp_path / "q")]
    assert main(words) == 0
    summary = json.loads((tmp_path / "q/summary.json").read_text(encoding="utf-8"))
    for at in ("sft", "rl"):
        for name in ("accuracy_static", "accuracy_dynamic", "accuracy_dynamic_t05", "tokens_per_forward"):
            assert summary[at][name].keys() == {"mean", "low", "high", "n"}
            assert summary[at][name]["low"] <= summary[at][name]["mean"] <= summary[at][name]["high"]
    phases = {json.loads(line)["phase"] for line in (tmp_path / "q/metrics.jsonl").read_text().splitlines()}
    assert phases == {"sft", "rl", "eval"}
    page = (tmp_path / "q/report.html").read_text(encoding="utf-8")
    assert "before RL" in page
    assert "after RL" in page
    load_model(tmp_path / "q")
    record = tmp_path / "q/eval-rl/trajectories/dynamic.parquet"
    assert len(read_trajectories(record)) == 8
    picture = tmp_path / "trace.svg"
    assert main(["trace", "view", str(record), "--out", str(picture)]) == 0
    assert "no tokenizer given" not in picture.read_text(encoding="utf-8")
    assert main(words) == 2
    before = (tmp_path / "q/rl/metrics.jsonl").read_bytes()
    assert main([*words, "--resume"]) == 0
    assert (tmp_path / "q/rl/metrics.jsonl").read_bytes() == before


def test_a_recipe_mistake_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test split too small for the task used to be found after SFT."""
    recipe = (quickstart.RECIPES / "quickstart-chain.yaml").read_text(encoding="utf-8")
    (tmp_path / "quickstart-chain.yaml").write_text(
        recipe.replace("num_test: 170", "num_test: 100000"), encoding="utf-8"
    )
    monkeypatch.setattr(quickstart, "RECIPES", tmp_path)
    with pytest.raises(ValueError, match="num_test"):
        quickstart.run(out=str(tmp_path / "q"), smoke=True)
    assert not (tmp_path / "q").exists()
