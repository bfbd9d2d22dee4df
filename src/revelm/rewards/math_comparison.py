r"""Two answers in one spelling, taken apart side by side; see ``math_answer``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from revelm.rewards.math_formula import same_by_algebra, same_equation
from revelm.rewards.math_lists import by_name, is_number, lists_of, named_in
from revelm.rewards.math_measure import Closeness, same_measured
from revelm.rewards.math_parts import MAX_PARTS, Parts, has_or, parts_of, signs_spread
from revelm.rewards.math_quantity import place_of
from revelm.rewards.math_relation import (
    Relation,
    interval_of,
    is_equation,
    is_name,
    ranges_of,
    read_relation,
)
from revelm.rewards.math_remarks import conditioned, said_twice, without_remark
from revelm.rewards.math_sets import is_empty, plainly
from revelm.rewards.math_text import key
from revelm.rewards.math_units import split_unit
from revelm.rewards.math_words import marked_letter, number_words_read, read_label, read_words, same_label

_MAX_DEPTH = 6
_MAX_TWICE = 3
_NEARLY = (r"\approx", r"\sim")
_LETTERS = re.compile(r"(?<!\\)\b[a-zA-Z]")


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
        if (without := without_remark(answer)) != answer and without_remark(reference) == reference:
            return self._deeper().holds(reference, without)
        ends = conditioned(reference), conditioned(answer)
        if ends[0].condition or ends[1].condition:
            is_other = ends[0].condition and ends[1].condition and ends[0].condition != ends[1].condition
            return not is_other and self._deeper().holds(ends[0].body, ends[1].body)
        reference, answer = plainly(reference), plainly(answer)
        if (same := self._words(reference, answer)) is not None:
            return same
        lists = lists_of(reference, answer)
        if len(lists[0]) > 1 or len(lists[1]) > 1:
            return self._lists(reference, answer, lists)
        return self._single(reference, answer) or self._twice(reference, said_twice(answer))

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

    def _twice(self, reference: str, said: Sequence[str] | None) -> bool:
        """Whether an answer says the reference more than once, and nothing else."""
        return said is not None and len(said) <= _MAX_TWICE and all(self._deeper().holds(reference, s) for s in said)

    def _lists(self, reference: str, answer: str, lists: tuple[tuple[str, ...], tuple[str, ...]]) -> bool:
        """Where at least one of two answers has several parts."""
        parts = [parts_of(reference), parts_of(answer)]
        if len(lists[0]) == len(lists[1]):
            named = [len({named_in(item).name for item in items} - {""}) for items in lists]
            is_tuple = sorted(named) == [0, len(lists[0])]  # "x=1, y=2" is answered by "1, 2", not by "2, 1"
            return self._ordered(*lists) if is_tuple else self._unordered(*lists)
        if len(lists[0]) == 1 and has_or(answer) and self._twice(reference, lists[1]):
            return True
        if parts[0].kind == "union" and all(parts_of(item).kind == "group" for item in lists[1]):
            return self._unordered(parts[0].items, lists[1])
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
        return is_tuple and self._ordered(by_name(pair[0]), by_name(pair[1]))

    def _single(self, reference: str, answer: str) -> bool:
        relations = read_relation(reference), read_relation(answer)
        if relations[0] or relations[1]:
            return self._relations(reference, answer, *relations)
        parts = _parts(reference), _parts(answer)
        alone = [p.items[0] if p.kind == "set" and len(p.items) == 1 else None for p in parts]
        if "one" in (parts[0].kind, parts[1].kind) and (alone[0] or alone[1]):  # the set of one solution
            return self._deeper().holds(alone[0] or reference, alone[1] or answer)
        if parts[0].kind == parts[1].kind == "one":
            return same_measured(reference, answer, self.closeness, is_worked_out=self.is_worked_out)
        return self._parts(*parts) or same_by_algebra(reference, answer)

    def _parts(self, reference: Parts, answer: Parts) -> bool:
        if {reference.kind, answer.kind} == {"group", "matrix"}:  # a column is a tuple of its entries
            return _is_vector(reference) and _is_vector(answer) and self._ordered(reference.items, answer.items)
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
        named = [r or named_in(text) for r, text in zip(ranges, (reference, answer), strict=True)]
        if second and not self._is_true_chain(second):
            return False
        if self._named(named[0], named[1]):
            return True
        if second and second.signs[-1] in _NEARLY and self._deeper().holds(reference, second.sides[-1]):
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
        """Whether no number in the middle of a chain of equations is another one than at its end: x = 8 = 7.

        What stands behind an approximation sign has to be what stands before it, rounded.
        """
        for k, sign in enumerate(chain.signs):
            exact, rounded = (split_unit(side).body for side in chain.sides[k : k + 2])
            place = place_of(rounded) if sign in _NEARLY and not _LETTERS.search(exact) else None
            if place is not None:
                near = Comparison(Closeness(absolute=float(place) * 0.999), self.depth + 1)
                if not near.holds(rounded, exact):
                    return False
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


def _is_vector(parts: Parts) -> bool:
    return parts.brackets == "()" if parts.kind == "group" else parts.width == 1 and not parts.brackets


def _parts(spelled: str) -> Parts:
    return Parts("one", (spelled,)) if is_number(spelled) else parts_of(spelled)


def _ranges(items: Sequence[str], spelled: str) -> list[str] | None:
    """The intervals that inequalities allow; None unless all of the items are inequalities of one name."""
    relations = [relation for item in items if (relation := read_relation(item)) is not None]
    return ranges_of(relations, is_union=has_or(spelled)) if len(relations) == len(items) else None


def _values_in(chain: Relation) -> tuple[str, ...]:
    """The sides of a chain that are its value: all but a name, none where the first is a formula of letters."""
    if is_name(chain.sides[0]):
        return chain.sides[1:]
    return () if _LETTERS.search(chain.sides[0]) else chain.sides


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
