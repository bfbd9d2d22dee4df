"""What every reward of whole answers promises. A kind in the registry is enrolled by an example of its fields."""

import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import pytest

from revelm.core import registry
from revelm.core.types import Completion, Problem, Score
from revelm.rewards.reward import BatchReward, Judged, Reward, SeededReward

NASTY = ("", " ", "\x00", "\ud800", "🙂" * 500, "\\boxed{", "\\boxed{}" * 99, "{" * 5000, "1234\n" * 999, "-0", "None")
NASTY += ("<answer>" * 3000, "<think>" * 3000, "answer is " * 3000, "(" * 5000, "\\boxed{B}", "</answer><answer>", "B")
REFERENCES = ("B", "12", "", "\\frac{1}{2}", "(", "a" * 3000)
# What a kind cannot do without, and where it is asked nothing of the network.
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "cosine_length": {"limit": 10},
    "format": {"tags": ["think", "answer"], "has_box": True, "pattern": ".*"},
    "function": {"path": f"{__name__}:length_of"},
    "judge_outcome": {"judge": {"base_url": "http://127.0.0.1:9", "model": "m"}},
    "length": {"limit": 10},
}


def length_of(completions: list[Any], **_: Any) -> list[float]:
    """A function as users write them."""
    return [float(len(completion[0]["content"])) for completion in completions]


@dataclass(frozen=True)
class Shout:
    """A reward as a user would write it."""

    worth: float = 1.0

    def rate(self, answer: Judged) -> float | None:
        return self.worth * answer.completion.text.count("!")


@dataclass(frozen=True)
class Endless(Shout):
    """A broken reward: it gives no finite number."""

    def rate(self, answer: Judged) -> float | None:
        return float("inf")


def judged(text: str, reference: str = "", *, correct: float = 1.0, tokens: int = 5, forwards: int = 2) -> Judged:
    """An answer."""
    completion = Completion(text, tokens, forwards, "stop")
    problem = Problem("p:1", "q", reference)
    return Judged(problem, completion, Score(correct, {"correct": correct}), ({"role": "user", "content": "q"},))


def answers() -> list[Judged]:
    """Every odd text with every odd reference."""
    return [
        judged(text, reference, correct=float(tokens % 2), tokens=tokens, forwards=forwards)
        for text in NASTY
        for reference in REFERENCES
        for tokens, forwards in ((0, 0), (1, 1), (10**6, 3))
    ]


def values(reward: Any, given: list[Judged]) -> list[float | None]:
    """What a reward says, however it is asked."""
    if isinstance(reward, BatchReward):
        return list(reward.rate_all(given).values)
    assert isinstance(reward, Reward)
    return [reward.rate(answer) for answer in given]


def check_is_finite_and_deterministic(reward: Any) -> None:
    """A finite number or None for every text, the same one from an equal reward in another process."""
    twin = pickle.loads(pickle.dumps(reward))
    assert twin == reward
    if isinstance(reward, SeededReward):
        assert isinstance(reward.open(0), BatchReward)
        return
    found = values(reward, answers())
    assert all(value is None or (isinstance(value, float) and isfinite(value)) for value in found)
    assert values(twin, answers()) == found
    assert values(reward, answers()[::-1])[::-1] == found


@pytest.mark.parametrize("name", registry.names("rewards"))
def test_registered_rewards_keep_their_promises(name: str) -> None:
    """Catches a reward that raises or is not finite for some text, and one that depends on order or on chance."""
    check_is_finite_and_deterministic(registry.build("rewards", {"kind": name, **EXAMPLES.get(name, {})}))


def test_a_new_reward_is_enrolled_by_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches checks that know their subjects by name: a reward from outside runs through the same ones."""
    monkeypatch.setitem(registry.REWARDS, "new", f"{__name__}:Shout")
    assert "new" in registry.names("rewards")
    check_is_finite_and_deterministic(registry.build("rewards", {"kind": "new", "worth": 2.0}))
    check_is_finite_and_deterministic(registry.build("rewards", {"kind": f"{__name__}:Shout"}))
    with pytest.raises(AssertionError):
        check_is_finite_and_deterministic(Endless())


def test_rating_needs_no_torch() -> None:
    """Catches an import that makes every reward worker load gigabytes, in a process of its own."""
    examples = {**EXAMPLES, "function": {"path": "math:sqrt", "convention": "trl"}}
    code = (
        "import sys\nfrom revelm.core.registry import build, names\n"
        f"examples = {examples!r}\n"
        "for name in names('rewards'):\n    build('rewards', {'kind': name, **examples.get(name, {})})\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    source = Path(__file__).resolve().parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(source)}, check=False
    )
    assert done.returncode == 0, done.stderr
