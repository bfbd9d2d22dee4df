"""The answers of worksheets judged as text, as mathematics and as programs."""

import pickle

import pytest

from revelm.core.registry import build
from revelm.core.types import Completion, Score
from revelm.rollout.verdicts import verdicts
from revelm.rollout.workers import ScorePool
from revelm.tasks.chain import Chain
from revelm.tasks.chain_verdicts import Verdict

TEXTS = (
    "7+5=2\n\\boxed{2}",
    "\\boxed{3}",
    "\\boxed{ 2 }",
    "\\boxed{}",
    "\\boxed{2",
    "2",
    "",
    "\\boxed{2}\\boxed{3}",
    "\\boxed{22}",
    "\\boxed{'); import os; os._exit(0); ('}",
    "\\boxed{\n2}",
    "\x00",
    "\ud800",
)


def scores(verdict: Verdict) -> list[Score]:
    """What a worksheet whose answer is 2 gets for all texts."""
    task = Chain(verdict=verdict)
    problem = next(p for p in task.problems("train") if p.reference == "2")
    return verdicts(task, [(problem, Completion(text, 5, 2, "stop")) for text in TEXTS])


@pytest.mark.parametrize("verdict", ["math", "code"])
def test_all_ways_reach_the_same_verdict(verdict: Verdict) -> None:
    """Catches a way on which a right answer is lost, or a program in the box that is run as one."""
    plain = scores("exact")
    found = scores(verdict)
    for text, one, other in zip(TEXTS, plain, found, strict=True):
        assert (other.value, other.breakdown["correct"]) == (one.value, one.breakdown["correct"]), text
        assert "error" not in other.breakdown, other.reason
        assert other.breakdown["has_box"] == one.breakdown["has_box"], text


def test_cheap_verdicts_need_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a quickstart that starts worker processes to compare two digits."""

    def refuses(self: ScorePool, num_workers: int | None = None, *, memory_mb: int = 0) -> None:
        raise AssertionError("a pool was opened")

    monkeypatch.setattr(ScorePool, "__init__", refuses)
    assert [score.value for score in scores("exact")][:2] == [1.0, 0.0]
    assert (Chain().score_seconds, Chain(verdict="code").score_seconds) == (0.0, 5.0)


def test_the_way_is_part_of_the_task() -> None:
    """Catches a field that is lost on the way to a worker, and one that takes any word."""
    task = build("tasks", {"kind": "chain", "verdict": "code"})
    assert pickle.loads(pickle.dumps(task)) == task != Chain()
    with pytest.raises(ValueError, match=r"task\.verdict: .*'exact', 'math' or 'code'"):
        build("tasks", {"kind": "chain", "verdict": "guess"})
