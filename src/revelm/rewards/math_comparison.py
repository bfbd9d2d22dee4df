r"""Two answers in one spelling, taken apart side by side; see ``math_answer``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from revelm.rewards.math_formula import same_by_algebra, same_equation
from revelm.rewards.math_measure import Closeness, same_measured
from revelm.rewards.math_parts import MAX_PARTS, Parts, has_or, joined_by_commas, parts_of, signs_spread
from revelm.rewards.math_quantity import read_quantity
from revelm.rewards.math_relation import (
    Named,
    Relation,
    interval_of,
    is_equation,
    is_name,
    named_value,
    ranges_of,
    read_relation,
)
from revelm.rewards.math_sets import is_empty, plainly
from revelm.rewards.math_text import key
from revelm.rewards.math_units import split_unit
from revelm.rewards.math_words import marked_letter, number_words_read, read_label, read_words, same_label

_MAX_DEPTH = 6
_LETTERS = re.compile(r"(?<!\\)\b[a-zA-Z]")
_TEXT_LIST = re.compile(r"^\\text\{([^{}]*(?:,|\band\b|\bor\b)[^{}]*)\}$")


@dataclass(frozen=True)
class Comparison:
    """One comparison: how close numbers must be, how many brackets deep it is, and in which form answers must be."""

    closeness: Closeness
    depth: int = 0
    is_worked_out: bool = True

    def holds(self, reference: str, answer: str) -> bool:
        """Whether two spellings mean the same."""
        if not key(reference) or not key(answer) or self.depth > _MAX_DEPTH:
            return False
        if key(reference) == key(answer):
            return True
        if is_empty(reference) or is_empty(answer):
            return is_empty(reference) and is_empty(answer)
        reference, answer = plainly(reference), plainly(answer)
        if (same := self._words(reference, answer)) is not None:
            return same
        lists = _lists(reference, answer)
        if len(lists[0]) > 1 or len(lists[1]) > 1:
            return self._lists(reference, answer, lists)
        return self._single(reference, answer)

    def _words(self, reference: str, answer: str) -> bool | None:
        """The verdict where the reference is words or the letter of a choice; None where it is neither."""
        letter = marked_letter(reference)
        if letter is None and marked_letter(answer):
            letter = marked_letter(reference, is_bare_enough=True)
        if letter is not None:
            return marked_letter(answer, is_bare_enough=True) == letter
        labels = read_label(reference), read_label(answer)
        if labels[0] and labels[1]:
            return same_label(labels[0], labels[1])
        words, said = read_words(reference), read_words(answer)
        if words is not None and words == said:
            return True
        numbers = number_words_read(reference), number_words_read(answer)
        if numbers != (reference, answer):
            return self._deeper().holds(*numbers)
        is_prose = words is not None and r"\text" in reference and parts_of(reference).kind == "one"
        return False if is_prose and "," not in reference else None

    def _lists(self, reference: str, answer: str, lists: tuple[tuple[str, ...], tuple[str, ...]]) -> bool:
        """Where at least one of two answers has several parts."""
        parts = [parts_of(reference), parts_of(answer)]
        if len(lists[0]) == len(lists[1]):
            named = [len({_named(item).name for item in items} - {""}) for items in lists]
            is_tuple = sorted(named) == [0, len(lists[0])]  # "x=1, y=2" is answered by "1, 2", not by "2, 1"
            return self._ordered(*lists) if is_tuple else self._unordered(*lists)
        ranges = [_ranges(items, text) for items, text in zip(lists, (reference, answer), strict=True)]
        if ranges[0] or ranges[1]:
            united = [r" \cup ".join(r) if r else text for r, text in zip(ranges, (reference, answer), strict=True)]
            return self._single(*united)
        if len(lists[0]) > 1 and len(lists[1]) == 1:
            return self._set_or_tuple(lists[0], parts[1], is_choice=has_or(reference))
        if len(lists[1]) > 1 and len(lists[0]) == 1:
            return self._set_or_tuple(lists[1], parts[0], is_choice=has_or(answer), is_swapped=True)
        return False

    def _set_or_tuple(self, items: tuple[str, ...], parts: Parts, *, is_choice: bool, is_swapped: bool = False) -> bool:
        """A list against something in brackets: the members of a set, or a tuple in the same order.

        ``is_choice``: the list is joined by "or", so that it is no tuple.
        """
        pair = (parts.items, items) if is_swapped else (items, parts.items)
        if parts.kind == "set":
            return self._unordered(signs_spread(pair[0]), signs_spread(pair[1]))
        is_tuple = parts.kind == "group" and parts.brackets == "()" and not is_choice
        return is_tuple and self._ordered(_by_name(pair[0]), _by_name(pair[1]))

    def _single(self, reference: str, answer: str) -> bool:
        relations = read_relation(reference), read_relation(answer)
        if relations[0] or relations[1]:
            return self._relations(reference, answer, *relations)
        parts = _parts(reference), _parts(answer)
        if parts[0].kind == parts[1].kind == "one":
            return same_measured(reference, answer, self.closeness, is_worked_out=self.is_worked_out)
        return self._parts(*parts) or same_by_algebra(reference, answer)

    def _parts(self, reference: Parts, answer: Parts) -> bool:
        if reference.kind != answer.kind:
            return False
        if reference.kind in ("set", "union", "list"):
            return self._unordered(signs_spread(reference.items), signs_spread(answer.items))
        is_otherwise = reference.kind == "group" and reference.brackets != answer.brackets
        if is_otherwise and (len(reference.items) == 2 or answer.brackets not in ("()", "[]")):
            return False
        if reference.kind == "matrix" and (reference.width, reference.brackets) != (answer.width, answer.brackets):
            return False
        return self._ordered(reference.items, answer.items)

    def _ordered(self, reference: Sequence[str], answer: Sequence[str]) -> bool:
        if len(reference) != len(answer):
            return False
        return all(self._deeper().holds(a, b) for a, b in zip(reference, answer, strict=True))

    def _unordered(self, reference: Sequence[str], answer: Sequence[str]) -> bool:
        """Whether each of one side has a partner of its own on the other."""
        if len(reference) != len(answer) or len(reference) > MAX_PARTS:
            return False
        left = list(answer)
        unmatched = []
        for item in reference:  # first those that are spelt alike: comparing values takes a thousand times longer
            match = next((k for k, other in enumerate(left) if key(other) == key(item)), None)
            if match is None:
                unmatched.append(item)
            else:
                del left[match]
        for item in unmatched:
            match = next((k for k, other in enumerate(left) if self._deeper().holds(item, other)), None)
            if match is None:
                return False
            del left[match]
        return True

    def _relations(self, reference: str, answer: str, first: Relation | None, second: Relation | None) -> bool:
        """Where at least one of the two is an equation, an inequality or says what it is in."""
        ranges = [interval_of(relation) if relation else None for relation in (first, second)]
        named = [r or _named(text) for r, text in zip(ranges, (reference, answer), strict=True)]
        if second and not self._is_true_chain(second):
            return False
        if self._named(named[0], named[1]):
            return True
        if named[0].name and key(named[0].name) == key(named[1].name):
            return False
        if first and second:
            return len(first.sides) == len(second.sides) == 2 and _same_relation(first, second)
        if first and is_equation(first):  # a chain such as "0.56 = 56%": each side is the answer
            return any(self._deeper().holds(side, answer) for side in _values_in(first))
        if second and is_equation(second):
            sides = _values_in(second)
            is_true = len(sides) > 1 and all(
                replace(self._deeper(), is_worked_out=False).holds(reference, s) for s in sides
            )
            return is_true and any(self._deeper().holds(reference, side) for side in sides)
        return False

    def _is_true_chain(self, chain: Relation) -> bool:
        """Whether no number in the middle of a chain of equations is another one than at its end: x = 8 = 7."""
        if set(chain.signs) != {"="} or len(chain.sides) < 3:
            return True
        loose = replace(self._deeper(), is_worked_out=False)
        return all(_LETTERS.search(side) or loose.holds(chain.sides[-1], side) for side in chain.sides[1:-1])

    def _named(self, reference: tuple[str, str], answer: tuple[str, str]) -> bool:
        """Values, and the names where both have one."""
        if reference[0] and answer[0] and key(reference[0]) != key(answer[0]):
            return False
        if read_relation(reference[1]) or read_relation(answer[1]):
            return key(reference[1]) == key(answer[1])
        return self._deeper().holds(reference[1], answer[1])

    def _deeper(self) -> "Comparison":
        return replace(self, depth=self.depth + 1)


def _lists(reference: str, answer: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parts of two answers that are lists, one part for what is none. "1,234" is a list only beside another."""
    first, second = _items(reference), _items(answer)
    if len(first) > 1 and _is_number(reference):
        first = (reference,)
    if len(second) > 1 and len(first) == 1 and _is_number(answer):
        second = (answer,)
    return first, second


