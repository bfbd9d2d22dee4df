"""Several sources of samples as one endless stream, in fixed proportions.

With shares a_1, a_2, ... (whole numbers, A their sum) every A consecutive samples, counted from the beginning of the
run, have exactly a_i from source i, in a seeded order; each source goes through epochs of its own, in which every
sample comes once. Without shares all samples are one set. As in ``revelm.data.stream``, the number reached is all that
resuming needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

import numpy as np

from revelm.core.seeds import derive_seed
from revelm.data.stream import stream

MAX_WINDOW = 10_000


@dataclass(frozen=True)
class Mixture:
    """``sizes``: samples of each source, at least 1; they are numbered through, source after source.

    ``shares``: of each source, whole numbers from 1 (``whole_shares``); empty: the sources are one set.
    """

    sizes: tuple[int, ...]
    shares: tuple[int, ...] = ()

    def places(self, seed: int, numbers: range) -> list[int]:
        """Which samples the stream has at places ``numbers``, consecutive ones."""
        if not self.shares:
            return stream(seed, numbers, sum(self.sizes))
        owners, ranks = self._draws(seed, numbers)
        places = np.zeros(len(owners), dtype=np.int64)
        for source, size in enumerate(self.sizes):
            drawn = ranks[owners == source].tolist()
            if drawn:
                own = stream(derive_seed(seed, "source", source), range(drawn[0], drawn[-1] + 1), size)
                places[owners == source] = np.array(own) + sum(self.sizes[:source])
        return [int(place) for place in places]

    def _draws(self, seed: int, numbers: range) -> tuple[np.ndarray, np.ndarray]:
        """For each of ``numbers`` its source, and how many samples of that source came before it."""
        size = sum(self.shares)
        first, last = numbers.start // size, (max(numbers.start, numbers.stop - 1)) // size
        sources = np.repeat(np.arange(len(self.shares)), self.shares)
        windows = [
            np.random.default_rng(derive_seed(seed, "mixture", window)).permutation(sources)
            for window in range(first, last + 1)
        ]
        owners = np.concatenate(windows)
        ranks = np.zeros(len(owners), dtype=np.int64)
        for source, share in enumerate(self.shares):
            is_own = owners == source
            ranks[is_own] = first * share + np.arange(int(is_own.sum()))
        here = slice(numbers.start - first * size, numbers.stop - first * size)
        return owners[here], ranks[here]


def whole_shares(weights: Sequence[float], *, field: str) -> tuple[int, ...]:
    """The smallest whole numbers in the proportions of ``weights``, which are above 0.

    ValueError, naming ``field``, when their sum, the length of a window, would be above ``MAX_WINDOW``.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    scale = lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    shares = tuple(number // gcd(*whole) for number in whole)
    if sum(shares) > MAX_WINDOW:
        told, parts = ", ".join(map(str, weights)), ":".join(map(str, shares))
        raise ValueError(f"{field}: {told} are {parts}, which no {MAX_WINDOW} samples hold; give rounder weights")
    return shares
