r"""Plain numbers, read exactly: integers, decimals, fractions, mixed numbers, powers of ten, repeating decimals.

A comma is part of a number only between groups of three digits and without a blank ("1,234"); "1,2" and "1, 234" are
lists. A decimal is exactly what it says: 0.33 is not 1/3. With six significant digits or more it may stand for a number
that no decimal can write, if it is that number rounded or cut off to its digits.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from revelm.rewards.math_units import SCALES

_MAX_DIGITS = 1000
_MAX_EXPONENT = 5000
MIN_SIGNIFICANT = 6
_MIN_REPEATED = 3

_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d{1,3}(?: \d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)"
_SIGN = r"(?P<sign>[-+]?)\s*"
_NUMBER = re.compile(
    rf"{_SIGN}(?P<number>{_PLAIN})"
    r"(?:[eE]\s*\{?(?P<e>[-+]?\d{1,5})\}?|\s*(?:\\cdot|\*|x)\s*10\s*\^\s*(?:\{\s*(?P<p>[-+]?\s*\d{1,5})\s*\}|(?P<q>[-+]?\d{1,5})))?"
)
_TEN = re.compile(rf"{_SIGN}10\s*\^\s*(?:\{{\s*(?P<p>[-+]?\s*\d{{1,5}})\s*\}}|(?P<q>-?\d))")
_MILLIONS = re.compile(
    rf"{_SIGN}(?P<number>{_PLAIN})\s*(?:\\text\{{)?\s*(?P<scale>hundred|thousand|million|billion|trillion)s?\s*\}}?"
)
_FRACTION = re.compile(
    rf"{_SIGN}(?:(?P<whole>\d+)\s*)?\\frac\s*\{{\s*(?P<top>[-+]?\s*{_PLAIN})\s*\}}\s*\{{\s*(?P<bottom>[-+]?\s*{_PLAIN})\s*\}}"
)
_SLASH = re.compile(rf"{_SIGN}(?:(?P<whole>\d+)\s+)?(?P<top>{_PLAIN})\s*/\s*(?P<bottom>-?{_PLAIN})")
_REPEATING = re.compile(
    rf"{_SIGN}(?P<whole>\d*)\.(?P<start>\d*)(?:\\(?:overline|bar|dot)\s*\{{\s*(?P<cycle>\d+)\s*\}}|\((?P<round>\d+)\)"
    r"|\\dot\s*\{\s*(?P<first>\d)\s*\}(?P<between>\d*)\\dot\s*\{\s*(?P<last>\d)\s*\})"
)
_GOES_ON = re.compile(rf"{_SIGN}(?P<whole>\d*)\.(?P<digits>\d+)\s*\.\.\.")
_CYCLE = re.compile(r"(?P<start>\d*?)(?P<cycle>\d+?)(?P=cycle)+")  # what is repeated at the end


class Quantity(NamedTuple):
    """An exact value; ``last_place``: the value of the last digit of a decimal, None for what is no decimal.

    ``is_rounded``: the value is that of an irrational constant, to many digits.
    """

    value: Fraction
    last_place: Fraction | None = None
    is_rounded: bool = False

    @property
    def is_endless(self) -> bool:
        """Whether no decimal can write it."""
        rest = self.value.denominator
        for factor in (2, 5):
            while rest % factor == 0:
                rest //= factor
        return self.is_rounded or rest > 1

    @property
    def significant(self) -> int:
        """How many significant digits a decimal has; 0 for what is no decimal."""
        return 0 if self.last_place is None else len(str(abs(self.value) // self.last_place))


def read_quantity(spelled: str) -> Quantity | None:
    """The number that a spelling is, None for anything else and for what has more than a thousand digits."""
    text = spelled.strip()
    while text.startswith("(") and text.endswith(")") and "(" not in text[1:] and "," not in text:
        text = text[1:-1].strip()
    if text.startswith("-(") and text.endswith(")") and "(" not in text[2:]:
        inner = read_quantity(text[2:-1])
        return None if inner is None else Quantity(-inner.value, inner.last_place)
    if not text or len(text) > _MAX_DIGITS:
        return None
    for pattern, read in _READERS:
        if (found := pattern.fullmatch(text)) is not None:
            return read(found)
    return None


def place_of(spelled: str) -> Fraction | None:
    """The value of the last digit that a number is given to, 0.01 for 1.41 and 1000 for 12000; None for no number."""
    number = read_quantity(spelled)
    if number is None or number.value == 0 or number.last_place is not None:
        return None if number is None else number.last_place
    if number.value.denominator != 1:
        return None
    digits = str(abs(number.value.numerator))
    return Fraction(10 ** (len(digits) - len(digits.rstrip("0"))))


def stands_for(decimal: Quantity, other: Quantity) -> bool:
    """Whether a decimal of at least six significant digits is an endless number, rounded or cut off to its digits."""
    if decimal.last_place is None or other.last_place is not None or decimal.significant < MIN_SIGNIFICANT:
        return False
    size, place = abs(decimal.value), decimal.last_place
    is_rounded = abs(decimal.value - other.value) <= place / 2
    is_cut_off = decimal.value * other.value > 0 and size <= abs(other.value) < size + place
    return other.is_endless and (is_rounded or is_cut_off)


def _decimal(digits: str) -> Quantity:
    digits = digits.replace(",", "").replace(" ", "")
    _, point, behind = digits.partition(".")
    value = Fraction(digits.rstrip(".") or "0")
    return Quantity(value, Fraction(1, 10 ** len(behind)) if point and behind else None)


def _signed(found: re.Match[str], value: Fraction, *, last_place: Fraction | None = None) -> Quantity:
    return Quantity(-value if found["sign"] == "-" else value, last_place)


def _number(found: re.Match[str]) -> Quantity | None:
    number = _decimal(found["number"])
    power = found["e"] or found["p"] or found["q"]
    if power is None:
        return _signed(found, number.value, last_place=number.last_place)
    return _scaled(found, number, int(power.replace(" ", "")))


def _scaled(found: re.Match[str], number: Quantity, power: int) -> Quantity | None:
    if abs(power) > _MAX_EXPONENT:
        return None
    scale = Fraction(10) ** power
    last_place = None if number.last_place is None else number.last_place * scale
    return _signed(found, number.value * scale, last_place=last_place)


def _ten(found: re.Match[str]) -> Quantity | None:
    return _scaled(found, Quantity(Fraction(1)), int((found["p"] or found["q"]).replace(" ", "")))


def _millions(found: re.Match[str]) -> Quantity | None:
    return _scaled(found, _decimal(found["number"]), SCALES[found["scale"]])


def _fraction(found: re.Match[str]) -> Quantity | None:
    parts = []
    for name in ("top", "bottom"):
        text = found[name].replace(" ", "")
        value = _decimal(text.lstrip("+-")).value
        parts.append(-value if text.startswith("-") else value)
    if parts[1] == 0:
        return None
    value = parts[0] / parts[1]
    if found["whole"] is not None:
        if not value >= 0:
            return None
        value += int(found["whole"])
    return _signed(found, value)


def _repeating(found: re.Match[str]) -> Quantity:
    dotted = "".join(found[name] or "" for name in ("first", "between", "last"))
    return _signed(found, _endless(found["whole"], found["start"], found["cycle"] or found["round"] or dotted))


def _goes_on(found: re.Match[str]) -> Quantity | None:
    """0.1333...: what is repeated goes on, if its repetitions have three digits; else the digits that there are."""
    whole, digits = found["whole"] or "0", found["digits"]
    cycle = _CYCLE.fullmatch(digits)
    if cycle is not None and len(digits) - len(cycle["start"]) >= _MIN_REPEATED:
        return _signed(found, _endless(whole, cycle["start"], cycle["cycle"]))
    number = _decimal(f"{whole}.{digits}")
    return _signed(found, number.value, last_place=number.last_place) if number.significant >= MIN_SIGNIFICANT else None


def _endless(whole: str, start: str, cycle: str) -> Fraction:
    period = Fraction(int(cycle), 10 ** len(start) * (10 ** len(cycle) - 1))
    return Fraction(f"{whole or '0'}.{start or '0'}") + period


_READERS = (
    (_NUMBER, _number),
    (_FRACTION, _fraction),
    (_SLASH, _fraction),
    (_TEN, _ten),
    (_MILLIONS, _millions),
    (_REPEATING, _repeating),
    (_GOES_ON, _goes_on),
)
