r"""The shape of an expression: what is written, but for the order of terms and factors, brackets, 0 and 1.

``-1+x^2`` has the shape of ``x^2-1`` and ``\sqrt{3}-\sqrt{2}`` that of ``-\sqrt2+\sqrt3``; ``(x-1)(x+1)`` and ``2+3``
have others than ``x^2-1`` and 5: nothing is multiplied out or added up.
"""

from typing import Any

Shape = tuple[Any, ...]
_MINUS: Shape = ("-1",)
_ONE: Shape = ("1",)


def shape_of(expression: Any) -> Shape:
    """The shape of an unevaluated sympy expression, to be compared with others."""
    name = type(expression).__name__
    if expression.is_Rational and expression.q != 1:
        share = ("Pow", (str(expression.q),), ("-1",))
        return share if expression.p == 1 else ("Mul", *sorted(((str(expression.p),), share), key=repr))
    if not expression.args:
        return (str(expression),)
    if name == "UnevaluatedExpr":
        return shape_of(expression.args[0])
    if name not in ("Add", "Mul"):
        return (name, *(shape_of(argument) for argument in expression.args))
    parts = _flat(expression, name)
    return parts[0] if len(parts) == 1 else (name, *sorted(parts, key=repr))


def _flat(expression: Any, name: str) -> list[Shape]:
    """The shapes of all terms, or factors, without those that change nothing; a minus in front of a sum is taken in."""
    neutral = ("0",) if name == "Add" else ("1",)
    parts: list[Shape] = []
    for argument in expression.args:
        shape = shape_of(argument)
        parts += shape[1:] if shape[0] == name and len(shape) > 1 else [shape]
    kept = [part for part in parts if part != neutral]
    if name == "Mul" and _MINUS in kept:
        is_minus = kept.count(_MINUS) % 2 == 1
        kept = [part for part in kept if part != _MINUS]
        kept = _with_minus(kept) if is_minus else kept
    return kept or [neutral]


def _with_minus(factors: list[Shape]) -> list[Shape]:
    """A product times -1: its number, or else its first sum, or else a factor of -1 takes the sign."""
    place = next((k for k, part in enumerate(factors) if _is_number(part)), None)
    if place is None:
        place = next((k for k, part in enumerate(factors) if part[0] == "Add"), None)
    if place is None:
        return [*factors, _MINUS]
    changed = _negated(factors[place])
    return [*factors[:place], *([] if changed == _ONE else [changed]), *factors[place + 1 :]]


def _negated(shape: Shape) -> Shape:
    if _is_number(shape):
        return (shape[0][1:],) if shape[0].startswith("-") else (f"-{shape[0]}",)
    if shape[0] == "Add":
        return ("Add", *sorted(map(_negated, shape[1:]), key=repr))
    factors = list(shape[1:]) if shape[0] == "Mul" else [shape]
    factors = [part for part in factors if part != _MINUS] if _MINUS in factors else _with_minus(factors)
    return factors[0] if len(factors) == 1 else ("Mul", *sorted(factors, key=repr))


def _is_number(shape: Shape) -> bool:
    return len(shape) == 1 and shape[0].removeprefix("-").isdigit()
