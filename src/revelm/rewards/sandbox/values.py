"""Whether what a function returned is what the JSON of a test says."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

_NUMBERS: tuple[type, ...] = (int, float, complex, Decimal, Fraction)
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9


def is_right_value(value: Any, expected: Any, *, matching: str = "exact", may_unwrap: bool = False) -> bool:
    """Whether a test of a call is passed.

    ``matching``: "livecodebench" compares as its harness does, by ``==`` once an outermost tuple is a list; every other
    rule by `is_same_value`. ``may_unwrap``: a list of one may stand for what is in it, as APPS writes most results.
    Raises what the comparison of arrays raises.
    """
    if matching == "livecodebench":
        return bool((list(value) if isinstance(value, tuple) else value) == expected)
    if may_unwrap and isinstance(expected, list) and len(expected) == 1 and is_same_value(value, expected[0]):
        return True
    return is_same_value(value, expected)


def is_same_value(value: Any, expected: Any) -> bool:
    """Whether a plain value is what JSON says: tuples as lists, keys as text, True as 1, floats up to rounding.

    Numbers of other kinds (`Decimal`, `Fraction`, complex ones) count where they are equal.

    A whole number that is expected is not met by one that is near it in proportion: 1e12 + 1 is not 1e12.
    """
    if type(value).__module__ == "numpy" and type(value).__name__ != "ndarray":
        value = value.item()
    if isinstance(value, _NUMBERS) and isinstance(expected, int | float):
        relative = _RELATIVE if isinstance(expected, float) else 0.0
        is_rounded = isinstance(value, float) or (isinstance(value, int) and isinstance(expected, float))
        return bool(value == expected) or (is_rounded and _is_close(value, expected, relative))
    if isinstance(value, list | tuple) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(is_same_value, value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        texts = {str(key): item for key, item in value.items()}
        return texts.keys() == expected.keys() and all(is_same_value(texts[key], expected[key]) for key in expected)
    return type(value) is type(expected) and bool(value == expected)


def _is_close(value: Any, expected: float, relative: float) -> bool:
    try:
        return math.isclose(value, expected, rel_tol=relative, abs_tol=_ABSOLUTE)
    except OverflowError:  # a whole number beyond all floats
        return False
