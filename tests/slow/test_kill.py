"""Runs that are killed: kill -9 in the middle of a checkpoint, Ctrl-C, and what a resume makes of it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from revelm.trainers.checkpoint import latest_checkpoint
from tests.tiny_checkpoint import save_tiny

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS = 40
PATIENCE = 120.0
KILLS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Big enough that writing a checkpoint takes a while, small enough that a step does not."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny", hidden_size=128, intermediate_size=512)


def recipe(folder: Path, verb: str, model: Path, *, steps: int) -> Path:
    """A recipe that saves after every step."""
    values = {
        "model": {"path": str(model)},
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 5},
        "train": {"steps": steps, "save_every": 1},
        "out": "given by --out",
    }
    if verb == "sft":
        task = {"kind": "chain", "num_train": 40, "num_test": 4, "num_operations": [2, 2]}
        values |= {"task": task, "data": {"num": 20}, "batch_size": 2}
    else:
        rollout = {"problems_per_step": 1, "group_size": 4, "max_new_tokens": 4, "save_every": 1}
        values |= {"task": "tests.toy_tasks:Parity", "rollout": rollout}
    file = folder / f"{verb}-{steps}.yaml"
    file.write_text(json.dumps(values))
    return file


@pytest.fixture(scope="module")
def straight(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One uninterrupted run of each verb."""
    folder = tmp_path_factory.mktemp("straight")
    for verb in ("sft", "rl"):
        code, errors = finish(start(verb, recipe(folder, verb, model, steps=STEPS), folder / verb))
        assert code == 0, errors
    return {verb: folder / verb for verb in ("sft", "rl")}


def start(verb: str, file: Path, run: Path, *words: str) -> "subprocess.Popen[str]":
    """``revelm`` in a process of its own."""
    command = [sys.executable, "-m", "revelm", verb, str(file), "--out", str(run), *words]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Poll until ``condition`` holds; fails when the process ends before, or nothing happens for too long."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"ended too early with {process.returncode}: {process.communicate()[1]}"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.0005)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit code and stderr."""
    _, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, errors


def metrics(run: Path) -> list[dict[str, object]]:
    """metrics.jsonl without times; a last line that was cut short is left out, as a resumed run does."""
    lines = (run / "metrics.jsonl").read_text().split("\n")[:-1]
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("seconds")} for line in lines]


def assert_same_end(one: Path, other: Path) -> None:
    """Weights, optimiser and metrics of two finished runs are equal bit for bit."""
    a, b = one / f"checkpoint-{STEPS}", other / f"checkpoint-{STEPS}"
    first, second = (load_file(c / "model.safetensors") for c in (a, b))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
    first, second = (torch.load(c / "trainer" / "optimizer.pt", weights_only=True) for c in (a, b))
    assert first["updates"] == second["updates"]
    assert all(torch.equal(x, y) for x, y in zip(first["masters"], second["masters"], strict=True))
    for key, moments in first["adam"]["state"].items():
        assert all(torch.equal(v, second["adam"]["state"][key][k]) for k, v in moments.items())
    assert metrics(one) == metrics(other)


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_kill_during_a_checkpoint(verb: str, model: Path, straight: dict[str, Path], tmp_path: Path) -> None:
    """Catches a half-written checkpoint that is resumed from, work lost beyond it, and steps done twice."""
    file = recipe(tmp_path, verb, model, steps=STEPS)
    run = tmp_path / "run"
    rng, halves = random.Random(0), 0
    for kill in range(KILLS):
        reached = 0 if (found := latest_checkpoint(run)) is None else int(found.name.split("-")[1])
        process = start(verb, file, run, "--resume")
        beyond = reached + rng.randint(1, 6)
        wait_for(lambda step=beyond: (run / f".checkpoint-{step}.tmp").exists(), process)  # type: ignore[misc]
        time.sleep(rng.choice([0.0, 0.001, 0.003, 0.01]))
        process.send_signal(signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL
        halves += any(run.glob(".checkpoint-*.tmp"))
        newest = latest_checkpoint(run)
        last = 0 if newest is None else int(newest.name.split("-")[1])
        assert last >= beyond - 1, "the checkpoint before the one under way was lost"
        if newest is not None:
            load_file(newest / "model.safetensors")
            state = json.loads((newest / "trainer" / "state.json").read_text())
            assert state["step"] == last
        assert kill == 0 or last >= reached
    assert halves >= 1, "no kill hit a checkpoint under way; shorten the pauses"
    assert finish(start(verb, file, run, "--resume"))[0] == 0
    assert_same_end(straight[verb], run)
    assert [row["step"] for row in metrics(run)] == list(range(1, STEPS + 1))
    assert not list(run.glob(".*.tmp"))


@pytest.mark.parametrize(("verb", "number"), [("sft", signal.SIGINT), ("rl", signal.SIGINT), ("sft", signal.SIGTERM)])
def test_polite_stop(verb: str, number: signal.Signals, model: Path, straight: dict[str, Path], tmp_path: Path) -> None:
    """Catches Ctrl-C that loses the steps since the last save, ends in a traceback or passes for a success."""
    file = recipe(tmp_path, verb, model, steps=STEPS)
    long = recipe(tmp_path, verb, model, steps=100_000)
    run = tmp_path / "run"
    process = start(verb, long, run, "train.save_every=0")
    wait_for(lambda: (run / "metrics.jsonl").is_file() and len(metrics(run)) >= 3, process)
    process.send_signal(number)
    code, errors = finish(process)
    assert code == 130
    assert "Traceback" not in errors
    assert "resume=true" in errors.splitlines()[-1]
    done = int(str(metrics(run)[-1]["step"]))
    assert done < STEPS
    assert (run / "LATEST").read_text() == f"checkpoint-{done}\n"
    assert finish(start(verb, file, run, "--resume"))[0] == 0
    assert_same_end(straight[verb], run)
