"""Comparisons of numpy that say yes to nothing at all, made strict for tests.

To numpy an empty array is as close to every number as can be: ``np.allclose([], 3.0)``. Tests of several data sets
compare answers so, which makes ``return []`` right wherever a decimal number is expected.
"""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from types import ModuleType
from typing import Any

from revelm.rewards.sandbox.stand_in import StandIn

_JUDGED = ("allclose", "isclose", "array_equiv")
_HOLDING = {StandIn, list, tuple, dict}  # what can hold objects of the program, and themselves
_ASSERTED = ("allclose", "almost_equal", "array_almost_equal", "array_equal", "equal")


def make_strict(numpy: ModuleType) -> None:
    """In this process nothing is close or equal to something: False, or AssertionError from ``numpy.testing``."""
    for name in _JUDGED:
        setattr(numpy, name, _strict(numpy, vars(numpy)[name], refuses=False))
    for name in (f"assert_{word}" for word in _ASSERTED):
        setattr(numpy.testing, name, _strict(numpy, vars(numpy.testing)[name], refuses=True))


def _strict(numpy: ModuleType, compare: Callable[..., Any], *, refuses: bool) -> Callable[..., Any]:
    @wraps(compare)
    def strict(*values: Any, **options: Any) -> Any:
        given = signature(compare).bind(*values, **options)
        for name, value in list(given.arguments.items())[:2]:
            given.arguments[name] = _settled(value)
        first, second, *_ = given.arguments.values()
        if (numpy.size(first) == 0) != (numpy.size(second) == 0):
            if refuses:
                raise AssertionError("nothing is compared with something")
            return numpy.False_
        return compare(*given.args, **given.kwargs)

    return strict


def _settled(value: Any) -> Any:
    """``value`` with what is in objects of the program in their place: at the next look it could be another."""
    if isinstance(value, StandIn):
        return [_settled(item) for item in value]
    if type(value) in (list, tuple) and _HOLDING & set(map(type, value)):
        return type(value)(_settled(item) for item in value)
    if type(value) is dict:
        return {key: _settled(item) for key, item in value.items()}
    return value
