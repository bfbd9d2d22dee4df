"""Means with 95 % intervals, clustered by problem: answers to one problem are not independent.

A share (of right answers, ...) has the exact binomial interval (Clopper and Pearson 1934) of its effective number of
answers, as Korn and Graubard (1998) proposed it for surveys: the number of answers over deff, the design effect, which
is the variance of the mean over clusters relative to that of independent answers, at least 1.

deff is estimated from the problems and two more, one that is always solved and one that never is: where next to all
problems are hopeless, the few that are not may be missing among those asked, or too few to tell that answers go
together. (Agresti and Coull 1998 add answers in this way, Bonett and Price 2012 differences.) At accuracies of 0 and 1
deff is then the largest there can be, at which every problem counts as one answer.
``python -m benchmarks.coverage`` shows how often these intervals hold the truth.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from revelm.eval.beta import incomplete_beta, t_quantile

Z = 1.959963984540054


def proportion(values: Sequence[float], clusters: Sequence[int]) -> dict[str, float]:
    """Mean of ``values`` in [0, 1] and its 95 % interval, as {"mean", "low", "high", "n"}; ``n`` counts answers.

    Of a single cluster nothing is known about others: the interval is [0, 1].
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        return _nothing()
    index = np.unique(np.asarray(clusters), return_inverse=True)[1]
    return _share(np.bincount(index, weights=x), np.bincount(index), len(x)) | {"n": len(x)}


def share_of_problems(values: Sequence[float], *, num_answers: int) -> dict[str, float]:
    """Mean over problems of numbers in [0, 1] that were estimated from ``num_answers`` answers in all, and its 95 %
    interval; ``n`` counts problems. Of problems' accuracies it is what ``proportion`` gives of their answers."""
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        return _nothing()
    each = num_answers / len(x)
    return _share(x * each, np.full(len(x), each), num_answers) | {"n": len(x)}


def ratio(top: Sequence[float], bottom: Sequence[float], clusters: Sequence[int]) -> dict[str, float]:
    """sum(top) / sum(bottom) and its 95 % interval by linearisation over clusters (Cochran 1977, section 6.3), with
    Student's t; of a single cluster it has no width."""
    a, b = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    if len(a) == 0 or b.sum() == 0:
        return _nothing() | {"n": len(a)}
    value = float(a.sum() / b.sum())
    residual = _cluster_sums(a - value * b, clusters)
    count = len(residual)
    if count == 1:
        return {"mean": value, "low": value, "high": value, "n": len(a)}
    spread = math.sqrt(count / (count - 1) * float((residual**2).sum())) / abs(float(b.sum())) * t_quantile(count - 1)
    return {"mean": value, "low": value - spread, "high": value + spread, "n": len(a)}


def average(values: Sequence[float], clusters: Sequence[int]) -> dict[str, float]:
    """Mean of any numbers and its 95 % interval over clusters."""
    return ratio(values, np.ones(len(values)), clusters)  # type: ignore[arg-type]


def is_above(first: Mapping[str, float], second: Mapping[str, float]) -> bool:
    """Whether the first interval lies wholly above the second."""
    return first["low"] > second["high"]


def binomial(mean: float, size: float) -> tuple[float, float]:
    """The exact 95 % interval of a share ``mean`` of ``size`` answers, which need not be whole numbers."""
    right, wrong = mean * size, (1 - mean) * size
    low = _root(lambda rate: incomplete_beta(right, wrong + 1, rate), 0.025, (0.0, mean)) if right > 0 else 0.0
    high = _root(lambda rate: incomplete_beta(right + 1, wrong, rate), 0.975, (mean, 1.0)) if wrong > 0 else 1.0
    return low, high


def _share(sums: np.ndarray, counts: np.ndarray, size: float) -> dict[str, float]:
    """Mean and interval from the clusters' sums of values in [0, 1] and their numbers of answers, ``size`` in all."""
    mean = min(1.0, max(0.0, float(sums.sum() / size)))
    if len(sums) == 1:
        return {"mean": mean, "low": 0.0, "high": 1.0}
    largest = max(1.0, float((counts**2).sum()) / size)
    low, high = binomial(mean, size / min(largest, max(1.0, _design_effect(sums, counts))))
    return {"mean": mean, "low": low, "high": high}


def _design_effect(sums: np.ndarray, counts: np.ndarray) -> float:
    """The variance of the mean over clusters relative to that of independent answers, with the two clusters added."""
    usual = float(counts.mean())
    sums, counts = np.append(sums, [usual, 0.0]), np.append(counts, [usual, usual])
    size, clusters = float(counts.sum()), len(counts)
    mean = float(sums.sum()) / size
    variance = clusters / (clusters - 1) * float(((sums - mean * counts) ** 2).sum()) / size**2
    return variance * size / (mean * (1 - mean))


def _root(function: Callable[[float], float], value: float, ends: tuple[float, float]) -> float:
    """Where an increasing ``function`` takes ``value``: regula falsi with halved ends (Illinois), to 1e-10."""
    low, high = ends
    below, above = function(low) - value, function(high) - value
    side = 0
    while high - low > 1e-10:
        middle = (low * above - high * below) / (above - below) if above > below else (low + high) / 2
        found = function(middle) - value
        if abs(found) < 1e-12:
            return middle
        if found < 0:
            low, below, above, side = middle, found, above / 2 if side < 0 else above, -1
        else:
            high, above, below, side = middle, found, below / 2 if side > 0 else below, 1
    return (low + high) / 2


def _cluster_sums(x: np.ndarray, clusters: Sequence[int]) -> np.ndarray:
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(index, weights=x)


def _nothing() -> dict[str, float]:
    return {"mean": math.nan, "low": math.nan, "high": math.nan, "n": 0}
