"""Group-relative credit by hand-computed numbers."""

import numpy as np
import pytest

from revelm.objectives.batch import Episode
from revelm.objectives.credit import group_credit
from revelm.objectives.trace_rl import TraceRL
from revelm.trajectories.record import Trajectory

NOTHING = np.zeros(0)
EMPTY = Trajectory(
    prompt_ids=np.array([5], dtype=np.int32),
    completion_ids=np.zeros(0, dtype=np.int32),
    step=NOTHING,
    forward=NOTHING,
    logprob=NOTHING,
    logprob_t1=NOTHING,
    confidence=NOTHING,
    num_steps=0,
    block_size=4,
    grid_offset=0,
    stop_length=0,
    finish_reason="length",
    rule={"kind": "static"},
    sampling={"temperature": 1.0},
)


def episodes(groups: list[int], scores: list[float]) -> list[Episode]:
    """Episodes whose keys number them."""
    return [Episode(EMPTY, s, g, key) for key, (g, s) in enumerate(zip(groups, scores, strict=True))]


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("mean", [-1.5, -0.5, 2.0, 0.25, -0.25]),
        # Group 0: deviations -1.5, -0.5, 2, variance 6.5 / 3. Group 7: deviations 0.25, -0.25.
        ("zscore", [-1.5 / (6.5 / 3) ** 0.5, -0.5 / (6.5 / 3) ** 0.5, 2.0 / (6.5 / 3) ** 0.5, 1.0, -1.0]),
        # Score minus the mean of the others: 0 - 2.25, 1 - 1.75, 3.5 - 0.5; 0.5 - 0, 0 - 0.5.
        ("leave_one_out", [-2.25, -0.75, 3.0, 0.5, -0.5]),
    ],
)
def test_by_hand(estimator: str, expected: list[float]) -> None:
    """Catches the sample standard deviation for the population's, and a mean that includes the answer itself."""
    samples = episodes([0, 0, 0, 7, 7], [0.0, 1.0, 3.5, 0.5, 0.0])
    found = group_credit(samples, estimator)
    assert [s.credit for s in found] == pytest.approx(expected, rel=1e-12)
    assert [s.key for s in found] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("estimator", ["zscore", "mean", "leave_one_out"])
def test_groups_without_signal_are_left_out(estimator: str) -> None:
    """Catches 0 / 0, a rounding error blown up to credit 1, and interleaved groups taken for neighbours."""
    samples = episodes([1, 2, 1, 2, 3, 1, 4], [0.1, 1.0, 0.1, 0.0, 0.7, 0.1, 0.2])
    found = group_credit(samples, estimator)
    assert [s.key for s in found] == [1, 3]
    assert all(np.isfinite(s.credit) for s in found)
    assert found[0].credit > 0 > found[1].credit
    assert group_credit(episodes([0, 0], [1.0, 1.0]), estimator) == []
    assert group_credit([], estimator) == []


def test_differences_too_small_to_measure_are_no_signal() -> None:
    """Catches a standard deviation that underflows to 0 although the scores differ."""
    assert group_credit(episodes([0, 0], [0.0, 1e-200]), "zscore") == []


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_scores_must_be_finite(score: float) -> None:
    """Catches a NaN from a judge that silently empties or poisons its group."""
    with pytest.raises(ValueError, match=r"score of sample 2 \(group 5\)"):
        group_credit(episodes([5, 5, 5], [0.0, 1.0, score]), "zscore")


def test_unknown_estimator_is_named() -> None:
    """Catches a typo that falls through to some other estimator."""
    with pytest.raises(ValueError, match=r"objective.advantage is 'z_score', allowed: 'zscore'"):
        group_credit(episodes([0, 0], [0.0, 1.0]), "z_score")  # type: ignore[arg-type]


def test_objective_uses_its_estimator() -> None:
    """Catches a setting that is read by nobody."""
    samples = episodes([0, 0], [0.0, 4.0])
    assert [s.credit for s in TraceRL(advantage="mean").credit(samples)] == [-2.0, 2.0]
    assert [s.credit for s in TraceRL(advantage="zscore").credit(samples)] == [-1.0, 1.0]
