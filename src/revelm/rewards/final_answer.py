r"""Where in a text the final answer stands.

Tried in this order, the first that finds something counts; which of them may be tried at all is ``sources``:

box       the last balanced ``\boxed{...}`` or ``\fbox{...}``. Boxes that follow each other with nothing but a comma, a
          semicolon, a slash, "and" or "or" between them, and a name for the second ("and $y =$"), are the parts of one
          answer, and so are boxes in one sentence with "or", "maybe", "could" between them: hedging ("\boxed{1}, or
          perhaps \boxed{2}") is an answer of two parts and not the second of them. Otherwise the last box counts alone,
          without "the answer is" in it.
bare box  ``\boxed 7``, as some write it
hash      what follows the last ``####``, up to the end of the line
tag       what stands in the last ``<answer>...</answer>``
phrase    what follows the last "answer is", "answer:", "answer =" or 答案, up to the end of the sentence or its
          reason ("because", "since")
whole     the whole text, if it is one line of at most 100 characters without a sentence in it
formula   the last ``$...$``, ``\(...\)``, ``$$...$$`` or ``\[...\]``
number    the last number

A box that was begun and not ended holds no answer, nor does what stands before it, but for a box, ``####`` or a tag.
Thoughts do not count: the answer stands behind the last ``</think>``, and a thought that was begun and not ended holds
none. For rewards only boxes count (``BOX``): a policy that may choose where its answer is found is paid for numbers
that happen to come last. ``STATED`` adds what says of itself that it is the answer, ``ANYWHERE`` all the rest.
"""

import itertools
import re
from dataclasses import dataclass
from typing import Literal

from revelm.rewards.boxed import Box, boxes

Source = Literal["box", "bare box", "hash", "tag", "phrase", "whole", "formula", "number"]
BOX: tuple[Source, ...] = ("box",)
STATED: tuple[Source, ...] = ("box", "bare box", "hash", "tag", "phrase")
ANYWHERE: tuple[Source, ...] = (*STATED, "whole", "formula", "number")

_THOUGHT, _THOUGHT_END = "<think>", "</think>"
_BARE_BOX = re.compile(r"\\boxed\s+([^\s${}\\]+)")
_HASH = re.compile(r"####[ \t]*([^\n]+)")
_TAG = re.compile(r"<answer>((?:(?!</?answer>).){1,4000})</answer>", re.DOTALL | re.IGNORECASE)
_UNENDED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_SAID_INSIDE = re.compile(
    r"\s*(?:\\text\s*\{\s*)?(?:the\s+)?(?:final\s+)?answer(?:\s+is\b\s*:?|\s*[:=])\s*(?:\}\s*)?", re.IGNORECASE
)
_PHRASE = re.compile(
    r"(?:\banswer(?:[\s*_]+is\b(?:\s+(?:therefore|thus|then|simply)\b)?|[\s*_]*[:=])|\u7b54\u6848[\u662f\u4e3a]?[:\uff1a]?)"
    r"[\s*:]*",
    re.IGNORECASE,
)
# A full stop inside a number does not end a sentence; reasons are none of the answer.
_SENTENCE = re.compile(r"[.!?](?=\s|\*|$)|。|\n|,?\s(?:because|since)\s|,\sas\s")
_FORMULA = re.compile(r"\$\$([^$]+)\$\$|\$([^$\n]+)\$|\\\((.{1,400}?)\\\)|\\\[(.{1,400}?)\\\]", re.DOTALL)
_DISPLAYED = re.compile(r"\$\$([^$]+)\$\$|\\\[(.{1,400}?)\\\]", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.,])[-+\u2212]?(?:\d[\d,]*\.?\d*|\.\d+)(?:/\d+)?(?:[eE][-+]?\d+)?%?")
_SENTENCE_INSIDE = re.compile(
    r"^(?:So|Thus|Hence|Therefore|It)\b|^(?:[A-Za-z]{2,},?\s+){2,}[^A-Za-z]*\d"
    r"|[.!?:]\s|^[^$]*[A-Za-z]{2,}\s[^$]*\$[^$]+\$|(?:[A-Za-z]{2,}\s+){4}"
)
# What may stand between two boxes that are parts of one answer: signs of a formula, and one joining sign or word.
_SIGN = r"(?:\s|\$|\\[,;:! ]|\\q?quad|~|\*\*|\\[()\[\]])"
_SIGNS = rf"{_SIGN}*"
_HEDGE = re.compile(r"\b(?:or|maybe|perhaps|possibly|alternatively|could|might|unless)\b", re.IGNORECASE)
_END = re.compile(r"[.!?]\s|\n\s*\n")
_JOINT = re.compile(
    rf"(?:(?!\n){_SIGN})*|{_SIGNS}(?:[,;/]|,?{_SIGNS}(?:\\text\s*\{{\s*(?:and|or)\s*\}}|and|or)){_SIGNS}"
    rf"(?:[a-zA-Z](?:_\{{?\w\}}?)?\s*={_SIGNS})?"
)
_MAX_JOINT = 60
_MAX_WHOLE = 100
_TAIL = 20_000  # characters at the end of a text in which all but boxes are looked for


