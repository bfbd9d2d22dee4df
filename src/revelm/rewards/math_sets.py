r"""Sets that are described: by what holds of their members, by what they leave out, or as having none.

``\{x \mid x > 3\}`` says no more than ``x > 3``, which names an interval; ``\mathbb{R} \setminus \{1\}`` is two of
them; "no solution" is the empty set. A set of whole numbers, or of anything else but reals, stays as it is written.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from revelm.rewards.math_quantity import read_quantity

_BUILDER = re.compile(
    r"\\\{\s*([a-zA-Z])\s*(?:(?:\\in|:)\s*\\mathbb\{R\}\s*)?(?:\\?\||:|\\text\{\s*such that\s*\})\s*(.+)\\\}", re.DOTALL
)
_REALS = r"(?:\\mathbb\{R\}|\(\s*-\\infty\s*,\s*\\infty\s*\))"
_WITHOUT = re.compile(rf"{_REALS}\s*(?:\\setminus|-|\\)\s*\\\{{([^{{}}]*)\\\}}")
_NAMED_IN = re.compile(r"[a-zA-Z]\s*\\in\s*(?=\\mathbb\{R\}\s*(?:\\setminus|-|\\)\s*\\\{)")
_EXCEPT = re.compile(
    r"(?:\\text\{\s*)?all (?:real numbers|reals),? (?:except|but|other than)(?: for)?"
    r"\s*\}?\s*(?:[a-z]\s*=\s*)?(-?[^{}=a-z]+)\}?",
    re.IGNORECASE,
)
_SYMBOLS = {r"\emptyset", r"\{\}", r"\{ \}"}
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_NOTHING = re.compile(
    r"(?:the )?(?:(?:null|empty) set|empty)|none"
    r"|(?:there (?:is|are|exists?) |has |have )?no (?:such )?(?:real |integer |possible )?(?:x |numbers? )?"
    r"(?:solutions?|roots?|values?|reals?|numbers?)?(?: exists?)?"
)
_MAX_WORDS = 60


def is_empty(spelled: str) -> bool:
    r"""Whether an answer says that there is nothing: ``\emptyset``, ``\{\}``, "no real solutions", "none"."""
    if spelled in _SYMBOLS:
        return True
    if len(spelled) > _MAX_WORDS:
        return False
    words = " ".join(_TEXT.sub(r"\1", spelled).lower().split()).rstrip(".!")
    return words != "no" and _NOTHING.fullmatch(words) is not None


def plainly(spelled: str) -> str:
    r"""A set of reals by the condition or the intervals that describe it; anything else as it is."""
    if (found := _EXCEPT.fullmatch(spelled)) is not None:
        return reals_without(found[1].split(",")) or spelled
    if r"\{" not in spelled:
        return spelled
    if (found := _BUILDER.fullmatch(spelled)) is not None and _is_about(found[2], found[1]):
        return found[2].strip()
    if (found := _WITHOUT.fullmatch(_NAMED_IN.sub("", spelled))) is not None:
        return reals_without(found[1].split(",")) or spelled
    return spelled


def _is_about(condition: str, name: str) -> bool:
    """Whether a condition has signs of order or membership, and speaks of one letter alone."""
    has_sign = re.search(r"[<>=]|\\(?:le|ge|ne|in)(?![a-zA-Z])", condition) is not None
    letters = set(re.findall(r"(?<![a-zA-Z\\])[a-zA-Z](?![a-zA-Z])", _TEXT.sub("", condition)))
    return has_sign and r"\{" not in condition and name in letters


def reals_without(members: Sequence[str]) -> str | None:
    """The reals without some numbers, as a union of intervals; None where they are not plain numbers."""
    places: list[tuple[Fraction, str]] = []
    for member in members:
        number = read_quantity(member)
        if number is None:
            return None
        places.append((number.value, member.strip()))
    ends = [r"-\infty", *(text for _, text in sorted(places)), r"\infty"]
    return r" \cup ".join(f"({low},{high})" for low, high in pairwise(ends))
