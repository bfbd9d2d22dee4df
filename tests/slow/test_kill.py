"""Runs that are killed, or stopped by Ctrl-C, and what a resume makes of them: the run that was never interrupted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from revelm.data.stream import stream
from revelm.trainers.checkpoint import latest_checkpoint
from revelm.trainers.saved_state import read_state
from revelm.trajectories.store import read_trajectories
from tests.killable import PATIENCE, Moment, Run
from tests.tiny_checkpoint import save_tiny
from tests.toy_tasks import Parity

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kill")]

ROOT = Path(__file__).parents[2]
STEPS = 24
KILLS = 3
LIFE = 12
SAVE_EVERY = 3
GROUP = 4
OWN = {"value": {"warmup_steps": 2, "learning_rate": 1e-3}, "updates_per_step": 2}
SHARED = {"value": {"backbone": "shared"}, "objective": {"kind": "trace_rl", "reference_weight": 0.1}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Big enough that writing a checkpoint takes a while, small enough that a step does not."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny", hidden_size=128, intermediate_size=512)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As small as can be."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny", num_hidden_layers=1)


def rl_values(source: Path, *, steps: int, save_every: int = 1, **changes: Any) -> dict[str, Any]:
    """A small RL run that keeps every answer."""
    return {
        "model": {"path": str(source)},
        "task": "tests.toy_tasks:Parity",
        "rollout": {"problems_per_step": 1, "group_size": GROUP, "max_new_tokens": 4, "save_every": 1},
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 5},
        "train": {"steps": steps, "save_every": save_every},
        "out": "given by --out",
    } | changes


def sft_values(source: Path, *, steps: int) -> dict[str, Any]:
    """A small SFT run that saves after every step."""
    task = {"kind": "chain", "num_train": 40, "num_test": 4, "num_operations": [2, 2]}
    values = {k: v for k, v in rl_values(source, steps=steps).items() if k != "rollout"}
    return values | {"task": task, "data": {"num": 20}, "batch_size": 2}


VALUES: dict[str, Callable[..., dict[str, Any]]] = {"sft": sft_values, "rl": rl_values}


def recipe(folder: Path, values: Mapping[str, Any], name: str = "recipe") -> Path:
    """The recipe's file."""
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(values))
    return file


def start(verb: str, file: Path, run: Path, *words: str, **how: Any) -> Run:
    """``revelm`` in a process of its own."""
    return Run(verb, file, "--out", run, *words, said=run.with_suffix(".txt"), **how)


def finished(verb: str, file: Path, run: Path, *words: str, **how: Any) -> Path:
    """The run, once it has ended well."""
    code, said = start(verb, file, run, *words, **how).finish()
    assert code == 0, said
    return run