@dataclass(frozen=True)
class Answer:
    """What was found, and how. ``parts``: the boxes of an answer in several of them, else one entry.

    ``text`` joins them by a comma, or by "or" where the answer does: alternatives are no tuple.
    """

    text: str
    source: Source
    parts: tuple[str, ...] = ()


def final_answer(text: str, *, sources: tuple[Source, ...] = STATED) -> Answer | None:
    """The answer that a text gives; None where it gives none. Never raises; time is linear in the text."""
    said = text.rpartition(_THOUGHT_END)[2]
    if _THOUGHT in said:
        return None
    is_unended = _UNENDED.search(said[-_TAIL:]) is not None  # where boxes are whole, the first source finds one
    for source, find in _FINDERS.items():
        if is_unended and source in ("whole", "formula", "number"):
            return None
        if source in sources and (answer := find(said)) is not None:
            return answer
    return None


def _box(text: str) -> Answer | None:
    found = boxes(text)
    if not found:
        return None
    chain = [found[-1]]
    for box in reversed(found[:-1]):
        if not _is_joined(text, box, chain[-1]):
            break
        chain.append(box)
    chain.reverse()
    parts = tuple(_said_plainly(box.content(text)) for box in chain)
    is_choice = any(_HEDGE.search(text[first.end : second.start]) for first, second in itertools.pairwise(chain))
    return Answer((" or " if is_choice else ", ").join(parts), "box", parts)


def _is_joined(text: str, first: Box, second: Box) -> bool:
    if not first.end <= second.start <= first.end + _MAX_JOINT:
        return False
    between = text[first.end : second.start]
    return _JOINT.fullmatch(between) is not None or (_HEDGE.search(between) is not None and not _END.search(between))


def _said_plainly(content: str) -> str:
    """The contents of a box without "the answer is" in front."""
    if (found := _SAID_INSIDE.match(content)) is None:
        return content
    rest = content[found.end() :]
    return rest if rest.count("}") <= rest.count("{") else rest.rstrip(" .").removesuffix("}")


def _bare_box(text: str) -> Answer | None:
    return _one(_last(_BARE_BOX, text), "bare box")


def _hash(text: str) -> Answer | None:
    return _one(_last(_HASH, text), "hash")


def _tag(text: str) -> Answer | None:
    found = _last(_TAG, text)
    return None if found is None else _one(_said_plainly(found), "tag")


def _phrase(text: str) -> Answer | None:
    tail = _UNENDED.split(text[-_TAIL:])[-1]
    said = list(_PHRASE.finditer(tail))
    if not said:
        return None
    rest = tail[said[-1].end() :]
    if (shown := _DISPLAYED.match(rest)) is not None:
        return _one(next(filter(None, shown.groups())), "phrase")
    return _one(_SENTENCE.split(rest, maxsplit=1)[0], "phrase")


def _whole(text: str) -> Answer | None:
    line = text.strip()
    is_answer = 0 < len(line) <= _MAX_WHOLE and not re.search("\n|<answer>", line) and not _SENTENCE_INSIDE.search(line)
    return _one(line, "whole") if is_answer else None


def _formula(text: str) -> Answer | None:
    return _one(_last(_FORMULA, text), "formula")


def _number(text: str) -> Answer | None:
    return _one(_last(_NUMBER, text), "number")


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = list(pattern.finditer(text[-_TAIL:]))
    return next((group for group in found[-1].groups() if group), found[-1].group()) if found else None


def _one(found: str | None, source: Source) -> Answer | None:
    answer = (found or "").strip().strip("*").strip()
    return Answer(answer, source, (answer,)) if answer else None


_FINDERS = {
    "box": _box,
    "bare box": _bare_box,
    "hash": _hash,
    "tag": _tag,
    "phrase": _phrase,
    "whole": _whole,
    "formula": _formula,
    "number": _number,
}
