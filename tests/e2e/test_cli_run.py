"""The command line from a checkpoint to a trace page: sft, rl, eval, generate, trace view, on a tiny model."""

import json
import shutil
from pathlib import Path

import pytest

from revelm.cli.main import main
from revelm.trajectories.store import read_trajectories
from tests.tiny_checkpoint import save_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one small SFT run and one small RL run after it leave their directories: sft and rl."""
    folder = tmp_path_factory.mktemp("runs")
    save_tiny(folder / "model", max_position_embeddings=256)
    small = ["task.num_train=50", "train.max_positions=600", "--out"]
    sft = [str(ROOT / "recipes" / "sft-chain.yaml"), f"model.path={folder / 'model'}", "data.num=40", "batch_size=4"]
    assert main(["sft", *sft, "train.steps=3", *small, str(folder / "sft")]) == 0
    rollouts = ["rollout.problems_per_step=2", "rollout.group_size=4", "rollout.max_new_tokens=12"]
    # After three steps the model has no chance on chain; by parity about half of all answers are right.
    rl = [str(ROOT / "recipes" / "rl-chain.yaml"), f"model.path={folder / 'sft'}", "task=tests.toy_tasks:Parity"]
    steps = ["train.steps=3", "eval.num_problems=2", "eval.max_new_tokens=8", "eval_every=3"]
    assert main(["rl", *rl, *rollouts, *steps, *small, str(folder / "rl")]) == 0
    return folder


def test_runs_leave_their_files(folder: Path) -> None:
    """Catches a run directory without configuration, metrics, checkpoint, pointer or trajectories."""
    for verb in ("sft", "rl"):
        run = folder / verb
        assert (run / "LATEST").read_text() == "checkpoint-3\n"
        names = {p.name for p in (run / "checkpoint-3").iterdir()}
        assert names >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "trainer"}
        assert (run / "config.yaml").is_file()
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows if row["phase"] == verb] == [1, 2, 3]
        needed = {"grad_norm", "learning_rate", "seconds", "entropy"}
        needed |= {"loss"} if verb == "sft" else {"reward", "accuracy", "kl", "clip_fraction", "length"}
        trained = [row for row in rows if row["phase"] == verb and row.get("num_trained", 1)]
        assert all(needed <= row.keys() for row in trained)
    evaluations = [row for row in rows if row["phase"] == "eval"]
    assert {row["setting"] for row in evaluations} == {"static", "dynamic", "dynamic_t05"}
    assert all(set(row["accuracy"]) == {"mean", "low", "high", "n"} for row in evaluations)
    assert read_trajectories(folder / "rl" / "trajectories" / "step-1.parquet")


def test_eval_of_a_run_directory(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches an evaluation that needs a checkpoint's own path, prints no interval, or leaves no files."""
    words = ["task=chain", "task.num_test=5", "num_problems=3", "max_new_tokens=8", "samples_per_problem=2"]
    assert main(["eval", "--model", str(folder / "rl"), *words, "--out", str(tmp_path / "eval")]) == 0
    printed = capsys.readouterr().out
    assert all(setting in printed for setting in ("static", "dynamic", "dynamic_t05"))
    assert "[0.000" in printed
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    for name, metrics in summary["settings"].items():
        assert metrics["accuracy"]["n"] == (3 if name == "static" else 6)
        assert metrics["tokens_per_second"] > 0
        assert 0 < metrics["tokens_per_forward"]["mean"] <= 4
    found = read_trajectories(tmp_path / "eval" / "trajectories" / "dynamic.parquet")
    assert [t.info["problem"] for t in found][::2] == [t.info["problem"] for t in found][1::2]
    assert len(found) == 6


def test_eval_is_repeatable(folder: Path, tmp_path: Path) -> None:
    """Catches an evaluation that depends on the clock, the process or what ran before."""
    words = ["eval", "--model", str(folder / "sft"), "task.kind=chain", "num_problems=2", "max_new_tokens=8", "--out"]
    found = []
    for name in ("a", "b"):
        assert main([*words, str(tmp_path / name)]) == 0
        files = sorted((tmp_path / name / "trajectories").iterdir())
        found.append([t.completion_ids.tolist() for file in files for t in read_trajectories(file)])
    assert found[0] == found[1]


