r"""What stands behind an answer and is none: for which letters it holds, why it is so, the same once more in brackets.

``x + c \text{ for any constant } c`` is ``x + c``; ``\frac{\pi}{2} + k\pi, k \in \mathbb{Z}`` keeps its condition
apart, so that another one (``k \in \mathbb{N}``) is another answer; ``\frac12 (50\%)`` says one thing twice.
"""

import re
from typing import NamedTuple

from revelm.rewards.math_quantity import read_quantity
from revelm.rewards.math_units import split_unit

_REMARK = re.compile(
    r"(?P<body>.*?[^\s,(])[\s,]*\\text\s*\{[\s,(]*"
    r"(?:(?:for (?:all|any|every|each|some)|where|since|because)\b(?P<remark>.*)|for\s*\}[^,]*(?:[<>]|\\[lg]e)[^,]*)",
    re.DOTALL,
)
_OTHER = re.compile(r"\b(?:or|else|otherwise|others?|but|unless|maybe|perhaps)\b")
_CONDITION = re.compile(
    r"(?P<body>.*?[^\s,(])[\s,]*(?:\\text\s*\{[\s,]*(?:for|where|with)\s*\}\s*|\(|,|\s)\s*"
    r"(?P<letter>[a-z])\s*\\in\s*(?P<set>\\mathbb\s*\{\s*[ZNRQ]\s*\}|\\mathbb [ZNRQ]|[ZNRQ])\s*\)?",
    re.DOTALL,
)
_TWICE = re.compile(r"(?P<first>.*?[^\s(])\s*\((?P<second>[^()]*)\)", re.DOTALL)


class Conditioned(NamedTuple):
    """An answer, and in which set the letter is for which it holds; "" where it says none."""

    body: str
    condition: str


def without_remark(spelled: str) -> str:
    r"""An answer without "for any constant c", "where ..." or "since ..." behind it, unless that is another answer."""
    found = _REMARK.fullmatch(spelled) if r"\text" in spelled else None
    return spelled if found is None or _OTHER.search(found["remark"] or "") else found["body"]


def conditioned(spelled: str) -> Conditioned:
    r"""An answer and what it says of its parameter: ``2k, k \in \mathbb{Z}``. The letter has to be in the answer."""
    found = _CONDITION.fullmatch(spelled) if r"\in" in spelled else None
    if found is None or re.search(rf"(?<![a-zA-Z\\]){found['letter']}(?![a-zA-Z])", found["body"]) is None:
        return Conditioned(spelled, "")
    letters = re.findall("[ZNRQ]", found["set"])
    return Conditioned(found["body"], f"{found['letter']} in {letters[-1]}")


def said_twice(spelled: str) -> tuple[str, str] | None:
    r"""The two numbers of ``\frac12 (0.5)``; None for anything else."""
    found = _TWICE.fullmatch(spelled)
    if found is None or read_quantity(split_unit(found["second"].strip()).body) is None:
        return None
    return found["first"], found["second"].strip()
