"""Arms that train until they have spent a budget, with real runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.paper.arms import RL_ARMS
from benchmarks.paper.compute import compute_of, step_rows
from benchmarks.paper.place import Place
from benchmarks.paper.protocol import SMOKE
from benchmarks.paper.training import rl_configs, spend, tuned_start
from revelm.core.config import read_yaml

pytestmark = pytest.mark.slow


def test_an_arm_goes_on_until_its_budget_is_spent(tmp_path: Path) -> None:
    """Catches a run that is taken for another one when it is made longer, steps that are taken twice, and a second
    call that trains again."""
    name, scale = "b4-random", replace(SMOKE, start_steps=4, start_texts=16, rl_steps=2)
    place = Place(tmp_path, scale)
    config = rl_configs(name, 10, place, tuned_start("b4", 10, place))[0]
    out, changes = Path(config.out), RL_ARMS[name].stages[0][1]
    spend(config, changes, 0.0)
    assert [row["step"] for row in step_rows([out])] == [1, 2]
    each = compute_of(name, [out])["compute"] / 2
    spend(config, changes, 5.2 * each)
    steps = [row["step"] for row in step_rows([out])]
    assert steps == list(range(1, len(steps) + 1))
    assert abs(compute_of(name, [out])["compute"] - 5.2 * each) < each
    assert read_yaml(out / "config.yaml")["train"]["steps"] == len(steps) > 2
    before = (out / "metrics.jsonl").read_bytes()
    spend(config, changes, 5.2 * each)
    assert (out / "metrics.jsonl").read_bytes() == before
