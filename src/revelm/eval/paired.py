"""Whether two sets of answers to the same problems differ, problem by problem.

Let d be the difference of a problem's mean accuracies, second minus first. Their mean has the interval of Bonett and
Price (2012): two differences, 1 and -1, are added to the n that there are, and the usual interval is taken, here with
Student's t; it holds for one answer to each problem as for several, and has a width where nothing differed.

The p-value is exact. With as many answers on either side: of all ways to give the differences their signs, how many
have a sum at least as far from 0. For one answer to each problem that is McNemar's test; beyond 20 problems that
differ, signs are drawn 100,000 times (Phipson and Smyth 2010: never 0). With more answers on one side a difference is
not as likely to have either sign (one answer against many, at 90 %: often a little one way, seldom far the other).
There it is: of all ways to deal the answers to each problem out to both sides, how many have a sum as far from 0. Of
several comparisons, p-values are corrected for their number (Holm 1979).
"""

import math
from collections.abc import Sequence

import numpy as np

from revelm.core.seeds import derive_seed
from revelm.eval.beta import t_quantile

MAX_EXACT = 20
NUM_DRAWS = 100_000
MAX_LATTICE = 20_000
"""Steps from -1 to 1 on which sums of differences are counted exactly."""
ROUNDING = 1e-9
Pair = tuple[Sequence[float], Sequence[float]]
"""Whether each answer to a problem is right: those of the first, those of the second."""


def difference(d: np.ndarray) -> dict[str, float]:
    """Mean of differences in [-1, 1], one for each problem, and its 95 % interval."""
    count, mean = len(d) + 2, float(d.mean())
    centre = float(d.sum()) / count
    spread = (float((d**2).sum()) + 2) / count - centre**2
    half = t_quantile(len(d) + 1) * math.sqrt(spread / count)
    return {
        "mean": mean,
        "low": max(-1.0, min(mean, centre - half)),
        "high": min(1.0, max(mean, centre + half)),
        "n": len(d),
    }


def paired_p(pairs: Sequence[Pair], *, seed: int = 0) -> float:
    """The two-sided p-value of answers, 1 or 0 each, to the same problems."""
    if any(len(first) != len(second) for first, second in pairs):
        return dealt_p(pairs, seed=seed)
    return sign_flip_p(np.array([np.mean(second) - np.mean(first) for first, second in pairs]), seed=seed)


def sign_flip_p(d: np.ndarray, *, seed: int = 0) -> float:
    """Two-sided p-value of differences that are as likely to have either sign."""
    sizes = np.abs(d[np.abs(d) > ROUNDING])
    if len(sizes) == 0:
        return 1.0
    observed = abs(float(d.sum())) - ROUNDING
    if np.ptp(sizes) <= ROUNDING:
        return _mcnemar(int((d > ROUNDING).sum()), len(sizes))
    if len(sizes) <= MAX_EXACT:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate([sums + size, sums - size])
        return float((np.abs(sums) >= observed).mean())
    rng = np.random.default_rng(derive_seed(seed, "sign flips"))
    extreme = sum(
        int((np.abs((1 - 2.0 * rng.integers(0, 2, (1000, len(sizes)))) @ sizes) >= observed).sum())
        for _ in range(NUM_DRAWS // 1000)
    )
    return (extreme + 1) / (NUM_DRAWS + 1)


def dealt_p(pairs: Sequence[Pair], *, seed: int = 0) -> float:
    """Two-sided p-value of answers that are as likely to stand on either side of their problem.

    The right ones on the first side are then hypergeometric. Sums are counted on the grid of the differences where it
    has at most ``MAX_LATTICE`` steps, else drawn.
    """
    told = [(len(first), len(second), round(sum(first) + sum(second))) for first, second in pairs]
    observed = abs(sum(float(np.mean(second) - np.mean(first)) for first, second in pairs)) - ROUNDING
    told = [one for one in told if 0 < one[2] < one[0] + one[1]]
    if not told:
        return 1.0
    steps = math.lcm(*(n for one in told for n in one[:2]))
    if steps * len(told) > MAX_LATTICE * MAX_EXACT or steps > MAX_LATTICE:
        return _drawn_p(told, observed, seed=seed)
    chances = np.ones(1)
    for one in told:
        chances = np.convolve(chances, _dealt(*one, steps=steps))
    places = (np.arange(len(chances)) - (len(chances) - 1) // 2) / steps
    return min(1.0, float(chances[np.abs(places) >= observed].sum()))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are: the smallest times n, the next times n - 1, ...; never decreasing."""
    found, floor = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        floor = found[place] = max(floor, min(1.0, (len(values) - rank) * values[place]))
    return found


def _dealt(first: int, second: int, right: int, *, steps: int) -> np.ndarray:
    """The chance of each difference of a problem, from -1 to 1 in ``steps`` to 1."""
    chances, ways = np.zeros(2 * steps + 1), math.comb(first + second, right)
    for here in range(max(0, right - second), min(first, right) + 1):
        place = steps + (right - here) * (steps // second) - here * (steps // first)
        chances[place] += math.comb(first, here) * math.comb(second, right - here) / ways
    return chances


def _drawn_p(told: Sequence[tuple[int, int, int]], observed: float, *, seed: int) -> float:
    rng = np.random.default_rng(derive_seed(seed, "dealt answers"))
    first, second, right = np.array(told).T
    extreme = 0
    for _ in range(NUM_DRAWS // 1000):
        here = rng.hypergeometric(right, first + second - right, first, size=(1000, len(told)))
        extreme += int((np.abs(((right - here) / second - here / first).sum(1)) >= observed).sum())
    return (extreme + 1) / (NUM_DRAWS + 1)


def _mcnemar(won: int, size: int) -> float:
    """The exact binomial test of ``won`` of ``size`` at one half."""
    return min(1.0, 2 * sum(math.comb(size, i) for i in range(min(won, size - won) + 1)) / 2**size)
