"""Whether a measured accuracy agrees with a published one.

The measured 95 % interval is widened by the sampling error of the published number, p (1 - p) / num_answers where it is
known of how many answers that is a mean (squares are added on each side of the measured mean; answers to one problem
are taken for independent, which widens too little rather than too much). Published numbers outside *differ*. Those
inside *agree*, unless the interval is wider than 0.05 on either side: then there are *too few problems to tell*.
"""

import math
from collections.abc import Mapping
from typing import Any

from revelm.eval.config import Expected
from revelm.eval.intervals import Z

RESOLUTION = 0.05
AGREES, DIFFERS, UNKNOWN = "agrees", "differs", "too few problems to tell"


def agreement(measured: Mapping[str, float], expected: Expected) -> dict[str, Any]:
    """``expected`` with the interval in which it would agree (``low``, ``high``) and the ``verdict``.

    ``measured``: an accuracy as {"mean", "low", "high", "n"}.
    """
    mean, published = measured["mean"], expected.accuracy
    error = Z * math.sqrt(published * (1 - published) / expected.num_answers) if expected.num_answers else 0.0
    low = max(0.0, mean - math.hypot(mean - measured["low"], error))
    high = min(1.0, mean + math.hypot(measured["high"] - mean, error))
    if not low <= published <= high:
        verdict = DIFFERS
    else:
        verdict = UNKNOWN if max(high - mean, mean - low) > RESOLUTION else AGREES
    return {**expected.model_dump(mode="json"), "low": low, "high": high, "verdict": verdict}
