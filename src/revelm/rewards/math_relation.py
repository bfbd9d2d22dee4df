r"""Equations and inequalities in an answer: what is named, and which numbers it can be.

``x = 3`` names 3, ``x \in [1, 2]`` and ``1 \le x \le 2`` name an interval. Names are letters, words, angles, applied
functions, sums and products of them ("m + n"), and tuples ("(m, n)"); ``2x`` and ``x^2`` name nothing.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from revelm.rewards.math_parts import split, tokens
from revelm.rewards.math_quantity import read_quantity
from revelm.rewards.math_sets import reals_without

_SIGNS = {"=", "<", ">", r"\le", r"\ge", r"\ne", r"\in", r"\approx", r"\sim", r"\equiv"}
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne", "=": "="}
_INDEX = r"(?:_(?:\{[^{}]*\}|\w)|'|\^\{?(?:'+|-1)\}?)*+"
_ONE_NAME = (  # possessive: letters beside each other could else be told apart in exponentially many ways
    rf"(?:[a-zA-Z]++{_INDEX}(?:\([^()]*\))?|\\(?!frac|sqrt|sin|cos|tan|log|ln|exp)[a-zA-Z]++{_INDEX}(?:\([^()]*\))?"
    rf"|\\text\{{[^{{}}]*\}}{_INDEX}|\\(?:angle|triangle|overline|dot|ddot|hat|bar|tilde)\s*\{{?[A-Za-z ]+{_INDEX}\}}?)"
)
_NAME = re.compile(
    rf"^(?:\|?{_ONE_NAME}(?:\s*+(?:(?:[-+*/,]|\\cdot)\s*+)?+{_ONE_NAME})*+\|?|\({_ONE_NAME}(?:\s*+,\s*+{_ONE_NAME})++\))$"
)
_BRACED = re.compile(r"(?<![a-zA-Z_^}])\{([a-zA-Z])\}")  # \mathbf{v}
_AREA = re.compile(r"\[[A-Z]{2,}\]|(?:[A-Z]|\\mathbb\{[A-Z]\})\s*\[[^\[\]]+\]")  # [ABC], E[X]
_ABSOLUTE = re.compile(r"\|\s*([a-y])\s*\|")
_MAX_NAME = 60


class Relation(NamedTuple):
    """Sides and the signs between them, one fewer."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]


class Named(NamedTuple):
    """A value with the name that an answer gives it; "" for none."""

    name: str
    value: str


def read_relation(spelled: str) -> Relation | None:
    """The sides of an equation or inequality outside all brackets; None where there is none or a side is missing."""
    sides = split(spelled, _SIGNS.__contains__)
    if len(sides) < 2:
        return None
    signs, depth = [], 0
    for token, _ in tokens(spelled):
        depth = max(depth + (token in _OPENING) - (token in _CLOSING), 0)
        if depth == 0 and token in _SIGNS:
            signs.append(token)
    return Relation(tuple(sides), tuple(signs)) if len(signs) == len(sides) - 1 else None


def is_equation(relation: Relation) -> bool:
    """Whether all its signs say that the sides are equal, or nearly."""
    return all(sign in ("=", r"\approx", r"\sim", r"\equiv") for sign in relation.signs)


def is_name(side: str) -> bool:
    """Whether a side of a relation only names something."""
    if len(side) > _MAX_NAME:
        return False
    plain = _BRACED.sub(r"\1", side).replace(r"\|", "|")
    return _NAME.match(plain) is not None or _AREA.fullmatch(plain) is not None


def named_value(relation: Relation) -> Named | None:
    r"""What an equation gives a name to, or a set that a name is in; None for other relations.

    Of a chain the last side counts, or of an approximation what stands before ``\approx``.
    """
    sides, signs = relation
    if signs == (r"\in",) and is_name(sides[0]):
        return Named(sides[0], sides[1])
    if not is_equation(relation):
        return None
    exact = next((k for k, sign in enumerate(signs) if sign in (r"\approx", r"\sim")), None)
    last = len(sides) - 1 if exact is None else exact
    if is_name(sides[0]) and (last > 0 or len(sides) == 2):
        return Named(sides[0], sides[max(last, 1)])
    if len(sides) == 2 and exact is None and read_quantity(sides[0]) is not None and is_name(sides[1]):
        return Named(sides[1], sides[0])
    return Named("", sides[exact]) if exact is not None else None