def test_generate_and_its_trace(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches an answer mixed with the numbers about it, a seed without effect, and a page with anything external."""
    words = ["generate", "--model", str(folder / "rl"), "--prompt", "1+2=?", "--max-new-tokens", "9"]
    page = tmp_path / "trace.html"
    assert main([*words, "--trace", str(page)]) == 0
    first = capsys.readouterr()
    assert "tokens per forward" in first.err
    assert "tokens per forward" not in first.out
    text = page.read_text(encoding="utf-8")
    assert "<html" in text
    assert 'src="http' not in text
    assert main(words) == 0
    assert capsys.readouterr().out == first.out
    assert main([*words, "--seed", "1"]) == 0
    assert capsys.readouterr().out != first.out
    assert main([*words, "--tokens-per-step", "4", "--temperature", "0", "--raw"]) == 0
    assert "in 3 steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--prompt", "a <|mask|> b"], "<|mask|>"),
        (["--prompt", "<|mask|>", "--raw"], "mask token"),
        (["--prompt", "x" * 300], "the model has 256"),
        (["--prompt", "", "--raw"], "non-empty"),
    ],
)
def test_generate_refuses_bad_prompts(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    """Catches a prompt that is cut, or that holds positions the model would fill in."""
    assert main(["generate", "--model", str(folder / "sft"), "--max-new-tokens", "8", *words]) == 2
    captured = capsys.readouterr()
    assert reason in captured.err
    assert len(captured.err.splitlines()) == 1


def test_defaults_suit_a_small_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches verbs that work only with max_new_tokens given, because their default is more than the model has."""
    assert main(["generate", "--model", str(folder / "sft"), "--prompt", "1+2=?"]) == 0
    assert "tokens in" in capsys.readouterr().err
    assert main(["eval", "--model", str(folder / "rl"), "task=sudoku4", "num_problems=2"]) == 0
    assert "unseen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "words", "reason"),
    [
        ("sft", ["objective=trace_rl"], "objective.kind: 'trace_rl' learns from scored answers"),
        ("sft", ["task=tests.toy_tasks:Parity"], "has no demonstrations"),
        ("rl", ["objective=block_sft"], "objective.kind: 'block_sft' learns from texts"),
        ("rl", ["task=chain", "task.data=nowhere.csv"], "nowhere.csv"),
        ("rl", ["model.device=cuda:99"], "device is 'cuda:99', but torch sees"),
        ("rl", ["model.device=gpu"], "device is 'gpu', expected a name such as"),
    ],
)
def test_what_cannot_train_is_refused_at_the_start(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, words: list[str], reason: str
) -> None:
    """Catches a traceback for an objective of the other loop, and a missing file found at the first evaluation."""
    out = tmp_path / "run"
    recipe = str(folder / verb / "config.yaml")
    assert main([verb, recipe, f"model.path={folder / 'model'}", *words, "--out", str(out)]) == 2
    assert reason in capsys.readouterr().err
    assert not out.exists()


def test_trace_view_of_a_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a trajectory file of a run that cannot be viewed with the run's own tokenizer."""
    page = tmp_path / "page.html"
    file = folder / "rl" / "trajectories" / "step-1.parquet"
    assert main(["trace", "view", str(file), "--index", "2", "--out", str(page)]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    assert "shown as ids" not in page.read_text(encoding="utf-8")


def test_report_of_a_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a report that needs the run to be over, loses its traces, or shows them without the run's tokenizer."""
    shutil.copytree(folder / "rl", tmp_path / "rl")
    run = tmp_path / "rl"
    for name in ("summary.json", "report.html"):
        (run / name).unlink()
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Reward. reward: 3 points" in page
    assert 'type="application/json"' in page
    assert "shown as ids" not in page
    shutil.rmtree(run / "checkpoint-3")
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert "shown as ids" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert main(["report", str(folder / "sft"), "--out", str(tmp_path / "sft.html")]) == 0
    assert "Supervised fine-tuning" in (tmp_path / "sft.html").read_text(encoding="utf-8")
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "not a directory" in capsys.readouterr().err


def test_resume_through_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches --resume that is not passed on: without it a finished run is refused, with it more steps are run."""
    recipe = str(folder / "sft" / "config.yaml")
    words = ["sft", recipe, "--out", str(tmp_path / "run"), "optimizer.schedule=constant"]
    assert main([*words, "train.steps=1"]) == 0
    assert main([*words, "train.steps=2"]) == 2
    assert "resume=true" in capsys.readouterr().err
    assert main([*words, "train.steps=2", "--resume"]) == 0
    assert (tmp_path / "run" / "LATEST").read_text() == "checkpoint-2\n"
