r"""One spelling for answers that are written the same but for looks, so that votes for them can be counted.

Only what changes no meaning is taken away: dollar signs and spaces around formulas, spaces, ``\left`` and ``\right``,
thin spaces, ``\dfrac`` for ``\frac``, a full stop at the end, separators of thousands and zeros of a number that stands
alone. ``1/2`` and ``0.5`` stay two spellings: that they are equal is the verdict's to find out, not the vote's.
"""

import re

from revelm.rewards.choice import choice_letter
from revelm.rewards.final_answer import BOX, Source, final_answer

_MAX_CHARACTERS = 2000
_SPACE = re.compile(r"\\[,;:! ]|\\q?quad\b|~|\s")
_OUTER = re.compile(r" (?![0-9A-Za-z])|(?<![0-9A-Za-z]) ")
_LOOKS = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])")
_FRACTION = re.compile(r"\\[dt]frac(?![A-Za-z])")
_THOUSANDS = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_NUMBER = re.compile(r"\+?(-?)0*([0-9]+)(?:\.([0-9]*))?")


def spelling(text: str, *, sources: tuple[Source, ...] = BOX) -> str | None:
    """The final answer of ``text`` in one spelling; None where there is none. Never raises."""
    answer = final_answer(text, sources=sources)
    return None if answer is None else spelt(answer.text) or None


def letter(text: str) -> str | None:
    """The letter in the last box of ``text``; None where there is none."""
    answer = final_answer(text, sources=BOX)
    return None if answer is None else choice_letter(answer.text)


def spelt(answer: str) -> str:
    """An answer in one spelling; long ones are cut."""
    plain = _SPACE.sub(" ", _FRACTION.sub(r"\\frac", _LOOKS.sub("", answer[:_MAX_CHARACTERS])))
    plain = _OUTER.sub("", " ".join(plain.split())).strip("$").rstrip(".")
    if _THOUSANDS.fullmatch(plain):
        plain = plain.replace(",", "")
    number = _NUMBER.fullmatch(plain)
    if number is None:
        return plain
    decimals = (number[3] or "").rstrip("0")
    value = number[2] + (f".{decimals}" if decimals else "")
    return value if value == "0" else number[1] + value