def interval_of(relation: Relation) -> Named | None:
    r"""The numbers that an inequality allows its one name, as an interval or a union; None for other relations."""
    sides, signs = relation
    if (sized := _size(relation)) is not None:
        return sized
    if len(sides) == 3 and is_name(sides[1]):
        low, high = sides[0], sides[2]
        if set(signs) <= {">", r"\ge"}:
            low, high, signs = high, low, (_FLIPPED[signs[1]], _FLIPPED[signs[0]])
        if set(signs) <= {"<", r"\le"}:
            left, right = "[" if signs[0] == r"\le" else "(", "]" if signs[1] == r"\le" else ")"
            return Named(sides[1], f"{left}{low},{high}{right}")
        return None
    if len(sides) != 2 or signs[0] not in _FLIPPED or signs[0] == "=":
        return None
    name, bound, sign = sides[0], sides[1], signs[0]
    if not is_name(name):
        name, bound, sign = bound, name, _FLIPPED[sign]
    return Named(name, _RANGES[sign].format(bound)) if is_name(name) else None


def _size(relation: Relation) -> Named | None:
    r"""What ``|x| < c`` and ``|x| > c`` say of a real x; of z and of sets they say something else."""
    sides, signs = relation.sides, relation.signs
    if len(sides) != 2:
        return None
    inner, bound, sign = sides[0], sides[1], signs[0]
    if _ABSOLUTE.fullmatch(bound):
        inner, bound, sign = bound, inner, _FLIPPED.get(sign, "")
    found, number = _ABSOLUTE.fullmatch(inner), read_quantity(bound)
    if found is None or sign not in _SIZES or number is None or number.value <= 0:
        return None
    return Named(found[1], _SIZES[sign].format(bound))


def ranges_of(relations: Sequence[Relation], *, is_union: bool) -> list[str] | None:
    r"""The intervals that inequalities of one name allow, all of them, or with ``is_union`` any; None for others.

    Without ``is_union`` two bounds are one interval if the lower one is lower, and otherwise what lies outside them,
    which is what people mean by "x < 1, x > 3".
    """
    found = [interval_of(relation) for relation in relations]
    named = [one for one in found if one is not None]
    if not named or len(named) < len(found) or len({one.name for one in named}) > 1:
        return None
    values = [one.value for one in named]
    if is_union:
        return values
    if all(relation.signs == (r"\ne",) for relation in relations):
        sides = [r.sides[1] if r.sides[0] == one.name else r.sides[0] for r, one in zip(relations, named, strict=True)]
        without = reals_without(sides)
        return values if without is None else [without]
    if len(values) != 2:
        return values
    low, high = sorted(values, key=lambda value: value.startswith(r"(-\infty,"))
    if not (low.endswith(r",\infty)") and high.startswith(r"(-\infty,")) or r"\cup" in low + high:
        return values
    bounds = read_quantity(low[1 : -len(r",\infty)")]), read_quantity(high[len(r"(-\infty,") : -1])
    if bounds[0] == bounds[1] and low[0] == "[" and high[-1] == "]":
        return None
    is_outside = bounds[0] is None or bounds[1] is None or bounds[0].value >= bounds[1].value
    return values if is_outside else [low[: -len(r"\infty)")] + high[len(r"(-\infty,") :]]


_OPENING, _CLOSING = {"(", "[", "{", r"\{", r"\begin{"}, {")", "]", "}", r"\}"}
_SIZES = {
    "<": "(-({0}),{0})",
    r"\le": "[-({0}),{0}]",
    ">": r"(-\infty,-({0})) \cup ({0},\infty)",
    r"\ge": r"(-\infty,-({0})] \cup [{0},\infty)",
}
_RANGES = {
    "<": r"(-\infty,{0})",
    r"\le": r"(-\infty,{0}]",
    ">": r"({0},\infty)",
    r"\ge": r"[{0},\infty)",
    r"\ne": r"(-\infty,{0}) \cup ({0},\infty)",
}
