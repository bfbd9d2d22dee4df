"""Hidden subsets of n positions whose weighted log-probabilities add up to the bound of masked diffusion.

Reveal y_1 .. y_n one by one in a uniformly random order. Jensen's inequality over the orders, with the steps of all
orders gathered by what is still hidden, gives for every y (c: whatever else is shown)

    log p(y | c)  >=  sum over nonempty S of  w(S) * sum over i in S of log p(y_i | y outside S, c),              (1)
    w(S) = 1 / (|S| * C(n, |S|)).

The weights of the terms of each y_i sum to 1. (1) is the same number as two expectations that can be sampled:

    l uniform in 1..n, S uniform of size l, weight n/l                (LLaDA, arXiv 2502.09992, eq. 6: "count")
    t uniform in (0, 1], each i in S with probability t, weight 1/t   (MDLM, arXiv 2406.07524: "uniform")

since  integral of t^(l-1) (1-t)^(n-l) dt = 1 / (l C(n, l)).  The second is the training loss of masked diffusion; as an
estimator its variance diverges (n times the integral of dt/t), so its standard errors come out too small.

"stratified" cuts the levels into as many equal strata as there are pairs of draws: the budget belongs on different
levels (VDM, arXiv 2107.00630; VRPO, arXiv 2505.19223), and two draws per stratum are what an honest standard error
needs. "antithetic" hides S and then its complement: level n, a single subset, is computed once, and levels l and n - l
are drawn together, from strata.
"""

from dataclasses import dataclass
from math import comb
from typing import Literal

import numpy as np

Estimator = Literal["auto", "exact", "uniform", "count", "stratified", "antithetic"]
FREE_MASKS = 63
MAX_EXACT = 12


@dataclass(frozen=True, eq=False)
class Masks:
    """M subsets of n positions; the bound's estimate is the sum over masks of weight * (sum of log p over hidden).

    ``hidden`` bool [M, n]; ``weight`` float64 [M], all shares and numbers of draws included; ``draw`` int64 [M], the
    independent draw a mask belongs to; ``stratum`` int64 [D], of each draw. A stratum with one draw has no choice.
    """

    hidden: np.ndarray
    weight: np.ndarray
    draw: np.ndarray
    stratum: np.ndarray


def draw_masks(size: int, rng: np.random.Generator, *, estimator: Estimator, num_samples: int) -> Masks:
    """Masks over ``size`` positions, about ``num_samples`` (at least 2) of them where the bound is sampled.

    "auto" enumerates all subsets when they are no more than ``num_samples`` or ``FREE_MASKS`` (6 positions), else
    draws "stratified". A single position has a single subset, whatever the estimator. ValueError for "exact" beyond
    ``MAX_EXACT`` positions.
    """
    if size < 1 or num_samples < 2:
        raise ValueError(f"num_samples is {num_samples} for {size} positions, must be at least 2 for at least 1")
    if estimator == "auto":
        is_cheap = size <= MAX_EXACT and 2**size - 1 <= max(num_samples, FREE_MASKS)
        estimator = "exact" if is_cheap else "stratified"
    if estimator == "exact" or size == 1:
        return _all_subsets(size)
    if estimator == "uniform":
        return _uniform(size, rng, num_samples)
    if estimator == "antithetic":
        return _antithetic(size, rng, num_samples)
    return _levels(size, rng, num_samples, 1 if estimator == "count" else num_samples // 2)


def combine(totals: np.ndarray, stratum: np.ndarray) -> tuple[float, float]:
    """Estimate and its standard error from the weighted sum of each draw [D] and the draws' strata [D].

    Draws of one stratum are independent and alike, strata are independent: variances within strata add up
    (Cochran 1977, section 5.4). Strata of one draw were enumerated and vary not.
    """
    if not len(totals):
        return 0.0, 0.0
    count = np.bincount(stratum)
    mean = np.bincount(stratum, weights=totals) / np.maximum(count, 1)
    residual = np.bincount(stratum, weights=(totals - mean[stratum]) ** 2)
    variance = (residual * count / np.maximum(count - 1, 1))[count > 1].sum()
    return float(totals.sum()), float(np.sqrt(variance))


def _all_subsets(size: int) -> Masks:
    if size > MAX_EXACT:
        raise ValueError(f"estimator is 'exact' for {size} positions at once, possible up to {MAX_EXACT}; use 'auto'")
    hidden = (np.arange(1, 2**size)[:, None] >> np.arange(size)) % 2 == 1
    by_level = np.array([1.0 / (level * comb(size, level)) for level in range(1, size + 1)])
    number = np.arange(len(hidden))
    return Masks(hidden, by_level[hidden.sum(axis=1) - 1], number, number)


def _uniform(size: int, rng: np.random.Generator, num_samples: int) -> Masks:
    rate = 1.0 - rng.random(num_samples)
    hidden = rng.random((num_samples, size)) < rate[:, None]
    return Masks(hidden, 1.0 / (rate * num_samples), np.arange(num_samples), np.zeros(num_samples, dtype=np.int64))


def _levels(size: int, rng: np.random.Generator, num_samples: int, num_strata: int) -> Masks:
    """Levels from equal strata, two draws each (one has three where their number is odd); one stratum: "count"."""
    stratum, share = _strata(num_samples, num_strata)
    place = (stratum + rng.random(num_samples)) / num_strata
    level = 1 + np.minimum((size * place).astype(np.int64), size - 1)
    return Masks(_subsets(level, size, rng), share * size / level, np.arange(num_samples), stratum)


def _antithetic(size: int, rng: np.random.Generator, num_samples: int) -> Masks:
    """All positions at once, then pairs (S, complement) with |S| uniform in 1..n-1: the other n - 1 levels of (1).

    The pair of l is the pair of n - l, so strata need to cover only half of the levels.
    """
    num_pairs = max(2, (num_samples - 1) // 2)
    stratum, share = _strata(num_pairs, num_pairs // 2)
    place = (stratum + rng.random(num_pairs)) / (num_pairs // 2)
    level = 1 + np.minimum(((size - 1) * place / 2).astype(np.int64), size - 2)
    first = _subsets(level, size, rng)
    half = share * (size - 1) / 2
    return Masks(
        np.concatenate((np.ones((1, size), dtype=bool), first, ~first)),
        np.concatenate(([1.0 / size], half / level, half / (size - level))),
        np.concatenate(([0], *[1 + np.arange(num_pairs)] * 2)),
        np.concatenate(([0], 1 + stratum)),
    )


def _strata(num_draws: int, num_strata: int) -> tuple[np.ndarray, np.ndarray]:
    """Stratum of each draw, int64 [D], as even as possible, and its share of the estimate, [D]."""
    stratum = np.arange(num_draws) * num_strata // num_draws
    return stratum, 1.0 / (num_strata * np.bincount(stratum)[stratum])


def _subsets(level: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform subsets with ``level`` [M] elements each, bool [M, size]."""
    return rng.random((len(level), size)).argsort(axis=1).argsort(axis=1) < level[:, None]
