r"""Single answers: a number or a formula, with a unit or without, exactly or within a tolerance."""

import re
from dataclasses import dataclass
from fractions import Fraction

import mpmath

from revelm.rewards.math_form import has_no_more_terms, has_only_kinds_of, is_worked_number
from revelm.rewards.math_formula import fraction_of, same_by_algebra, same_values, same_where_real, values_of
from revelm.rewards.math_quantity import Quantity, read_quantity, stands_for
from revelm.rewards.math_text import key
from revelm.rewards.math_units import Measured, split_units, units_agree
from revelm.rewards.math_values import DIGITS, Value

_IN_BASE = re.compile(r"^-?[\dA-Fa-f, ]+_(?:\{\s*\d+\s*\}|\d+)$")
_RATIO = re.compile(r":|(?<=\d)\s*(?:\\text\{\s*to\s*\}|to)\s*(?=\d)")
_LARGEST_POWER = 5000


@dataclass(frozen=True)
class Closeness:
    """How near a number must come: within ``absolute`` or ``relative`` times the reference; 0: exactly.

    ``is_percent``: the question asks for a percentage, so that 50 % answers a reference of 50; ``is_base_stated``: it
    says in which base the answer is to be, so that 52 answers 52_8. ``accepts_unworked``: an expression with the value
    of the reference is as good as the value (``math_form``).
    """

    absolute: float = 0.0
    relative: float = 0.0
    is_percent: bool = False
    is_base_stated: bool = False
    accepts_unworked: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a tolerance that is negative or not a number."""
        for name, value in (("absolute", self.absolute), ("relative", self.relative)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value}: expected a finite tolerance, 0 for none")

    @property
    def is_loose(self) -> bool:
        """Whether a number may differ at all."""
        return bool(self.absolute or self.relative)


EXACT = Closeness()


def same_measured(reference: str, answer: str, closeness: Closeness, *, is_worked_out: bool = True) -> bool:
    """Whether two spellings are the same number or formula; a unit may be missing but not differ.

    ``is_worked_out``: the answer has to be in a form that is one (``math_form``), where no tolerance is given.
    """
    first, second = split_units(reference, answer)
    if "percent" in (first.unit, second.unit):
        return _same_percents(first, second, closeness)
    is_demanded = is_worked_out and not closeness.is_loose and not closeness.accepts_unworked
    is_same_unit = units_agree(first.unit, second.unit)
    return is_same_unit and _same_bodies(first.body, second.body, closeness, is_worked_out=is_demanded)


def _same_percents(reference: Measured, answer: Measured, closeness: Closeness) -> bool:
    """A reference in percent is met by the number with and without its sign, and by the share it is."""
    if reference.unit == answer.unit:
        return _same_bodies(reference.body, answer.body, closeness)
    first, second = read_quantity(reference.body), read_quantity(answer.body)
    if first is None or second is None or (reference.unit and answer.unit):
        return False
    is_percent = reference.unit == "percent"
    if _same_numbers(_hundredth(first) if is_percent else first, second if is_percent else _hundredth(second), EXACT):
        return True
    return (is_percent or closeness.is_percent) and _same_numbers(first, second, closeness)


def _same_bodies(reference: str, answer: str, closeness: Closeness, *, is_worked_out: bool = True) -> bool:
    if key(reference) == key(answer):
        return True
    if _IN_BASE.match(reference) or _IN_BASE.match(answer):
        # Digits of another base are a notation, not a value: only the same notation is right, or its digits.
        return closeness.is_base_stated and key(answer) == key(reference.partition("_")[0])
    if ":" in reference or ":" in answer:
        return _same_ratio(reference, answer)
    first, second = read_quantity(reference), read_quantity(answer)
    if first is not None and second is not None:
        return _same_numbers(first, second, closeness)
    if is_worked_out and not (is_worked_number(answer) if first is not None else has_no_more_terms(reference, answer)):
        return False
    exact = first or _fraction(reference), second or _fraction(answer)
    if exact[0] is not None and exact[1] is not None:
        is_open = is_worked_out and not has_only_kinds_of(reference, answer)
        return not is_open and _same_numbers(exact[0], exact[1], closeness)
    values = values_of(reference, answer)
    said = None if values is None else values_of(answer, reference)
    if values is not None and said is None and second is not None:  # 1.414213..., which the grammar does not read
        number = _constant(values)
        return number is not None and _same_numbers(number, second, closeness)
    if values is None or said is None:
        return same_by_algebra(reference, answer)
    if is_worked_out and len(values) == 1 and not has_only_kinds_of(reference, answer):
        return False
    if same_values(values, said) or same_where_real(reference, answer):
        return True
    numbers = first or _constant(values), second or _constant(said)
    return numbers[0] is not None and numbers[1] is not None and _same_numbers(numbers[0], numbers[1], closeness)


def _same_ratio(reference: str, answer: str) -> bool:
    """3:4 is 6:8 and "6 to 8", and also the fraction 3/4; but 3:1 is not the number 3."""
    ratios = []
    for text in (reference, answer):
        parts = _RATIO.split(text)
        if len(parts) == 1 and "/" not in text and r"\frac" not in text:
            return False
        sides = [read_quantity(part) for part in parts]
        values = [side.value for side in sides if side is not None]
        if len(values) < len(parts) or values[-1] == 0:
            return False
        ratios.append([value / values[-1] for value in values[:-1]] or values)
    return ratios[0] == ratios[1]


def _fraction(spelled: str) -> Quantity | None:
    value = fraction_of(spelled)
    return None if value is None else Quantity(value)


def _constant(values: tuple[Value, ...]) -> Quantity | None:
    """A constant formula as a number, to as many digits as were computed."""
    value = values[0]
    if len(values) > 1 or value is None or value.imag != 0 or value == 0:
        return None
    if abs(mpmath.log10(abs(value))) > _LARGEST_POWER:
        return None
    return Quantity(Fraction(mpmath.nstr(value.real, DIGITS)), is_rounded=True)


def _same_numbers(reference: Quantity, answer: Quantity, closeness: Closeness) -> bool:
    if reference.value == answer.value:
        return True
    if closeness.absolute or closeness.relative:
        allowed = max(Fraction(closeness.absolute), Fraction(closeness.relative) * abs(reference.value))
        if abs(reference.value - answer.value) <= allowed * (1 + Fraction(1, 10**9)):
            return True
    return stands_for(reference, answer) or stands_for(answer, reference)


def _hundredth(number: Quantity) -> Quantity:
    return Quantity(number.value / 100, None if number.last_place is None else number.last_place / 100)