def _items(spelled: str) -> tuple[str, ...]:
    if (words := _TEXT_LIST.match(spelled)) is not None:
        spelled = words[1]
    joined = joined_by_commas(spelled)
    parts = parts_of(joined)
    return signs_spread(parts.items if parts.kind == "list" else (joined,))  # of a set, its members are, later


def _by_name(items: tuple[str, ...]) -> tuple[str, ...]:
    """The items of "y = 2, x = 1" in the order of their letters, which is that of a tuple; others as they are."""
    names = [_named(item).name for item in items]
    is_named = all(len(name) == 1 for name in names) and len(set(names)) == len(names)
    return tuple(item for _, item in sorted(zip(names, items, strict=True))) if is_named else items


def _parts(spelled: str) -> Parts:
    return Parts("one", (spelled,)) if _is_number(spelled) else parts_of(spelled)


def _is_number(spelled: str) -> bool:
    return read_quantity(split_unit(spelled).body) is not None


def _ranges(items: Sequence[str], spelled: str) -> list[str] | None:
    """The intervals that inequalities allow; None unless all of the items are inequalities of one name."""
    relations = [relation for item in items if (relation := read_relation(item)) is not None]
    return ranges_of(relations, is_union=has_or(spelled)) if len(relations) == len(items) else None


def _values_in(chain: Relation) -> tuple[str, ...]:
    """The sides of a chain that are its value: all but a name, none where the first is a formula of letters."""
    if is_name(chain.sides[0]):
        return chain.sides[1:]
    return () if _LETTERS.search(chain.sides[0]) else chain.sides


def _named(spelled: str) -> Named:
    relation = read_relation(spelled)
    return (named_value(relation) if relation else None) or Named("", spelled)


def _same_relation(first: Relation, second: Relation) -> bool:
    """Whether two equations, or two inequalities of one kind, say the same of the same letters."""
    sides = [relation.sides for relation in (first, second)]
    if is_equation(first):
        return is_equation(second) and same_equation(
            (sides[0][0], sides[0][1]), (sides[1][0], sides[1][1]), is_oriented=False
        )
    signs = [first.signs[0], second.signs[0]]
    for k, sign in enumerate(signs):
        if sign in (">", r"\ge"):
            signs[k] = {">": "<", r"\ge": r"\le"}[sign]
            sides[k] = sides[k][::-1]
    if signs[0] != signs[1] or signs[0] not in ("<", r"\le"):
        return False
    return same_equation((sides[0][0], sides[0][1]), (sides[1][0], sides[1][1]), is_oriented=True)
