"""Round numbers for the axes of charts, and how to print them."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeGuard

import numpy as np

LARGEST = 1e150  # beyond this, differences overflow; such values are treated as not drawable


def is_drawable(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a finite number of drawable size (not None, NaN, infinite or a truth value)."""
    if isinstance(value, int | float):
        return not isinstance(value, bool) and -LARGEST < value < LARGEST
    return isinstance(value, np.integer | np.floating) and is_drawable(value.item())


def padded_range(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis for ``values``: a little room around them, never empty; (0, 1) without values."""
    if not values:
        return 0.0, 1.0
    low, high = float(min(values)), float(max(values))
    size = max(abs(low), abs(high))
    if high - low <= size * 1e-9:
        room = size * 0.1 or 0.5
        return low - room, high + room
    return low, high


def nice_ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that cover [low, high], about ``count`` intervals of them."""
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1.0, 2.0, 5.0, 10.0) if power * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """The shortest labels that tell ``ticks`` apart."""
    step = min((abs(b - a) for a, b in pairwise(ticks)), default=abs(ticks[0]) if ticks else 1.0)
    largest = max((abs(t) for t in ticks), default=0.0)
    if largest < 1e6 and (step >= 1e-4 or largest == 0.0):
        digits = next((d for d in range(9) if all(abs(round(t, d) - t) <= step * 1e-3 for t in ticks)), 9)
        return [f"{t + 0.0:.{digits}f}" if abs(t) > step * 1e-3 else "0" for t in ticks]
    digits = next((d for d in range(16) if all(abs(float(f"{t:.{d}e}") - t) <= step * 1e-3 for t in ticks)), 16)
    return ["0" if abs(t) <= step * 1e-3 else _exponent(f"{t:.{digits}e}") for t in ticks]


def short_number(value: float) -> str:
    """``value`` to four significant digits."""
    text = f"{value:.4g}"
    return _exponent(text) if "e" in text else text


def _exponent(text: str) -> str:
    mantissa, power = text.split("e")
    return f"{mantissa}e{int(power)}"
