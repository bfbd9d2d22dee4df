"""What an RL recipe has wrong is found before weights are loaded, and a run that learns nothing ends early."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from revelm.core.config import load_config, parse_config
from revelm.core.errors import RunError
from revelm.core.types import Completion, Problem, Score
from revelm.objectives.trace_rl import TraceRL
from revelm.parallel.world import World
from revelm.trainers import rl
from revelm.trainers.config import RLConfig, RolloutSpec
from revelm.trainers.learning import learn
from revelm.trainers.rl_recipe import settled
from revelm.trainers.session import find_start, open_session
from tests.families import save_family, tiny
from tests.toy_tasks import Parity
from tests.unit.test_critic import block_episodes

JUDGE = {"base_url": "http://127.0.0.1:9", "model": "j"}
SHARED = {"backbone": "shared"}


def values(**changes: Any) -> dict[str, Any]:
    """A recipe of few words."""
    rollout = {"problems_per_step": 2, "group_size": 2, "max_new_tokens": 4}
    fixed = {"model": {"path": "m"}, "train": {"steps": 3}, "out": "o", "task": "tests.toy_tasks:Parity"}
    return fixed | {"rollout": rollout} | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"reward": {"judge": JUDGE}, "value": SHARED, "shaping": {"speed_weight": 0.1}},
            "shaping.speed_weight changes scores of whole answers, but reward.judge gives rewards to steps",
        ),
        (
            {"reward": {"judge": JUDGE}, "value": SHARED, "shaping": {"overlong": "soft", "overlong_buffer": 2}},
            "shaping.overlong: 'soft' changes scores of whole answers",
        ),
        (
            {"shaping": {"overlong": "soft", "overlong_buffer": 4}},
            "shaping.overlong_buffer is 4, but an answer has at most 4 tokens .rollout.max_new_tokens.",
        ),
        ({"value": {"warmup_steps": 3}}, "value.warmup_steps is 3 and train.steps 3, .* must be less"),
        (
            {"value": {}, "model": {"path": "m", "lora": {"rank": 2}}},
            "value.backbone: 'own' .* an adapter .model.lora.; use 'shared', or name a checkpoint .* value.path",
        ),
        (
            {"value": {}, "model": {"path": "m", "lora": {"rank": 2}, "quantize": "nf4"}},
            "value.backbone: 'own' .* nf4 weights",
        ),
    ],
)
def test_fields_that_do_not_go_together(changes: dict[str, Any], words: str) -> None:
    """Catches a recipe that is refused in its first step, or trains nothing, hours after it was started."""
    with pytest.raises((ValueError, ValidationError), match=words):
        parse_config(RLConfig, values(**changes))


def test_fields_that_do_go_together() -> None:
    """Catches refusals of what is one step, or one word, away from the above."""
    judged = {"reward": {"judge": JUDGE}, "value": SHARED}
    for changes in (
        judged | {"shaping": {"overlong": "zero"}},
        {"shaping": {"overlong": "soft", "overlong_buffer": 3}},
        {"value": {"warmup_steps": 2}},
        {"value": {"path": "v"}, "model": {"path": "m", "lora": {"rank": 2}}},
        {"value": SHARED, "model": {"path": "m", "lora": {"rank": 2}}},
    ):
        assert parse_config(RLConfig, values(**changes))


def test_recorded_numbers_of_other_contexts() -> None:
    """Catches ratios, and weights, from log-probabilities of contexts that are not those that are trained."""
    block, full = tiny("sdar").family, tiny("llada").family
    smaller, approximate = RolloutSpec(block_size=2), RolloutSpec(cache="dual")
    recorded, weighed = TraceRL(behaviour="recorded"), TraceRL(importance="truncated")
    with pytest.raises(ValueError, match=r"objective.behaviour is 'recorded', .* blocks of 2 .rollout.block_size."):
        settled(recorded, smaller, block)
    with pytest.raises(ValueError, match=r"objective.behaviour is 'recorded', .* approximate cache .rollout.cache."):
        settled(recorded, approximate, full)
    with pytest.raises(
        ValueError, match=r"objective.importance is 'truncated', but .* blocks of 2 .rollout.block_size."
    ):
        settled(weighed, smaller, block)
    assert settled(weighed, approximate, full) == TraceRL(importance="truncated", behaviour="recomputed")
    assert settled(recorded, RolloutSpec(), block) == recorded
    assert settled(TraceRL(), smaller, block).needs == {"behaviour"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reward": {"judge": JUDGE | {"api_key_env": "NO_SUCH_KEY"}}, "value": SHARED}, "NO_SUCH_KEY' is not set"),
        (
            {"reward": {"reward_model": {"path": "/no/such/model"}}},
            "reward_model.path='/no/such/model': no reward model",
        ),
        ({"value": {"path": "/no/such/model"}}, "value.path: .*/no/such/model"),
        ({"rollout": {"max_new_tokens": 4, "temperature": 0}}, "rollout.temperature: 0 leaves nothing to chance"),
    ],
)
def test_what_is_not_there(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """Catches a key, a reward model, a value model or a difference between answers missed once the policy is loaded."""
    source = save_family("sdar", tmp_path / "model")
    (source / "model.safetensors").unlink()
    recipe = values(**changes) | {"model": {"path": str(source)}, "out": str(tmp_path / "run")}
    with pytest.raises(ValueError, match=words):
        rl.run(parse_config(RLConfig, recipe))
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        rl.run(parse_config(RLConfig, values() | {"model": {"path": str(source)}, "out": str(tmp_path / "run")}))


class Hopeless(Parity):
    """A task that nobody ever solves."""

    def score(self, problem: Problem, completion: Completion) -> Score:
        return Score(0.0, {"correct": 0.0})


def test_a_run_that_learns_nothing_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches thousands of steps of answers that all score alike, and an error at their end only."""
    monkeypatch.setattr(rl, "MAX_IDLE_STEPS", 3)
    recipe = values(task="tests.unit.test_rl_refusals:Hopeless", out=str(tmp_path / "run"), train={"steps": 50})
    recipe["model"] = {"path": str(save_family("sdar", tmp_path / "model"))}
    recipe["rollout"] |= {"max_attempts": 1}
    with pytest.raises(RunError, match=r"no answer of the first 3 steps carried a signal, .* a wider objective.group_"):
        rl.run(parse_config(RLConfig, recipe))
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("backbone", ["own", "shared"])
def test_no_policy_is_asked_while_the_value_warms_up(tmp_path: Path, backbone: str) -> None:
    """Catches forwards for log-probabilities that no loss reads: all those of a warm-up with a backbone of its own."""
    source = save_family("sdar", tmp_path / "model")
    words = [f"model.path={source}", f"out={tmp_path / 'run'}", "task=tests.toy_tasks:Parity", "train.steps=3"]
    words += [f"value={{backbone: {backbone}, warmup_steps: 1}}", "objective={kind: trace_rl, reference_weight: 0.1}"]
    config = load_config(RLConfig, None, words)
    objective = TraceRL(reference_weight=0.1, behaviour="recomputed")
    start = find_start(config)
    session = open_session(start, updates_per_step=1, world=World(), value=config.value, needs=objective.needs)
    assert session.reference is not None
    calls: list[str] = []
    for name, model in (("policy", session.model), ("reference", session.reference)):
        model.decoder.layers[0].register_forward_hook(lambda *_, name=name: calls.append(name))
    found = learn(session, objective, block_episodes(), config)
    assert "value_loss" in found
    assert set(calls) == (set() if backbone == "own" else {"policy"})
    session.step = 1
    assert "policy_loss" in learn(session, objective, block_episodes(), config)
    assert set(calls) == {"policy", "reference"}
