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
_RANGES = ((0, 2), (3, 13), (17, 59), (0, 2), (3, 7), (5, 23), (0, 2), (2, 5), (7, 31))  # of the values of letters
_SIGNED = 3  # from this point on of either sign, for every letter another pattern: |x| is not x, nor |xy| xy
_FUNCTIONS = (
    *("sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "acot", "asec", "acsc"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "re", "im", "arg"),
)


class Unsampled(Exception):  # noqa: N818 - not an error: the expression is of a kind that has no such value
    """The expression has no value that can be computed here."""


def sample(expression: Any, *, has_steps: bool, is_real: bool = False) -> tuple[Value, ...]:
    """Values at the points; one alone for a constant. None at a point where it has none. Raises Unsampled.

    ``has_steps``: a formula with floors or ceilings is in play, which a few points cannot tell from its neighbours: 30
    whole numbers are added. ``is_real``: no value where a root or logarithm of a negative number would be needed.
    """
    from sympy import Basic

    if not isinstance(expression, Basic):
        raise Unsampled
    with mpmath.workdps(DIGITS):
        is_constant = not expression.free_symbols - {s for s in expression.free_symbols if s.name == "i"}
        if is_constant:
            values = (_settled(expression),)
        else:
            points = range(len(_RANGES) + (_NUM_STEPS if has_steps else 0))
            values = tuple(_at(expression, point, is_real=is_real) for point in points)
    if all(value is None for value in values):
        raise Unsampled
    return values


def agree(first: Value, second: Value, *, is_settled: bool = False) -> bool:
    """Whether two values are the same to 25 digits. ``is_settled``: small ones are no rests of a rounding."""
    allowed = _RELATIVE * max(abs(first), abs(second))
    return bool(abs(first - second) <= (allowed if is_settled else max(allowed, _NEGLIGIBLE)))


def _settled(expression: Any) -> Value:
    """The value of a constant; 0 for what more digits show to be the rest of a rounding."""
    value = _at(expression, 0)
    if value is None or value == 0 or abs(value) > _RELATIVE:
        return value
    with mpmath.workdps(2 * DIGITS):
        finer = _at(expression, 0)
    return value if finer is not None and agree(value, finer, is_settled=True) else mpmath.mpf(0)


def _at(expression: Any, point: int, *, is_real: bool = False) -> Value:
    try:
        value = _evaluate(expression, point, is_real=is_real)
    except (ZeroDivisionError, ValueError, OverflowError, TypeError):
        return None
    return value if mpmath.isfinite(value) else None


def _letter(name: str, point: int) -> Value:
    if point >= len(_RANGES):
        return mpmath.mpf((crc32(name.encode("utf-8", "replace")) + point - len(_RANGES)) % _MAX_STEP + 1)
    low, high = _RANGES[point]
    spread = crc32(f"{name}/{point}".encode("utf-8", "replace"))
    value = low + (high - low) * mpmath.mpf(spread % 99991 + 1) / 99992
    if point < _SIGNED:
        return value
    signs = sum(name.encode("utf-8", "replace")) % (2 ** (len(_RANGES) - _SIGNED) - 1) + 1
    return -value if signs >> (point - _SIGNED) & 1 else value


def _evaluate(node: Any, point: int, *, is_real: bool) -> Value:
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
    values = [_evaluate(argument, point, is_real=is_real) for argument in node.args]
    if (function := _OPERATIONS.get(type(node).__name__)) is None:
        raise Unsampled
    if is_real and node.free_symbols and _leaves_reals(type(node).__name__, values):
        raise ValueError("a root or logarithm of a negative number")
    return function(*values)


def _leaves_reals(function: str, values: list[Value]) -> bool:
    base = values[0]
    if function not in ("Pow", "log") or mpmath.im(base) != 0 or mpmath.re(base) >= 0:
        return False
    return function == "log" or not mpmath.isint(values[1])


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
