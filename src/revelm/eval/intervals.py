"""Means with 95 % intervals, clustered by problem: answers to one problem are not independent."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

Z = 1.959963984540054


def proportion(values: Sequence[float], clusters: Sequence[int]) -> dict[str, float]:
    """Mean of ``values`` in [0, 1] and its 95 % interval, as {"mean", "low", "high", "n"}.

    Wilson's interval (Wilson 1927) with the effective number of answers, n / design effect; the design effect is the
    variance of the clustered mean over that of independent answers (at least 1). ``n`` counts answers.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        return {"mean": math.nan, "low": math.nan, "high": math.nan, "n": 0}
    mean = float(x.mean())
    effective = len(x) / _design_effect(x, clusters)
    centre = (mean + Z**2 / (2 * effective)) / (1 + Z**2 / effective)
    half = Z / (1 + Z**2 / effective) * math.sqrt(mean * (1 - mean) / effective + Z**2 / (4 * effective**2))
    return {
        "mean": mean,
        "low": max(0.0, min(mean, centre - half)),
        "high": min(1.0, max(mean, centre + half)),
        "n": len(x),
    }


def ratio(top: Sequence[float], bottom: Sequence[float], clusters: Sequence[int]) -> dict[str, float]:
    """sum(top) / sum(bottom) and its 95 % interval by linearisation over clusters (Cochran 1977, section 6.3)."""
    a, b = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    if len(a) == 0 or b.sum() == 0:
        return {"mean": math.nan, "low": math.nan, "high": math.nan, "n": len(a)}
    value = float(a.sum() / b.sum())
    residual = _cluster_sums(a - value * b, clusters)
    count = len(residual)
    spread = math.sqrt(count / max(1, count - 1) * float((residual**2).sum())) / float(b.sum())
    return {"mean": value, "low": value - Z * spread, "high": value + Z * spread, "n": len(a)}


def average(values: Sequence[float], clusters: Sequence[int]) -> dict[str, float]:
    """Mean of any numbers and its 95 % interval over clusters."""
    return ratio(values, np.ones(len(values)), clusters)  # type: ignore[arg-type]


def is_above(first: Mapping[str, float], second: Mapping[str, float]) -> bool:
    """Whether the first interval lies wholly above the second."""
    return first["low"] > second["high"]


def _design_effect(x: np.ndarray, clusters: Sequence[int]) -> float:
    independent = float(x.var())
    residual = _cluster_sums(x - x.mean(), clusters)
    if independent == 0 or len(residual) < 2 or len(residual) == len(x):
        return 1.0
    clustered = len(residual) / (len(residual) - 1) * float((residual**2).sum()) / len(x) ** 2
    return max(1.0, clustered / (independent / len(x)))


def _cluster_sums(x: np.ndarray, clusters: Sequence[int]) -> np.ndarray:
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(index, weights=x)
