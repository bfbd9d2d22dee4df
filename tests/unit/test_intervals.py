"""Intervals judged by what they promise: the truth lies inside 95 times in 100."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from revelm.eval.beta import incomplete_beta, t_quantile
from revelm.eval.intervals import average, binomial, is_above, proportion, ratio, share_of_problems

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


def test_the_incomplete_beta_function_is_the_binomial_tail() -> None:
    """Catches a continued fraction that stops early, and the wrong end of it."""
    for size, rate in ((7, 0.2), (40, 0.5), (300, 0.97)):
        for hits in range(1, size + 1, max(1, size // 9)):
            tail = sum(math.comb(size, i) * rate**i * (1 - rate) ** (size - i) for i in range(hits, size + 1))
            assert incomplete_beta(hits, size - hits + 1, rate) == pytest.approx(tail, abs=1e-12)
    assert (incomplete_beta(2.0, 3.0, 0.0), incomplete_beta(2.0, 3.0, 1.0)) == (0.0, 1.0)


def test_a_third_and_two_thirds_have_an_interval() -> None:
    """Catches rounding at which either half of the incomplete beta function asks the other one, without end: where a
    third of a number of answers that is not whole are right, its argument lies right on the border."""
    assert incomplete_beta(10 / 7, 30.0, 0.07264957264957267) == pytest.approx(0.8095371667105521, abs=1e-12)
    for clusters in range(2, 60):
        for thirds in (1, 2):
            values = np.tile([1.0] * thirds + [0.0] * (3 - thirds), clusters)
            for each in (3, 6):
                found = proportion(values, np.arange(len(values)) // each)
                assert 0.0 <= found["low"] <= thirds / 3 <= found["high"] <= 1.0
    for size in np.linspace(2.0, 90.0, 400):
        for mean in (1 / 3, 2 / 3):
            low, high = binomial(mean, float(size))
            assert low < mean < high


def test_quantiles_of_students_t() -> None:
    """Catches the one-sided quantile, and the normal one for a few problems."""
    known = {1: 12.7062, 2: 4.30265, 5: 2.57058, 30: 2.04227, 1000: 1.96234}
    assert {freedom: t_quantile(freedom) for freedom in known} == pytest.approx(known, rel=1e-5)
    assert t_quantile(0) == math.inf


@pytest.mark.parametrize(
    ("count", "k", "truth", "size"), [(30, 16, 0.02, 0.4), (10, 16, 0.1, 1.5), (100, 4, 0.02, 0.4)]
)
def test_few_right_answers_that_go_together_are_covered(count: int, k: int, truth: float, size: float) -> None:
    """Catches a design effect estimated from one or two solved problems: such intervals cover 80 to 90 %.

    ``size``: of the beta distribution of the problems' rates.
    """

    def draw(rng: np.random.Generator) -> dict[str, float]:
        right = rng.binomial(k, rng.beta(truth * size, (1 - truth) * size, count))
        return proportion((np.arange(k) < right[:, None]).astype(float).ravel(), np.repeat(np.arange(count), k))

    assert coverage(draw, truth) >= 0.93


@pytest.mark.parametrize(("count", "share", "rate"), [(100, 0.02, 0.01), (500, 0.004, 0.01), (30, 1 / 15, 0.05)])
def test_a_few_that_are_always_solved_among_hopeless_ones_are_covered(count: int, share: float, rate: float) -> None:
    """Catches a design effect estimated from those that were asked alone, among which the few may be missing: such
    intervals cover 84 to 88 %."""

    def draw(rng: np.random.Generator) -> dict[str, float]:
        right = rng.binomial(16, np.where(rng.random(count) < share, 1.0, rate))
        return proportion((np.arange(16) < right[:, None]).astype(float).ravel(), np.repeat(np.arange(count), 16))

    assert coverage(draw, share + (1 - share) * rate) >= 0.93


def test_all_right_and_all_wrong_count_problems_not_answers() -> None:
    """Catches certainty from 16 answers to each of 5 problems that are all wrong."""
    found = proportion([0.0] * 80, np.repeat(np.arange(5), 16))
    assert found["high"] == pytest.approx(1 - 0.025 ** (1 / 5))
    assert proportion([1.0] * 8, [3] * 8) == {"mean": 1.0, "low": 0.0, "high": 1.0, "n": 8}


def test_estimates_of_problems_are_as_sure_as_their_answers() -> None:
    """Catches an interval for means of problems that is not the one for their answers."""
    rng = np.random.default_rng(0)
    answers = (rng.random((20, 8)) < rng.random((20, 1))).astype(float)
    one = proportion(answers.ravel(), np.repeat(np.arange(20), 8))
    other = share_of_problems(answers.mean(1), num_answers=160)
    assert [one[k] for k in ("mean", "low", "high")] == pytest.approx([other[k] for k in ("mean", "low", "high")])
    assert (one["n"], other["n"]) == (160, 20)
    assert share_of_problems([], num_answers=0)["n"] == 0
