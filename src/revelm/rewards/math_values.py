"""Values of an unevaluated sympy expression, to 50 digits, at fixed points; in bounded time.

Nothing is simplified and nothing larger than 10^(10^6) is computed: powers and factorials check what they are about to
do first. Letters have values that depend on their names alone, so that formulas can be evaluated one by one.
"""

from typing import Any
from zlib import crc32

import mpmath

DIGITS = 50
Value = Any  # mpmath number, or None where there is none
_NUM_STEPS, _MAX_STEP = 30, 40
_LARGEST_LOG = 1e6
_LARGEST_ARGUMENT = 1e5  # of factorials and binomials
_NEGLIGIBLE = mpmath.mpf(10) ** -45
_RELATIVE = mpmath.mpf(10) ** -25
_RANGES = (
    (0, 2),
    (3, 13),
    (17, 59),
    (0, 2),
    (3, 7),
    (5, 23),
)  # of the values of letters; the last three of either sign
_FUNCTIONS = (
    *("sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "acot", "asec", "acsc"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "re", "im", "arg"),
)


class Unsampled(Exception):  # noqa: N818 - not an error: the expression is of a kind that has no such value
    """The expression has no value that can be computed here."""


def sample(expression: Any, *, has_steps: bool) -> tuple[Value, ...]:
    """Values at the points; one alone for a constant. None at a point where it has none. Raises Unsampled.

    ``has_steps``: a formula with floors or ceilings is in play, which a few points cannot tell from its neighbours: 30
    whole numbers are added.
    """
    from sympy import Basic

    if not isinstance(expression, Basic):
        raise Unsampled
    with mpmath.workdps(DIGITS):
        is_constant = not expression.free_symbols - {s for s in expression.free_symbols if s.name == "i"}
        values = tuple(
            _at(expression, point)
            for point in range(1 if is_constant else len(_RANGES) + (_NUM_STEPS if has_steps else 0))
        )
    if all(value is None for value in values):
        raise Unsampled
    return values


def agree(first: Value, second: Value) -> bool:
    """Whether two values are the same to 25 digits."""
    size = max(abs(first), abs(second))
    return bool(abs(first - second) <= max(_RELATIVE * size, _NEGLIGIBLE))


def _at(expression: Any, point: int) -> Value:
    try:
        value = _evaluate(expression, point)
    except (ZeroDivisionError, ValueError, OverflowError, TypeError):
        return None
    return value if mpmath.isfinite(value) else None


def _letter(name: str, point: int) -> Value:
    if point >= len(_RANGES):
        return mpmath.mpf((crc32(name.encode("utf-8", "replace")) + point - len(_RANGES)) % _MAX_STEP + 1)
    low, high = _RANGES[point]
    spread = crc32(f"{name}/{point}".encode("utf-8", "replace"))
    value = low + (high - low) * mpmath.mpf(spread % 99991 + 1) / 99992
    return -value if point >= 3 and spread // 99991 % 2 else value


def _evaluate(node: Any, point: int) -> Value:
    import sympy
    from sympy.core.function import AppliedUndef

    if node.is_Symbol:
        return mpmath.mpc(0, 1) if node.name == "i" else _letter(node.name, point)
    if isinstance(node, (AppliedUndef, sympy.Derivative)):
        return _letter(str(node), point)  # f(x) and dx/dt are letters with long names
    if node.is_Rational:
        return mpmath.mpf(int(node.p)) / int(node.q)
    if node.is_Float:
        return mpmath.mpf(str(node))
    if node.is_NumberSymbol or node is sympy.I:
        return _constant(str(node))
    if node.is_Relational or isinstance(node, (sympy.Set, sympy.Tuple, sympy.MatrixBase)):
        raise Unsampled
    values = [_evaluate(argument, point) for argument in node.args]
    if (function := _OPERATIONS.get(type(node).__name__)) is None:
        raise Unsampled
    return function(*values)


def _power(base: Value, exponent: Value) -> Value:
    if base == 0:
        if mpmath.re(exponent) <= 0:
            raise ZeroDivisionError
        return mpmath.mpf(0)
    if abs(exponent * mpmath.log(abs(base) if abs(base) != 1 else mpmath.mpf(2))) > _LARGEST_LOG:
        raise OverflowError
    return mpmath.power(base, exponent)


def _exponential(value: Value) -> Value:
    return _power(mpmath.e, value)


def _factorial(value: Value) -> Value:
    if abs(value) > _LARGEST_ARGUMENT:
        raise OverflowError
    return mpmath.factorial(value)


def _binomial(above: Value, below: Value) -> Value:
    if max(abs(above), abs(below)) > _LARGEST_ARGUMENT:
        raise OverflowError
    return mpmath.binomial(above, below)


def _logarithm(value: Value, base: Value = None) -> Value:
    if value == 0:
        raise ZeroDivisionError
    return mpmath.log(value) if base is None else mpmath.log(value) / mpmath.log(base)


def _whole(value: Value, *, is_up: bool) -> Value:
    if mpmath.im(value) != 0:
        raise ValueError("complex numbers are not rounded")
    near = mpmath.nint(value)
    if abs(value - near) < _NEGLIGIBLE:
        return near
    return mpmath.ceil(value) if is_up else mpmath.floor(value)


def _constant(name: str) -> Value:
    known = {"pi": mpmath.pi, "E": mpmath.e, "I": mpmath.mpc(0, 1), "GoldenRatio": mpmath.phi}
    if name not in known:
        raise Unsampled
    return +known[name]


_OPERATIONS: dict[str, Any] = {
    **{name: getattr(mpmath, name) for name in _FUNCTIONS},
    "conjugate": mpmath.conj,
    "Add": lambda *values: mpmath.fsum(values),
    "Mul": lambda *values: mpmath.fprod(values),
    "Pow": _power,
    "exp": _exponential,
    "log": _logarithm,
    "factorial": _factorial,
    "binomial": _binomial,
    "floor": lambda value: _whole(value, is_up=False),
    "ceiling": lambda value: _whole(value, is_up=True),
    "Abs": abs,
    "Max": max,
    "Min": min,
    "UnevaluatedExpr": lambda value: value,
}
