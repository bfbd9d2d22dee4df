"""An endless, shuffled stream over a data set whose cursor is one number."""

import numpy as np

from revelm.core.seeds import derive_seed


def stream(seed: int, numbers: range, size: int) -> list[int]:
    """Which of ``size`` samples the stream has at places ``numbers``: a fresh seeded permutation every epoch.

    Any part of the stream can be asked for at any time, so resuming needs no more than the number reached.
    """
    orders: dict[int, np.ndarray] = {}
    places = []
    for number in numbers:
        epoch, place = divmod(number, size)
        if epoch not in orders:
            orders[epoch] = np.random.default_rng(derive_seed(seed, "epoch", epoch)).permutation(size)
        places.append(int(orders[epoch][place]))
    return places
