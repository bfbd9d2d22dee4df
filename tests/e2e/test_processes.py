"""torchrun and the command line: a run of two processes is the run of one, in either placement, and stops as one."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from revelm.cli.main import main
from revelm.core.config import parse_config
from revelm.parallel.world import World
from revelm.trainers import sft
from revelm.trainers.config import SFTConfig
from tests.processes import Processes
from tests.tiny_checkpoint import save_tiny

ROOT = Path(__file__).parents[2]
PATIENCE = 900.0


def recipe(folder: Path, name: str, **train: Any) -> dict[str, Any]:
    """A small run in float64, where the order of a sum is the only difference."""
    if not (folder / "tiny").is_dir():
        save_tiny(folder / "tiny")
    return {
        "model": {"path": str(folder / "tiny"), "dtype": "float64"},
        "task": {"kind": "chain", "num_train": 40, "num_test": 4, "num_operations": [2, 2]},
        "data": {"num": 30},
        "batch_size": 5,
        "optimizer": {"learning_rate": 3e-3, "schedule": "cosine", "warmup_steps": 2, "floor": 0.1},
        "train": {"steps": 6, "save_every": 3, "max_positions": 200} | train,
        "out": str(folder / name),
    }


def torchrun(values: dict[str, Any], *words: str) -> subprocess.Popen[str]:
    """The run, under two processes."""
    file = Path(values["out"]).with_suffix(".yaml")
    file.write_text(json.dumps(values))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "revelm"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.Popen(
        [*command, "sft", str(file), *words], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str], *, code: int = 0) -> str:
    """What the processes said, once they have ended with ``code``."""
    try:
        _, errors = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == code, errors
    return errors


def rows(run: Path) -> list[dict[str, Any]]:
    """The numbers in metrics.jsonl, without times and padding: what rows are padded to depends on who has them."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if k not in ("phase", "padding")} for row in found]
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in kept]


def assert_same_runs(one: Path, other: Path) -> None:
    """Every row, every step once; and the final weights."""
    assert [row["step"] for row in rows(one)] == [row["step"] for row in rows(other)]
    for a, b in zip(rows(one), rows(other), strict=True):
        assert a == pytest.approx(b, rel=1e-8)
    first, second = (load_file(run / "checkpoint-6" / "model.safetensors") for run in (one, other))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert float((tensor - second[name]).abs().max()) <= 1e-8, name


def test_two_processes_are_one(tmp_path: Path) -> None:
    """Catches samples that depend on who draws them, rows logged by each process, and a run that only its own number
    of processes can go on with."""
    alone = sft.run(parse_config(SFTConfig, recipe(tmp_path, "alone")))
    finished(torchrun(recipe(tmp_path, "fsdp", strategy="fsdp")))
    assert_same_runs(alone, tmp_path / "fsdp")
    half = recipe(tmp_path, "fsdp", strategy="fsdp")
    for name in ("checkpoint-6/trainer/state.json", "LATEST"):
        (tmp_path / "fsdp" / name).unlink()
    assert_same_runs(alone, sft.run(parse_config(SFTConfig, half | {"resume": True})))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_together(tmp_path: Path, number: signal.Signals) -> None:
    """Catches a process that stops alone while the others wait for it, and steps lost since the last checkpoint."""
    process = torchrun(recipe(tmp_path, "ddp", steps=100_000, save_every=0))
    metrics, until = tmp_path / "ddp" / "metrics.jsonl", time.monotonic() + PATIENCE
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) >= 2):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    done = rows(tmp_path / "ddp")[-1]["step"]
    assert (tmp_path / "ddp" / "LATEST").read_text() == f"checkpoint-{done}\n", errors
    assert "resume=true" in errors
    more = recipe(tmp_path, "ddp", steps=done + 1, save_every=0) | {"resume": True}
    run = sft.run(parse_config(SFTConfig, more))
    assert [row["step"] for row in rows(run)] == list(range(1, done + 2))


def told(world: World, words: list[str]) -> tuple[int, str]:
    """The exit code of ``revelm WORDS``, and what it says."""
    with redirect_stderr(StringIO()) as said:
        return main(words), said.getvalue()


def test_a_mistake_is_told_and_ends_all(pair: Processes, tmp_path: Path) -> None:
    """Catches processes that go on waiting for one that has found the recipe wrong."""
    file = tmp_path / "bad.yaml"
    file.write_text(json.dumps(recipe(tmp_path, "bad")))
    (first, said), (second, silent) = pair.run(told, ["sft", str(file), "model.block_size=8"])
    assert first == second == 2
    assert "model.block_size: 8, but the checkpoint" in said
    assert silent == ""
