"""The exact value of a constant expression that is a fraction: digits beyond those that are sampled count as well.

2^1009 and 2^1009 - 1 agree in their first 300 digits, 1/2^200 and 1/2^201 in 60 behind the point.
"""

from fractions import Fraction
from math import ceil, comb, factorial, floor
from typing import Any

_MAX_BITS = 50_000
_LARGEST_ARGUMENT = 5000  # of factorials and binomials


class _NotExactError(Exception):
    """No fraction, or one with too many digits to be worked out."""


def exact_value(expression: Any) -> Fraction | None:
    """The fraction that an unevaluated sympy expression is; None for anything else, and beyond 50,000 bits."""
    try:
        return _exact(expression)
    except (_NotExactError, ZeroDivisionError, ValueError, OverflowError):
        return None


def _exact(node: Any) -> Fraction:
    if node.is_Rational:
        return _bounded(Fraction(int(node.p), int(node.q)))
    if node.is_Float:
        return Fraction(str(node))
    values = [_exact(argument) for argument in node.args]
    if (function := _OPERATIONS.get(type(node).__name__)) is None:
        raise _NotExactError
    return function(*values)


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > _MAX_BITS:
        raise _NotExactError
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _sum(*values: Fraction) -> Fraction:
    total = Fraction(0)
    for value in values:
        total = _bounded(total + value)
    return total


def _product(*values: Fraction) -> Fraction:
    total = Fraction(1)
    for value in values:
        total = _bounded(total * value)
    return total


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or (base == 0 and exponent <= 0):
        raise _NotExactError
    if abs(exponent) * _bits(base) > _MAX_BITS and abs(base) != 1:
        raise _NotExactError
    return Fraction(base**exponent.numerator) if abs(base) != 1 else base ** (exponent.numerator % 2)


def _factorial(value: Fraction) -> Fraction:
    return Fraction(factorial(_natural(value)))


def _binomial(above: Fraction, below: Fraction) -> Fraction:
    return Fraction(comb(_natural(above), _natural(below)))


def _natural(value: Fraction) -> int:
    if value.denominator != 1 or not 0 <= value <= _LARGEST_ARGUMENT:
        raise _NotExactError
    return value.numerator


_OPERATIONS: dict[str, Any] = {
    "Add": _sum,
    "Mul": _product,
    "Pow": _power,
    "factorial": _factorial,
    "binomial": _binomial,
    "floor": lambda value: Fraction(floor(value)),
    "ceiling": lambda value: Fraction(ceil(value)),
    "Abs": abs,
    "UnevaluatedExpr": lambda value: value,
}