@pytest.fixture(scope="module")
def straight(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One uninterrupted run of each verb."""
    folder = tmp_path_factory.mktemp("straight")
    files = {verb: recipe(folder, values(model, steps=STEPS), verb) for verb, values in VALUES.items()}
    return {verb: finished(verb, file, folder / verb) for verb, file in files.items()}


def wait_for(condition: Callable[[], bool], run: Run) -> None:
    """Poll until ``condition`` holds; fails when the run ends before, or nothing happens for too long."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert not run.is_over(), f"ended too early: {run.finish()}"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.0005)


def metrics(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without times; a last line that was cut short is left out, as a resumed run does."""
    lines = (run / "metrics.jsonl").read_text().split("\n")[:-1]
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("seconds")} for line in lines]


def last_saved(run: Path) -> int:
    """The step of the newest checkpoint, which must be whole; 0 where there is none."""
    newest = latest_checkpoint(run)
    if newest is None:
        return 0
    load_file(newest / "model.safetensors")
    step = int(json.loads((newest / "trainer" / "state.json").read_text())["step"])
    assert newest.name == f"checkpoint-{step}"
    return step


def begun(run: Path) -> int:
    """The step of the newest checkpoint, though it be under way; 0 where there is none."""
    return max([0, *(int(p.name.split("-")[1].split(".")[0]) for p in run.glob("*checkpoint-*"))])


def state_of(checkpoint: Path) -> dict[str, Any]:
    """All that a checkpoint holds: weights, optimisers, random states, cursor; of the policy and of a critic."""
    files = {file.relative_to(checkpoint): load_file(file) for file in checkpoint.rglob("*.safetensors")}
    states = {p.relative_to(checkpoint): read_state(p) for p in checkpoint.rglob("trainer/optimizer")}
    tensors = {f"{part}: {name}": t for part, held in (files | states).items() for name, t in held.items()}
    random_states = torch.load(checkpoint / "trainer" / "rng.pt", weights_only=True)
    cursor = json.loads((checkpoint / "trainer" / "state.json").read_text())
    return {**tensors, **random_states, "cursor": cursor}


def assert_same_end(one: Path, other: Path, step: int) -> None:
    """Everything that two finished runs hold is equal bit for bit: checkpoints, metrics, and each answer."""
    first, second = (state_of(run / f"checkpoint-{step}") for run in (one, other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name], name
    assert metrics(one) == metrics(other)
    for file in sorted((one / "trajectories").glob("*.parquet")):
        ours, theirs = (read_trajectories(run / "trajectories" / file.name) for run in (one, other))
        for a, b in zip(ours, theirs, strict=True):
            assert (a.info, a.completion_ids.tolist()) == (b.info, b.completion_ids.tolist())
            assert (a.step.tolist(), a.logprob.tolist()) == (b.step.tolist(), b.logprob.tolist())


def check_end(verb: str, run: Path, model: Path, straight: Mapping[str, Path]) -> int:
    """``run`` goes on to the end of a run that was never interrupted, and is the same; returns the step of its end. It
    may have got beyond that of the straight one, on a machine where this process had to wait."""
    steps = max(STEPS, last_saved(run) + 1)
    file = recipe(run.parent, VALUES[verb](model, steps=steps), "end")
    whole = straight[verb] if steps == STEPS else finished(verb, file, run.with_name("whole"))
    assert_same_end(whole, finished(verb, file, run, "--resume"), steps)
    return steps


def assert_every_problem_once(run: Path, steps: int) -> None:
    """The answers of steps 1, 2, ... are to the problems of the run's stream, from its first one on, each once."""
    rows = metrics(run)
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    asked = []
    for row in rows:
        found = read_trajectories(run / "trajectories" / f"step-{row['step']}.parquet")
        assert len(found) == row["num_answers"]
        asked += [t.info["problem"] for t in found[::GROUP]]
    problems = Parity().problems("train")
    assert asked == [problems[place].id for place in stream(0, range(len(asked)), len(problems))]
    cursor = state_of(run / f"checkpoint-{steps}")["cursor"]
    assert (cursor["step"], cursor["problems_drawn"]) == (steps, len(asked))


@pytest.mark.parametrize(
    ("method", "phases"),
    [
        ({}, ["rollout", "update", "save", "metrics"]),
        (OWN, ["update", "save", "start"]),
        (SHARED, ["trajectories", "save", "rollout"]),
    ],
    ids=["rl", "value", "shared_value"],
)
def test_ten_kills(tiny: Path, tmp_path: Path, method: dict[str, Any], phases: list[str]) -> None:
    """Catches samples that are lost or trained twice, states saved at different moments, files cut in two, and a resume
    that trusts what was left behind. The moments are drawn from all calls within a phase of the run."""
    file = recipe(tmp_path, rl_values(tiny, steps=LIFE, save_every=SAVE_EVERY, **method))
    whole = finished("rl", file, tmp_path / "whole", counts=tmp_path / "counts.json")
    assert sum("loss" in row or "value_loss" in row for row in metrics(whole)) > LIFE // 2
    counts = json.loads((tmp_path / "counts.json").read_text())
    run, rng, redone, resumed = tmp_path / "run", random.Random(1), 0, set[int]()
    for phase in phases:
        reached = last_saved(run)
        steps = min(SAVE_EVERY + rng.randint(1, 2), LIFE - reached)
        entry = 1 if phase in ("start", "save") else steps
        moment = Moment(phase, entry, rng.randint(1, counts[phase][entry - 1]))
        code, said = start("rl", file, run, "--resume", moment=moment).finish()
        assert code == -signal.SIGKILL, f"{moment}: {said}"
        assert last_saved(run) >= reached
        resumed.add(last_saved(run))
        redone += (run / "metrics.jsonl").is_file() and len(metrics(run)) > last_saved(run)
    assert redone, "no kill cost a step; draw other moments"
    assert resumed - {0}, "it never went on from a checkpoint; draw other moments"
    finished("rl", file, run, "--resume")
    assert_same_end(whole, run, LIFE)
    assert_every_problem_once(run, LIFE)
    assert not [p for p in run.rglob(".*.tmp") if p.is_dir()]


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_kill_during_a_checkpoint(verb: str, model: Path, straight: dict[str, Path], tmp_path: Path) -> None:
    """Catches a half-written checkpoint that is resumed from, work lost beyond it, and steps done twice. The kills come
    from outside, in the middle of whatever the process does; but for one that is sure to hit a checkpoint."""
    file, run, rng = recipe(tmp_path, VALUES[verb](model, steps=100_000)), tmp_path / "run", random.Random(0)
    code, said = start(verb, file, run, moment=Moment("save", 2, 2000)).finish()
    assert code == -signal.SIGKILL, said
    assert (run / ".checkpoint-2.tmp").is_dir(), "it hit no checkpoint under way; draw another moment"
    for _ in range(KILLS):
        beyond = last_saved(run) + rng.randint(1, 5)
        process = start(verb, file, run, "--resume")
        wait_for(lambda step=beyond: begun(run) >= step, process)  # type: ignore[misc]
        time.sleep(rng.choice([0.0, 0.001, 0.003, 0.01]))
        process.send(signal.SIGKILL)
        assert process.finish()[0] == -signal.SIGKILL
        assert last_saved(run) >= beyond - 1, "the checkpoint before the one under way was lost"
    steps = check_end(verb, run, model, straight)
    assert [row["step"] for row in metrics(run)] == list(range(1, steps + 1))
    assert not list(run.glob(".*.tmp"))


@pytest.mark.parametrize(("verb", "number"), [("sft", signal.SIGINT), ("rl", signal.SIGINT), ("sft", signal.SIGTERM)])
def test_polite_stop(verb: str, number: signal.Signals, model: Path, straight: dict[str, Path], tmp_path: Path) -> None:
    """Catches Ctrl-C that loses the steps since the last save, ends in a traceback or passes for a success."""
    file, run = recipe(tmp_path, VALUES[verb](model, steps=100_000)), tmp_path / "run"
    process = start(verb, file, run, "train.save_every=0")
    wait_for(lambda: (run / "metrics.jsonl").is_file() and len(metrics(run)) >= 3, process)
    process.send(number)
    code, errors = process.finish()
    assert code == 130
    assert "Traceback" not in errors
    assert "resume=true" in errors.splitlines()[-1]
    done = int(metrics(run)[-1]["step"])
    assert (run / "LATEST").read_text() == f"checkpoint-{done}\n"
    check_end(verb, run, model, straight)


def children(process: int) -> dict[int, str]:
    """The processes that torchrun has started: rank by id."""
    ids = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    words = {int(i): Path(f"/proc/{i}/environ").read_text().split("\0") for i in ids}
    return {i: word.removeprefix("RANK=") for i, found in words.items() for word in found if word.startswith("RANK=")}


def test_one_of_two_processes_is_killed(tiny: Path, tmp_path: Path) -> None:
    """Catches a process that waits for a dead one for ever, and a run that only as many processes can go on with."""
    values = rl_values(tiny, steps=100_000, save_every=SAVE_EVERY, model={"path": str(tiny), "dtype": "float64"})
    file, run = recipe(tmp_path, values), tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "revelm"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    process = subprocess.Popen(
        [*command, "rl", str(file), "--out", str(run)], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + PATIENCE
        while not (run / "LATEST").is_file():
            assert process.poll() is None, "torchrun ended too early"
            assert time.monotonic() < end, "nothing happened"
            time.sleep(0.01)
        found = children(process.pid)
        assert sorted(found.values()) == ["0", "1"]
        os.kill(next(i for i, rank in found.items() if rank == "1"), signal.SIGKILL)
        assert process.wait(PATIENCE) > 0
        assert not [i for i in found if Path(f"/proc/{i}").exists()], "a process survived"
    finally:
        process.kill()
    steps = last_saved(run) + 2
    whole = finished("rl", file, tmp_path / "whole", f"train.steps={steps}")
    finished("rl", file, run, "--resume", f"train.steps={steps}")
    assert_every_problem_once(run, steps)
    for a, b in zip(metrics(whole), metrics(run), strict=True):
        assert a.pop("phase") == b.pop("phase")
        assert a == pytest.approx(b, rel=1e-6, abs=1e-9)
    first, second = (load_file(one / f"checkpoint-{steps}" / "model.safetensors") for one in (whole, run))
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=1e-6, atol=1e-9)
