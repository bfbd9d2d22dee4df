r"""Answers in words: names, days, "even", choices such as (B), dates, numbers from one to twenty.

Words are compared without regard to case, articles, punctuation and ``\text{}``.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

_CHOICE = re.compile(
    r"(?:(?:option|choice)\s*)?\(\s*([A-J])\s*\)(?:[\s.:]+(?!(?:or|and|but|maybe)\b)(?P<rest>.*))?"
    r"|(?:option|choice)\s+([A-J])(?:\s*[.:)](?P<more>.*))?|([A-J])(?:\)|[.:]\s)(?P<option>.+)?",
    re.DOTALL | re.IGNORECASE,
)
_OTHER_CHOICE = re.compile(r"(?<![A-Za-z\\])([A-H])(?![A-Za-z])")
_LETTER = re.compile(r"^(?:\\text\{\s*([A-Z])\s*[.:)]?\s*\}|([A-Z])\s*[.:)]?)$")
_LABEL = re.compile(r"^(?:\\(overline|overrightarrow|angle|triangle)\s*)?\{?([A-Z](?:\s*[A-Z]){1,9})\}?$")
_WORDS = re.compile(r"^[^\W\d_][^\W\d_]*(?:['’\-. ]+[^\W\d_]*)*+$")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_ARTICLES = {"a", "an", "the"}
_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SHARES = ("whole", "half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_COUNTING = {*_NUMBERS, *_TENS, "plus", "minus", "times", "point", "squared", "cubed"}
_SHARE = re.compile(r"([a-z]+)[ -]([a-z]+)")
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_DATE = re.compile(
    r"^(?:([a-z]+)\.? (\d{1,2})(?:st|nd|rd|th)?|(\d{1,2})(?:st|nd|rd|th)? (?:of )?([a-z]+)\.?)(?:,? (\d{4}))?$"
)
_CLOCK = re.compile(r"^0?(\d{1,2}):(\d\d)(?::(\d\d))? ?([ap])\.? ?m\.?$")


_SAME_WORDS = {
    **dict.fromkeys(("dne", "limit does not exist", "it does not exist"), "does not exist"),
    "infinitely many solutions": "infinitely many",
}


class Label(NamedTuple):
    """Capitals that name points, sides or an order of things, and the sign in front of them, "" for none."""

    mark: str
    letters: str


def marked_letter(spelled: str, *, is_bare_enough: bool = False) -> str | None:
    r"""The capital of ``(B)``, ``\text{B}``, ``(B) 12``; of a bare ``B`` or ``B.`` only if ``is_bare_enough``.

    A bare capital may be a variable as well: it is a choice where the other answer says that it is one. What an answer
    to a multiple-choice question names, in either case and in more forms, is `revelm.rewards.choice.choice_letter`.
    """
    plain = " ".join(_TEXT.sub(r" \1 ", spelled).split())
    if found := _CHOICE.fullmatch(plain):
        letter = next(filter(None, (found[1], found[3], found[5])))
        rest = "".join(filter(None, (found["rest"], found["more"], found["option"])))
        return letter if letter.isupper() and {letter}.issuperset(_OTHER_CHOICE.findall(rest)) else None
    if found := _LETTER.match(spelled):
        return found[1] or (found[2] if is_bare_enough else None)
    return None


def read_label(spelled: str) -> Label | None:
    r"""The label that two or more capitals beside each other are: ``ABC``, ``\overline{AB}``, ``\angle ABC``."""
    found = _LABEL.match(spelled)
    return None if found is None else Label(found[1] or "", found[2].replace(" ", ""))


def same_label(first: Label, second: Label) -> bool:
    """Whether two labels name the same: letters in their order, of a side or an angle also from the other end."""
    marks = {first.mark, second.mark} - {""}
    has_ends = marks <= {"overline", "angle"} and (len(first.letters) == 2 or marks == {"angle"})
    return len(marks) < 2 and (first.letters == second.letters or (has_ends and first.letters == second.letters[::-1]))


def read_words(spelled: str) -> str | None:
    r"""The words of an answer in one form; None for what is not words. A single letter without ``\text`` is none."""
    plain = _TEXT.sub(r" \1 ", spelled)
    is_text = plain != spelled
    plain = " ".join(plain.split()).strip(" .,;:!\"'")
    lower = plain.lower()
    if dated := _date(lower) or _clock(lower):
        return dated
    if not _WORDS.match(plain) or (not is_text and len(plain) < 2 and plain.isascii()):
        return None
    words = [word.strip(".'-") for word in lower.split()]
    said = " ".join(word for word in words if word and word not in _ARTICLES) or lower
    return _SAME_WORDS.get(said, said)


def number_words_read(spelled: str) -> str:
    r"""With digits for a number word at the beginning: ``\text{two lines}`` is ``2 \text{lines}``."""
    if (share := _share(" ".join(_TEXT.sub(r"\1", spelled).split()).lower())) is not None:
        return share
    found = re.match(r"^(?:\\text\{\s*)?([A-Za-z]+)(?:\s+([a-zA-Z ]+?))?\s*\}?$", spelled)
    if found is None or found[1].lower() not in _NUMBERS:
        return spelled
    digits = str(_NUMBERS.index(found[1].lower()))
    return f"{digits} \\text{{{found[2]}}}" if found[2] else digits


def says_number(words: Sequence[str]) -> bool:
    """Whether words behind a number, in small letters, say another one: "3 four", "3 plus one", "3 halves".

    Quarters are coins as well, and a unit can be squared, but not what has none.
    """
    is_raised = len(words) > 1 and words[-1] in ("squared", "cubed")
    counted = words[:-1] if is_raised else words
    return any(word in _COUNTING or word in ("halves", "thirds", "tenths") for word in counted)


def _share(words: str) -> str | None:
    """A share in words as a fraction, "two thirds" or "three-fourths"; None for anything else."""
    if (found := _SHARE.fullmatch(words)) is None or found[1] not in (*_NUMBERS, "a"):
        return None
    name = found[2].replace("halves", "half").removesuffix("s").replace("fourth", "quarter")
    number = 1 if found[1] == "a" else _NUMBERS.index(found[1])
    return f"{number}/{_SHARES.index(name) + 1}" if name in _SHARES[1:] else None


def _date(text: str) -> str | None:
    found = _DATE.match(text)
    if found is None:
        return None
    name = found[1] or found[4]
    matching = [month for month in _MONTHS if month == name or (len(name) >= 3 and month.startswith(name))]
    if len(matching) != 1:
        return None
    return " ".join(filter(None, (matching[0], str(int(found[2] or found[3])), found[5])))


def _clock(text: str) -> str | None:
    found = _CLOCK.match(text)
    return None if found is None else f"{found[1]}:{found[2]}:{found[3] or '00'} {found[4]}m"
