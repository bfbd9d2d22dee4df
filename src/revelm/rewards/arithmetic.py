r"""Arithmetic as people and models write it, worked out exactly: whole numbers, ``+ - * /`` and parentheses.

Nothing is executed: a text is either an expression of this grammar, or it is refused. ``\times``, ``\cdot``, ``\div``,
``×``, ``÷``, ``−``, ``\frac{}{}``, ``\left`` and ``\right`` are read as what they mean. There are no powers, no decimal
numbers, no products without a sign, and no digits but 0 to 9.

    sum     = [-] product {(+ | -) product}
    product = factor {(* | /) factor}
    factor  = number | ( sum ) | \frac{sum}{sum}
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARACTERS = 400
MAX_DEPTH = 40
_MAX_DIGITS = 12
_SPELLINGS = {
    "\\times": "*", "\\cdot": "*", "\\div": "/", "\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-",
    "\\left": "", "\\right": "", "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\,": "", "\\!": "", "\\;": "", "$": "",
}  # fmt: skip
_TOKEN = re.compile(r"\s*([0-9]+|\\frac|[-+*/(){}])")


class NotArithmeticError(ValueError):
    """A text that is no expression, with the reason for people."""


@dataclass(frozen=True)
class Expression:
    """A value, and the numbers that were written to get it, in their order."""

    value: Fraction
    numbers: tuple[int, ...]


def evaluate(text: str) -> Expression:
    """What an expression says. Raises NotArithmeticError for any other text, and for a division by zero."""
    if len(text) > MAX_CHARACTERS:
        raise NotArithmeticError(f"longer than {MAX_CHARACTERS} characters")
    for spelling, plain in _SPELLINGS.items():
        text = text.replace(spelling, plain)
    reader = _Reader(_tokens(text.strip()))
    found = reader.sum(depth=0)
    if reader.peek() is not None:
        raise NotArithmeticError(f"unexpected {reader.peek()!r}")
    return found


def _tokens(text: str) -> list[str]:
    tokens, place = list[str](), 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise NotArithmeticError(f"unexpected {text[place:].strip()[:12]!r}")
        if len(found[1]) > _MAX_DIGITS:
            raise NotArithmeticError(f"a number of more than {_MAX_DIGITS} digits")
        tokens.append(found[1])
        place = found.end()
    return tokens


class _Reader:
    """The tokens that are still to be read. Values are worked out while reading."""

    def __init__(self, tokens: list[str]) -> None:
        self._left = tokens[::-1]

    def peek(self) -> str | None:
        """The next token; None at the end."""
        return self._left[-1] if self._left else None

    def sum(self, depth: int) -> Expression:
        """Products, added and subtracted from left to right."""
        if depth > MAX_DEPTH:
            raise NotArithmeticError(f"nested more than {MAX_DEPTH} deep")
        is_negative = self._takes("-")
        found = self._product(depth)
        value, numbers = (-found.value if is_negative else found.value), found.numbers
        while self.peek() in ("+", "-"):
            sign = 1 if self._left.pop() == "+" else -1
            found = self._product(depth)
            value, numbers = value + sign * found.value, numbers + found.numbers
        return Expression(value, numbers)

    def _product(self, depth: int) -> Expression:
        found = self._factor(depth)
        while self.peek() in ("*", "/"):
            sign = self._left.pop()
            found = _applied(sign, found, self._factor(depth))
        return found

    def _factor(self, depth: int) -> Expression:
        token = self._left.pop() if self._left else "the end"
        if token[0] in "0123456789":
            return Expression(Fraction(int(token)), (int(token),))
        if token == "(":
            return self._closed(")", depth)
        if token == "\\frac":
            self._expect("{")
            above = self._closed("}", depth)
            self._expect("{")
            return _applied("/", above, self._closed("}", depth))
        raise NotArithmeticError(f"unexpected {token!r}" if token != "the end" else "ends too early")

    def _closed(self, bracket: str, depth: int) -> Expression:
        found = self.sum(depth + 1)
        self._expect(bracket)
        return found

    def _expect(self, token: str) -> None:
        if not self._takes(token):
            raise NotArithmeticError(f"{token!r} is missing")

    def _takes(self, token: str) -> bool:
        if self.peek() != token:
            return False
        self._left.pop()
        return True


def _applied(sign: str, left: Expression, right: Expression) -> Expression:
    numbers = left.numbers + right.numbers
    if sign == "*":
        return Expression(left.value * right.value, numbers)
    if right.value == 0:
        raise NotArithmeticError("division by zero")
    return Expression(left.value / right.value, numbers)
