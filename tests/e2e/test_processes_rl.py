"""Whole runs of several processes: they learn what one process learns, from the same answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from revelm.core.config import parse_config
from revelm.parallel.world import World
from revelm.trainers import rl, sft
from revelm.trainers.config import RLConfig, SFTConfig
from revelm.trajectories.store import read_trajectories
from tests.processes import Processes
from tests.tiny_checkpoint import save_tiny

TASK = "tests.toy_tasks:Parity"
SHARDS = {"steps": 5, "max_positions": 200, "strategy": "fsdp"}
TIMES = ("seconds", "tokens_per_second", "padding")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def rl_values(source: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """A short RL run in float64; the problems of a step do not divide evenly over two processes."""
    return {
        "model": {"path": str(source), "dtype": "float64"},
        "task": TASK,
        "rollout": {"problems_per_step": 3, "group_size": 4, "max_new_tokens": 8, "save_every": 1},
        "optimizer": {"learning_rate": 3e-3},
        "train": {"steps": 5, "max_positions": 200},
        "updates_per_step": 2,
        "eval": {"num_problems": 3, "settings": {"dynamic": {"max_new_tokens": 8}}},
        "eval_every": 5,
        "out": str(out),
    } | changes


def run_rl(world: World | None, values: dict[str, Any]) -> None:
    rl.run(parse_config(RLConfig, values))


def run_sft(world: World | None, values: dict[str, Any]) -> None:
    sft.run(parse_config(SFTConfig, values))


def metrics(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the times."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in found]


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """All numbers of a row, nested ones as well, by their names."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": number for inner, number in numbers(value).items()}
        elif isinstance(value, int | float):
            found[name] = value
    return found


def assert_same_learning(one: Path, other: Path, step: int) -> None:
    """Metrics and weights agree, up to the order of sums."""
    first, second = metrics(one), metrics(other)
    assert [row.keys() for row in first] == [row.keys() for row in second]
    for a, b in zip(map(numbers, first), map(numbers, second), strict=True):
        assert a
        assert a == pytest.approx(b, rel=1e-6, abs=1e-9)
    weights, others = (load_file(run / f"checkpoint-{step}" / "model.safetensors") for run in (one, other))
    for name in weights:
        np.testing.assert_allclose(weights[name], others[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "method",
    [
        {"train": {"steps": 5, "max_positions": 200, "strategy": "ddp"}},
        {"train": SHARDS, "objective": "random_mask_rl"},
        {"value": {"warmup_steps": 1}, "objective": {"kind": "trace_rl", "reference_weight": 0.05}},
        {"value": {"backbone": "shared"}, "train": SHARDS},
        {"value": {"warmup_steps": 1}, "train": SHARDS},
    ],
    ids=["ddp", "fsdp", "value", "shared_value_in_shards", "value_in_shards"],
)
def test_two_processes_learn_what_one_does(
    pair: Processes, model: Path, tmp_path: Path, method: dict[str, Any]
) -> None:
    """Catches answers that depend on who asks, samples trained twice or by nobody, and losses averaged per process."""
    run_rl(None, rl_values(model, tmp_path / "one", **method))
    pair.run(run_rl, rl_values(model, tmp_path / "two", **method))
    assert sum(row.get("num_trained", 0) > 0 for row in metrics(tmp_path / "one")) >= 4
    for file in sorted((tmp_path / "one" / "trajectories").iterdir()):
        ours, theirs = (read_trajectories(tmp_path / name / "trajectories" / file.name) for name in ("one", "two"))
        assert len(ours) == len(theirs) > 0
        for a, b in zip(ours, theirs, strict=True):
            assert a.info["problem"] == b.info["problem"]
            assert a.completion_ids.tolist() == b.completion_ids.tolist()
            assert a.step.tolist() == b.step.tolist()
    assert_same_learning(tmp_path / "one", tmp_path / "two", 5)
