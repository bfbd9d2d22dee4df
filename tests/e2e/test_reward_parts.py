"""Whole RL runs whose scores are sums of rewards, and whose answers are judged in worker processes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from revelm.cli.main import main
from revelm.rollout.collect import read_completion
from revelm.trajectories.store import read_trajectories
from tests.tiny_checkpoint import save_tiny, tiny_tokenizer

REWARD = """
def evenness(prompts, completions, question, **kwargs):
    assert all(prompt[-1]["content"] == asked for prompt, asked in zip(prompts, question))
    return [None if not text[0]["content"] else (len(text[0]["content"]) % 2) / 2 for text in completions]

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": 0.25, "characters": len(solution_str)}

def fails(prompts, completions, **kwargs):
    raise KeyError("column")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny", num_hidden_layers=1)


def run(model: Path, out: Path, parts: list[Any], **changes: Any) -> int:
    """``revelm rl``; its exit code."""
    values = {
        "model": {"path": str(model)},
        "task": "tests.toy_tasks:Parity",
        "rollout": {"problems_per_step": 2, "group_size": 4, "max_new_tokens": 8, "save_every": 1},
        "optimizer": {"learning_rate": 3e-3},
        "train": {"steps": 2},
        "reward": {"parts": parts},
        "out": str(out),
    } | changes
    file = out.with_suffix(".json")
    file.write_text(json.dumps(values))
    return main(["rl", str(file)])


def rows(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_with_a_sum_of_rewards(model: Path, tmp_path: Path) -> None:
    """Catches a breakdown that nobody logs, scores that go to other answers, and weights that are not applied."""
    (tmp_path / "mine.py").write_text(REWARD)
    parts = [
        {"kind": "task", "weight": 0.5},
        {"kind": "length", "limit": 16, "weight": 2},
        {"kind": "function", "path": f"{tmp_path}/mine.py:evenness"},
        {"kind": "function", "path": f"{tmp_path}/mine.py:compute_score", "name": "verl"},
    ]
    assert run(model, tmp_path / "run", parts) == 0
    tokenizer, found = tiny_tokenizer(), rows(tmp_path / "run")
    for row in found:
        terms: dict[str, list[float]] = {name: [] for name in ("task", "length", "evenness")}
        scores = []
        for trajectory in read_trajectories(tmp_path / "run" / "trajectories" / f"step-{row['step']}.parquet"):
            text = read_completion(tokenizer, trajectory).text
            terms["task"].append(float(sum(map(ord, text)) % 2 == 0))
            terms["length"].append(-trajectory.num_tokens / 16)
            terms["evenness"] += [(len(text) % 2) / 2] if text else []
            own = terms["evenness"][-1] if text else 0.0
            scores.append(0.5 * terms["task"][-1] + 2 * terms["length"][-1] + own + 0.25)
            assert trajectory.info["score"] == pytest.approx(scores[-1])
        assert row["reward"] == pytest.approx(np.mean(scores))
        for name, values in terms.items():
            assert row[f"reward/{name}"] == pytest.approx(np.mean(values))
        assert (row["reward/verl"], row["rewards_unrated"]) == (0.25, 0.0)
        assert row["reward/verl/characters"] > 0
        assert row["accuracy"] == pytest.approx(row["reward/task"])
    assert any("loss" in row for row in found)


def test_a_function_that_fails(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a traceback, and an error that names neither function nor problem."""
    (tmp_path / "mine.py").write_text(REWARD)
    assert run(model, tmp_path / "run", [{"kind": "function", "path": f"{tmp_path}/mine.py:fails"}]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "mine.py:fails: KeyError: 'column' (mine.py, line 10), about problem 'train:" in told
    assert "Traceback" not in told


def test_answers_judged_in_worker_processes(model: Path, tmp_path: Path) -> None:
    """Catches a pool whose verdicts come back in another order, or are others in training than in evaluation."""
    names, times = ("exact", "math", "code"), ("seconds", "tokens_per_second")
    for name in names:
        task = {"kind": "chain", "num_train": 20, "num_test": 4, "verdict": name}
        parts = ["task", {"kind": "format", "has_box": True, "weight": 0.5}, {"kind": "length", "limit": 30}]
        about = {"task": task, "eval_every": 1, "eval": {"num_problems": 4}, "train": {"steps": 1}}
        assert run(model, tmp_path / name, parts, **about) == 0
    found = [[{k: v for k, v in row.items() if not k.startswith(times)} for row in rows(tmp_path / n)] for n in names]
    assert found[0] == found[1] == found[2]
    ends = [load_file(tmp_path / name / "checkpoint-1" / "model.safetensors") for name in names]
    assert all(torch.equal(ends[0][name], end[name]) for name in ends[0] for end in ends[1:])
