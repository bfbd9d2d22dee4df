"""How often the 95 % intervals of an evaluation hold the truth: ``python -m benchmarks.coverage``.

Problems differ in difficulty. Most cases draw a problem's rate from a beta distribution with the stated mean accuracy
and correlation of two answers to one problem (0: all problems are alike). In the others problems are of two kinds: a
few are always solved, so many on average among those asked, and all others at one low rate. ``accuracy`` and ``pass@k``
(k half the answers) are judged by the truth over all problems that there could be. The bar is 93 % in every row.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from revelm.eval.intervals import proportion, share_of_problems
from revelm.eval.votes import pass_at_k

BAR = 0.93
PROBLEMS = (10, 30, 100, 500)
SAMPLES = (1, 4, 16)
ACCURACIES = (0.02, 0.1, 0.5, 0.9)
CORRELATIONS = (0.0, 0.3, 0.7)
SOLVED = (1, 3)
HOPELESS = (0.01, 0.05)
TWO_KINDS = (30, 100, 500)


@dataclass(frozen=True)
class Spread:
    """Rates of a beta distribution."""

    accuracy: float
    correlation: float

    @property
    def name(self) -> str:
        """As the table has it."""
        return f"{self.accuracy:g}, correlation {self.correlation:g}"

    def rates(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """The rate of right answers of each problem."""
        if self.correlation == 0:
            return np.full(count, self.accuracy)
        size = (1 - self.correlation) / self.correlation
        return rng.beta(self.accuracy * size, (1 - self.accuracy) * size, count)

    def passed(self, k: int) -> float:
        """1 - E[(1 - rate)^k] over problems: a ratio of gamma functions."""
        if self.correlation == 0:
            return 1 - (1 - self.accuracy) ** k
        size = (1 - self.correlation) / self.correlation
        wrong = (1 - self.accuracy) * size
        return 1 - math.exp(math.lgamma(wrong + k) - math.lgamma(wrong) + math.lgamma(size) - math.lgamma(size + k))


@dataclass(frozen=True)
class TwoKinds:
    """A ``share`` of problems is always solved, all others at one ``rate``."""

    share: float
    rate: float

    @property
    def name(self) -> str:
        """As the table has it."""
        return f"{100 * self.share:.2g} % solved, others {self.rate:g}"

    @property
    def accuracy(self) -> float:
        """Over all problems."""
        return self.passed(1)

    def rates(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """The rate of right answers of each problem."""
        return np.where(rng.random(count) < self.share, 1.0, self.rate)

    def passed(self, k: int) -> float:
        """1 - E[(1 - rate)^k] over problems."""
        return self.share + (1 - self.share) * (1 - (1 - self.rate) ** k)


@dataclass(frozen=True)
class Row:
    """One case: how often the truth lay inside, and the mean width of the interval. ``passed``: of pass@k, k > 1."""

    problems: int
    samples: int
    population: str
    covered: float
    width: float
    passed: float | None

    @property
    def worst(self) -> float:
        """The lower of both coverages."""
        return min(self.covered, 1.0 if self.passed is None else self.passed)


def cases() -> Iterator[tuple[int, int, Spread | TwoKinds]]:
    """Problems, answers to each, and what the problems are drawn from."""
    for count, k, accuracy, correlation in product(PROBLEMS, SAMPLES, ACCURACIES, CORRELATIONS):
        if k > 1 or correlation == 0:
            yield count, k, Spread(accuracy, correlation)
    for count, solved, rate in product(TWO_KINDS, SOLVED, HOPELESS):
        yield count, SAMPLES[-1], TwoKinds(solved / count, rate)


def measured(*, rounds: int, seed: int = 0) -> Iterator[Row]:
    """Every case, each simulated ``rounds`` times."""
    for place, (count, k, population) in enumerate(cases()):
        yield case(np.random.default_rng([seed, place]), (count, k), population, rounds=rounds)


def case(rng: np.random.Generator, shape: tuple[int, int], population: Spread | TwoKinds, *, rounds: int) -> Row:
    """``shape``: problems and answers to each."""
    (count, k), half = shape, max(2, shape[1] // 2)
    inside, passed, widths = 0, 0, []
    clusters = np.repeat(np.arange(count), k)
    truth = population.passed(half)
    estimates = [pass_at_k(k, c, half) for c in range(k + 1)] if k > 1 else []
    for _ in range(rounds):
        right = rng.binomial(k, population.rates(rng, count))
        values = (np.arange(k)[None] < right[:, None]).astype(float).ravel()
        found = proportion(values, clusters)  # type: ignore[arg-type]
        inside += found["low"] <= population.accuracy <= found["high"]
        widths.append(found["high"] - found["low"])
        if k > 1:
            several = share_of_problems([estimates[c] for c in right], num_answers=count * k)
            passed += several["low"] <= truth <= several["high"]
    share = passed / rounds if k > 1 else None
    return Row(count, k, population.name, inside / rounds, float(np.mean(widths)), share)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000, help="simulations of each case (default: 1000)")
    rounds = parser.parse_args().rounds
    print("| problems | answers | accuracy | covered | mean width | pass@k covered |")
    print("|---:|---:|---|---:|---:|---:|")
    rows = []
    for row in measured(rounds=rounds):
        rows.append(row)
        passed = "" if row.passed is None else f"{row.passed:.3f}"
        cells = f"{row.problems} | {row.samples} | {row.population}"
        print(f"| {cells} | {row.covered:.3f} | {row.width:.3f} | {passed} |", flush=True)
    short = [row for row in rows if row.worst < BAR]
    error = math.sqrt(BAR * (1 - BAR) / rounds)
    lowest = min(row.worst for row in rows)
    print(f"\n{len(rows)} cases, {len(short)} below {BAR:g} (standard error {error:.3f}); lowest: {lowest:.3f}")


if __name__ == "__main__":
    main()
