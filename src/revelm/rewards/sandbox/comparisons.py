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

_JUDGED = ("allclose", "isclose")
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
            given.arguments[name] = list(value) if isinstance(value, StandIn) else value  # once, for it may change
        first, second, *_ = given.arguments.values()
        if (numpy.size(first) == 0) != (numpy.size(second) == 0):
            if refuses:
                raise AssertionError("nothing is compared with something")
            return numpy.False_
        return compare(*given.args, **given.kwargs)

    return strict
