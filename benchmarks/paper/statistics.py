"""Means, intervals, tests and interpolation over the numbers of a few seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean over ``count`` seeds and half the width of its 95 % interval (Student's t; NaN for a single seed)."""

    mean: float
    half: float
    count: int

    @property
    def low(self) -> float:
        """Its lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Its upper end."""
        return self.mean + self.half

    def is_above(self, other: "Interval") -> bool:
        """Whether this interval lies wholly above ``other``; False where either has no width."""
        return self.low > other.high

    def __str__(self) -> str:
        """Three digits."""
        return f"{self.mean:.3f} ± {self.half:.3f}" if np.isfinite(self.half) else f"{self.mean:.3f}"


def interval(values: Sequence[float]) -> Interval:
    """Of at least one value. ValueError for none."""
    if not values:
        raise ValueError("values: there are none; an interval needs at least one")
    x, count = np.array(values, dtype=np.float64), len(values)
    half = t_quantile(0.95, count - 1) * float(x.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    return Interval(float(x.mean()), half, count)


def t_within(t: float, freedom: int) -> float:
    """P(|T| <= t) of Student's t with a whole number of degrees of freedom, t >= 0.

    With a = atan(t / sqrt(freedom)) a finite sum (Abramowitz and Stegun 26.7.3 and 26.7.4): for even numbers
    sin a (1 + 1/2 cos^2 a + 1 3 / (2 4) cos^4 a + ...), for odd ones 2 / pi (a + sin a (cos a + 2/3 cos^3 a + ...)),
    up to the power freedom - 2. ValueError for no degree of freedom.
    """
    if freedom < 1:
        raise ValueError(f"freedom: {freedom}; Student's t needs at least 1")
    angle, is_odd = math.atan(t / math.sqrt(freedom)), freedom % 2
    term = math.cos(angle) if is_odd else 1.0
    total = 0.0
    for power in range(is_odd, freedom - 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if is_odd else total


@lru_cache
def t_quantile(coverage: float, freedom: int) -> float:
    """The t within which |T| stays with probability ``coverage``, 0 to below 1: the two-sided quantile."""
    high = 1.0
    while t_within(high, freedom) < coverage:
        high *= 2
    low = 0.0
    for _ in range(100):  # halving reaches the precision of a float
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, freedom) < coverage else (low, middle)
    return high


def paired_p(found: Interval) -> float:
    """Two-sided p-value of paired differences with a mean of zero (t-test), of at least two seeds."""
    if found.count < 2:
        raise ValueError(f"found: {found.count} difference; a test needs at least 2")
    error = found.half / t_quantile(0.95, found.count - 1)
    if error == 0:
        return float(found.mean == 0)
    return 1.0 - t_within(abs(found.mean) / error, found.count - 1)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are (Holm 1979): the smallest times n, the next times n - 1, ...; none
    below that of a smaller one, none above 1."""
    found, floor = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        floor = found[place] = max(floor, min(1.0, (len(values) - rank) * values[place]))
    return found


def paired(first: dict[int, float], second: dict[int, float]) -> Interval | None:
    """Of the differences ``first - second`` over the seeds that both have; None where there is none."""
    both = sorted(first.keys() & second.keys())
    return interval([first[seed] - second[seed] for seed in both]) if both else None


def correlation(first: dict[int, float], second: dict[int, float]) -> float | None:
    """Pearson's, over the seeds that both have; None for fewer than three, and where either does not vary."""
    both = sorted(first.keys() & second.keys())
    x, y = (np.array([values[seed] for seed in both], dtype=np.float64) for values in (first, second))
    if len(both) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def variance_over_seeds(curves: Sequence[Sequence[float]]) -> float:
    """Sample variance over runs at each step, averaged over steps; ``curves``: runs x steps, at least two runs."""
    return float(np.var(np.array(curves, dtype=np.float64), axis=0, ddof=1).mean())


def variance_over_steps(curve: Sequence[float]) -> float:
    """Variance of a curve around its trend: half the mean square of differences between neighbours (von Neumann 1941),
    which is the variance of independent noise and hardly sees a slow trend."""
    return float(np.square(np.diff(np.array(curve, dtype=np.float64))).mean() / 2)


def gradient_noise(squares: float, total: float, count: int) -> dict[str, float | None]:
    """Noise and signal of ``count`` gradients g: ``squares`` is the sum of |g|^2, ``total`` is |sum of g|^2.

    "noise": trace of the covariance, (squares - total / n) / (n - 1). "signal": |mean gradient|^2, of which noise / n,
    the expectation of what noise adds, is taken off. "ratio": noise / signal; None where the signal
    drowns (<= 0).
    """
    if count < 2:
        return {"noise": None, "signal": None, "ratio": None}
    noise = (squares - total / count) / (count - 1)
    signal = total / count**2 - noise / count
    return {"noise": noise, "signal": signal, "ratio": noise / signal if signal > 0 else None}


def inner_of_means(total: float, products: float, count: int) -> float:
    """<E g, E h> of ``count`` pairs of gradients, at least two, that vary together: ``total`` is <sum g, sum h>,
    ``products`` the sum of <g, h> over pairs. Without bias: products of different pairs alone."""
    return (total - products) / (count * (count - 1))


def speed_at(curve: Sequence[tuple[float, float]], accuracy: float) -> float | None:
    """The highest speed at which ``curve``, (accuracy, speed) in the order of its thresholds, has ``accuracy``.

    Linear between neighbours; None where no two neighbours lie on both sides of it.
    """
    found = [speed for at, speed in curve if at == accuracy]
    for (a, speed), (b, other) in pairwise(curve):
        if min(a, b) < accuracy < max(a, b):
            found.append(speed + (other - speed) * (accuracy - a) / (b - a))
    return max(found, default=None)


def best_speed(curves: Sequence[Sequence[tuple[float, float]]], accuracy: float) -> float | None:
    """The highest speed at ``accuracy`` over several curves; None where none of them has it."""
    found = [speed for curve in curves if (speed := speed_at(curve, accuracy)) is not None]
    return max(found, default=None)


def common_accuracies(
    before: Sequence[Sequence[tuple[float, float]]], after: Sequence[Sequence[tuple[float, float]]], count: int
) -> list[float]:
    """``count`` accuracies, evenly within the range that both reach, without its ends; none if their ranges do not
    overlap."""
    ranges = [[a for curve in curves for a, _ in curve] for curves in (before, after)]
    low, high = max(min(r) for r in ranges), min(max(r) for r in ranges)
    return np.linspace(low, high, count + 2)[1:-1].tolist() if low < high else []
