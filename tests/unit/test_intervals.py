"""Intervals judged by what they promise: the truth lies inside 95 times in 100."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from revelm.eval.intervals import average, is_above, proportion, ratio

ROUNDS = 600


def coverage(draw: Callable[[np.random.Generator], dict[str, float]], truth: float) -> float:
    """How often ``draw``'s interval holds ``truth``."""
    rng = np.random.default_rng(0)
    found = [draw(rng) for _ in range(ROUNDS)]
    assert all(f["low"] <= f["mean"] <= f["high"] for f in found)
    return float(np.mean([f["low"] <= truth <= f["high"] for f in found]))


@pytest.mark.parametrize(("truth", "count"), [(0.5, 40), (0.05, 60), (0.97, 100)])
def test_independent_answers_are_covered(truth: float, count: int) -> None:
    """Catches the plain normal interval, which covers a rate near 0 or 1 far too rarely."""
    seen = coverage(lambda rng: proportion((rng.random(count) < truth).astype(float), range(count)), truth)
    assert 0.92 <= seen <= 0.99


def clustered(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """8 answers to each of 60 problems whose difficulty varies a lot; the mean is 0.4."""
    rate = rng.beta(0.8, 1.2, size=60)
    return (rng.random((60, 8)) < rate[:, None]).astype(float).ravel(), np.repeat(np.arange(60), 8)


def test_clustered_answers_are_covered() -> None:
    """Catches intervals that take answers to one problem for independent ones: they cover about 65 %."""
    assert 0.92 <= coverage(lambda rng: proportion(*clustered(rng)), 0.4) <= 0.98
    naive = coverage(lambda rng: (lambda x: proportion(x, range(len(x))))(clustered(rng)[0]), 0.4)
    assert naive < 0.85


def test_ratio_and_average_of_clusters_are_covered() -> None:
    """Catches a ratio whose interval ignores that numerator and denominator vary together, or the clusters."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        forwards = np.repeat(rng.integers(5, 40, size=50), 4) + rng.integers(0, 3, size=200)
        speed = np.repeat(rng.normal(2.0, 0.4, size=50), 4)
        return forwards * speed + rng.normal(0, 1, 200), forwards.astype(float), np.repeat(np.arange(50), 4)

    assert 0.91 <= coverage(lambda rng: ratio(*draw(rng)), 2.0) <= 0.98
    assert 0.91 <= coverage(lambda rng: (lambda d: average(d[1], d[2]))(draw(rng)), 23.0) <= 0.98


def test_numbers_by_hand() -> None:
    """Catches the exact interval mistyped, and counts of problems where answers are meant."""
    found = proportion([1.0] * 8 + [0.0] * 2, range(10))
    assert found["mean"] == 0.8
    assert found["n"] == 10
    assert (found["low"], found["high"]) == pytest.approx((0.44390, 0.97479), abs=1e-5)
    assert ratio([2.0, 4.0], [1.0, 3.0], [0, 1])["mean"] == 1.5
    assert average([1.0, 2.0, 6.0], [0, 1, 2])["mean"] == 3.0


def test_edges_are_finite_or_say_nothing() -> None:
    """Catches a division by zero for empty data, and intervals that leave [0, 1]."""
    assert proportion([], [])["n"] == 0
    assert math.isnan(proportion([], [])["mean"])
    assert math.isnan(ratio([], [], [])["mean"])
    for value in (0.0, 1.0):
        found = proportion([value] * 5, [0, 0, 1, 1, 2])
        assert 0.0 <= found["low"] <= value <= found["high"] <= 1.0
        assert found["high"] - found["low"] > 0.1
    assert proportion([0.0, 1.0, 1.0], [4, 4, 4])["n"] == 3


def test_is_above_needs_separate_intervals() -> None:
    """Catches a comparison of means where intervals are meant."""
    low, high = {"mean": 0.2, "low": 0.1, "high": 0.3}, {"mean": 0.5, "low": 0.31, "high": 0.6}
    assert is_above(high, low)
    assert not is_above({**high, "low": 0.3}, low)
    assert not is_above(low, high)
