"""Regular expressions as rewards, and starts of workers that fail now and then."""

import pytest

from revelm.core.errors import RunError
from revelm.core.types import Completion, Problem, Score
from revelm.rewards.answer_format import Format
from revelm.rewards.regex_match import Regex
from revelm.rewards.reward import Judged
from revelm.rollout.part_rewards import ratings_of
from revelm.rollout.score_round import ScoreRound
from tests.guarded_tasks import Obedient


def judged(*texts: str, reference: str = "") -> list[Judged]:
    """Answers to a problem whose ``info`` no process could send to another."""
    problem = Problem("p", "", reference, {"live": lambda: 0})
    return [Judged(problem, Completion(text, 1, 1, "stop"), Score(0.0, {"correct": 0.0})) for text in texts]


def test_a_pattern_that_takes_for_ever_ends() -> None:
    """Catches a training run that hangs for good at one answer, because of an expression with nested repetitions."""
    answers = judged("a" * 40 + "!", "aab", "")
    assert ratings_of("regex", Regex("(a+)+b"), answers).values == (0.0, 1.0, 0.0)
    assert ratings_of("format", Format(pattern="a+b"), answers).values == (0.0, 1.0, 0.0)
    assert ratings_of("regex", Regex(), judged("x")).values == (None,)
    assert ratings_of("regex", Regex(), judged("x", reference="[a-z]")).values == (1.0,)


def test_workers_that_fail_to_start_now_and_then() -> None:
    """Catches a long run that ends because five workers, over days, were killed before they had begun."""
    work = ScoreRound(Obedient())
    work.add((Problem(str(i), "", ""), Completion("", 1, 1, "stop")) for i in range(3))
    said = {"value": 1.0, "breakdown": {"correct": 1.0}, "scope": "outcome", "reason": ""}
    for place in range(3):
        for _ in range(4):
            work.count_failed_start("SIGKILL")
        work.settle(place, said, cpu=0.0, wall=0.0)
    assert work.is_done
    for _ in range(4):
        work.count_failed_start("SIGKILL")
    with pytest.raises(RunError, match=r"its reward workers do not start \(SIGKILL\)"):
        work.count_failed_start("SIGKILL")
