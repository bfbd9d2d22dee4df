"""Steps of training are whole or have not been: what is saved when updates fail, whose schedule it is, whose noise."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from revelm.core.config import parse_config
from revelm.data.stream import stream
from revelm.objectives.batch import Batch, Loss, Scored, Text
from revelm.objectives.block_sft import BlockSFT
from revelm.objectives.policy import PolicyObjective
from revelm.trainers import rl
from revelm.trainers.config import RLConfig
from revelm.trainers.saved_state import read_state
from revelm.trainers.sft import _samples
from tests.models import sharp_model
from tests.tiny_checkpoint import save_tiny

JUDGE = PolicyObjective.judge


def config_of(folder: Path, **changes: Any) -> RLConfig:
    """Four steps of two problems, two updates each, with a critic."""
    values = {
        "model": {"path": str(folder / "model")},
        "task": "tests.toy_tasks:Parity",
        "rollout": {"problems_per_step": 2, "group_size": 4, "max_new_tokens": 4},
        "updates_per_step": 2,
        "value": {"backbone": "own"},
        "optimizer": {"learning_rate": 1e-3, "max_skipped": 3},
        "train": {"steps": 4, "max_positions": 200, "save_every": 4},
        "out": str(folder / "run"),
    }
    return parse_config(RLConfig, values | changes)


def state_of(folder: Path, step: int) -> tuple[int, list[int], list[int]]:
    """Problems drawn, and the policy's and the critic's (updates, skipped, skipped in a row), of a checkpoint."""
    place = folder / "run" / f"checkpoint-{step}"
    drawn = json.loads((place / "trainer" / "state.json").read_text(encoding="utf-8"))["problems_drawn"]
    counts = [read_state(place / who / "trainer" / "optimizer")["counts"].tolist() for who in ("", "critic")]
    return drawn, counts[0], counts[1]


def test_a_run_that_gives_up_saves_whole_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a checkpoint of half a step: problems that are never asked again, a critic that learns from a step twice;
    and a run that gives up again at its first bad update."""
    save_tiny(tmp_path / "model")
    calls: list[bool] = []

    def judge(self: PolicyObjective, scored: Scored, batch: Batch) -> Loss:
        calls.append(3 <= len(calls) < 6)  # the second update of step 2, and both of step 3
        loss = JUDGE(self, scored, batch)
        return replace(loss, sum=loss.sum * float("nan")) if calls[-1] else loss

    monkeypatch.setattr(PolicyObjective, "judge", judge)
    with pytest.raises(
        FloatingPointError, match=r"3 times in a row .*since update 3; .*lower optimizer\.learning_rate"
    ):
        rl.run(config_of(tmp_path))
    assert state_of(tmp_path, 3) == (6, [3, 3, 3], [6, 0, 0])
    rl.run(config_of(tmp_path, resume=True))
    assert state_of(tmp_path, 4) == (8, [5, 3, 0], [8, 0, 0])


@pytest.mark.parametrize("backbone", ["own", "shared"])
def test_the_policys_schedule_begins_with_the_policy(backbone: str, tmp_path: Path) -> None:
    """Catches a critic's warm-up, in which a shared optimiser takes updates, that uses up the policy's: its first
    update would be at full rate. Also where the run was interrupted in between."""
    save_tiny(tmp_path / "model")
    optimizer = {"learning_rate": 1e-3, "warmup_steps": 2, "schedule": "linear"}
    told = {"value": {"backbone": backbone, "warmup_steps": 2}, "updates_per_step": 1, "optimizer": optimizer}
    for steps in (3, 6):
        rl.run(config_of(tmp_path, **told, resume=True, train={"steps": steps, "max_positions": 200}))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["phase"] == "rl"]
    assert [("ratio" in row) for row in rows] == [False] * 2 + [True] * 4
    found = [row["learning_rate"] for row in rows[2:]]
    assert found == pytest.approx([0.5e-3, 1e-3, 1e-3, 0.0], abs=1e-12)


def test_a_text_that_comes_twice_in_a_step_is_hidden_twice() -> None:
    """Catches one draw of noise for all its copies, as where there are fewer texts than a batch has places."""
    rng, family = np.random.default_rng(0), sharp_model().family
    texts = [Text(rng.integers(0, 40, 24), 4, key) for key in range(5)]
    places = stream(0, range(12), 5)
    found = _samples(texts, places)
    assert len({text.key for text in found}) == 12
    assert [text.ids.tolist() for text in found] == [texts[i].ids.tolist() for i in places]
    assert [text.key for text in _samples(texts, range(5))] == list(range(5))
    rows = BlockSFT().prepare(found, family, 3).tokens
    first = [n for n, i in enumerate(places) if i == places[0]]
    assert len(first) > 1
    assert not torch.equal(*rows[first[:2]])


def test_a_soft_limit_without_a_limit(tmp_path: Path) -> None:
    """Catches a comparison with nothing, where ``max_new_tokens`` is left to its default."""
    shaping = {"overlong": "soft", "overlong_buffer": 255}
    rollout = {"problems_per_step": 2, "group_size": 4}
    parts: dict[str, Any] = {"value": None, "rollout": rollout}
    assert config_of(tmp_path, shaping=shaping, **parts).rollout.max_new_tokens is None
    with pytest.raises(ValueError, match="overlong_buffer is 256, but an answer has at most 256 tokens"):
        config_of(tmp_path, shaping={**shaping, "overlong_buffer": 256}, **parts)


@pytest.mark.parametrize(("backbone", "rate"), [("own", None), ("own", 0.02), ("shared", None), ("shared", 0.02)])
def test_the_head_of_a_critic_has_a_rate_of_its_own(backbone: str, rate: float | None, tmp_path: Path) -> None:
    """Catches a field that nothing reads: Adam's first step is as long as the rate, whatever the gradient."""
    save_tiny(tmp_path / "model")
    value = {"backbone": backbone, "head_learning_rate": rate} | ({"learning_rate": 4e-3} if backbone == "own" else {})
    train = {"steps": 1, "max_positions": 200}
    rl.run(config_of(tmp_path, value=value, updates_per_step=1, train=train))
    head = load_file(tmp_path / "run" / "checkpoint-1" / "critic" / "value_head.safetensors")
    expected = rate or {"own": 4e-3, "shared": 1e-3}[backbone]
    assert float(next(iter(head.values())).abs().median()) == pytest.approx(expected, rel=0.02)
