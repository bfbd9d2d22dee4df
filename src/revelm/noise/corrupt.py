"""Random hiding with one mask rate per unit (a block, or a sequence): the linear schedule of masked diffusion.

At rate t every position is hidden independently with probability t (alpha(t) = 1 - t; MDLM, arXiv 2406.07524), so a
position hidden at rate t weighs 1/t in the likelihood bound.
"""

import numpy as np


def corrupt(
    can_hide: np.ndarray, rng: np.random.Generator, *, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one rate per unit from [low, high) and hide each allowed position with that probability.

    ``can_hide`` bool [C, B], one unit per row. Returns hidden bool [C, B] and rate float64 [C].
    """
    rate = rng.uniform(low, high, size=len(can_hide))
    return (rng.random(can_hide.shape) < rate[:, None]) & can_hide, rate
