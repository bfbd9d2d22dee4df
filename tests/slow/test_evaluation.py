"""Evaluations that are shared over processes and killed again and again; how often intervals hold the truth."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.coverage import measured
from revelm.cli.main import main
from tests.e2e.test_evaluation import SETTINGS, TASKS, assert_same
from tests.killable import Moment, Run
from tests.tiny_checkpoint import save_tiny

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("evaluation")]

ROOT = Path(__file__).parents[2]
PATIENCE = 900.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, a recipe, and an evaluation that was never stopped (whole)."""
    folder = tmp_path_factory.mktemp("evaluation")
    save_tiny(folder / "model", max_position_embeddings=256)
    recipe = {"model": str(folder / "model"), "tasks": TASKS, "settings": SETTINGS, "max_new_tokens": 8, "n": 2}
    (folder / "eval.yaml").write_text(json.dumps({**recipe, "save_every": 2}))
    assert main(["eval", str(folder / "eval.yaml"), "--out", str(folder / "whole")]) == 0
    return folder


def torchrun(size: int, *words: object) -> Any:
    """`revelm eval` under ``size`` processes."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={size}",
        "-m",
        "revelm",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(
        [*command, "eval", *map(str, words)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("size", [2, 3])
def test_processes_find_what_one_finds(folder: Path, tmp_path: Path, size: int) -> None:
    """Catches answers that depend on who draws them, problems asked twice, and a second process that speaks."""
    run = torchrun(size, folder / "eval.yaml", "--out", tmp_path / "out", "--format", "json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["environment"]["processes"] == size
    assert_same(folder / "whole", tmp_path / "out")


def test_kills_at_random_moments_change_nothing(folder: Path, tmp_path: Path) -> None:
    """Catches a state between two writes from which an evaluation cannot go on, or goes on wrongly; the end is done by
    another number of processes than the beginning."""
    rng = random.Random(0)
    words = ["eval", folder / "eval.yaml", "--out", tmp_path / "out", "--resume"]
    for attempt in range(5):
        moment = Moment("trajectories", rng.randint(1, 2), rng.randint(1, 4000))
        code, said = Run(*words, said=tmp_path / f"{attempt}.txt", moment=moment).finish()
        if code == 0:
            break
        assert code == -9, said
    run = torchrun(2, *words[1:])
    assert run.returncode == 0, run.stderr
    assert_same(folder / "whole", tmp_path / "out")


def test_intervals_hold_the_truth() -> None:
    """Catches intervals of accuracies and of pass@k that cover less than 93 % where problems differ in difficulty, or
    where a few are always solved among hopeless ones."""
    short = [row for row in measured(rounds=120) if row.worst < 0.883]  # 0.93 less two standard errors
    assert short == []
