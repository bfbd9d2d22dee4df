r"""The items of two answers that are lists: split, spread and in the order of their names."""

import re

from revelm.rewards.math_parts import joined_by_commas, parts_of, signs_spread
from revelm.rewards.math_quantity import read_quantity
from revelm.rewards.math_relation import Named, named_value, read_relation
from revelm.rewards.math_units import split_unit

_TEXT_LIST = re.compile(r"^\\text\{([^{}]*(?:,|\band\b|\bor\b)[^{}]*)\}$")


def lists_of(reference: str, answer: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parts of two answers that are lists, one part for what is none. "1,234" is a list only beside another."""
    first, second = _items(reference), _items(answer)
    if len(first) > 1 and is_number(reference):
        first = (reference,)
    if len(second) > 1 and len(first) == 1 and is_number(answer):
        second = (answer,)
    if len(first) > 1 or len(second) > 1:
        return _spread(first, len(second)), _spread(second, len(first))
    return first, second


def _items(spelled: str) -> tuple[str, ...]:
    if (words := _TEXT_LIST.match(spelled)) is not None:
        spelled = words[1]
    joined = joined_by_commas(spelled)
    parts = parts_of(joined)
    return signs_spread(parts.items if parts.kind == "list" else (joined,))  # of a set, its members are, later


def _spread(items: tuple[str, ...], num: int) -> tuple[str, ...]:
    r"""``x = 1, y = 2`` for ``(x, y) = (1, 2)``, and ``1, 2`` for ``x \in \{1, 2\}``, where the other side has as many
    items; else the items as they are."""
    relation = read_relation(items[0]) if len(items) == 1 else None
    if relation is None or relation.signs not in (("=",), (r"\in",)):
        return items
    if relation.signs == (r"\in",):
        members = parts_of(relation.sides[1])
        return members.items if members.kind == "set" and len(members.items) == num else items
    names, values = (parts_of(side) for side in relation.sides)
    is_tuple = names.kind == values.kind == "group" and len(names.items) == len(values.items) == num
    return tuple(f"{a} = {b}" for a, b in zip(names.items, values.items, strict=True)) if is_tuple else items


def by_name(items: tuple[str, ...]) -> tuple[str, ...]:
    """The items of "y = 2, x = 1" in the order of their letters, which is that of a tuple; others as they are."""
    names = [named_in(item).name for item in items]
    is_named = all(len(name) == 1 for name in names) and len(set(names)) == len(names)
    return tuple(item for _, item in sorted(zip(names, items, strict=True))) if is_named else items


def named_in(spelled: str) -> Named:
    """The value that an answer gives, and the name it gives it, "" for none."""
    relation = read_relation(spelled)
    return (named_value(relation) if relation else None) or Named("", spelled)


def is_number(spelled: str) -> bool:
    """Whether an answer is a plain number, with a unit or without."""
    return read_quantity(split_unit(spelled).body) is not None
