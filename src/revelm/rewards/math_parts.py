r"""What an answer is made of: lists, tuples, intervals, sets, unions, matrices; \pm as two answers.

Works on spellings (``math_text``). Brackets are matched by position and not by kind, so that half-open intervals hold
together.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from revelm.rewards.math_matrix import read_matrix
from revelm.rewards.math_sets import is_empty

Kind = Literal["one", "list", "group", "set", "union", "matrix"]
MAX_PARTS = 200

_TOKEN = re.compile(r"\\text\{[^{}]*\}|\\begin\{|\\end\{|\\[a-zA-Z]+|\\.|.", re.DOTALL)
# A matrix is one bracket more: \begin{x} opens two, of which its own brace closes one, and that of \end{x} the other.
_OPEN = {"(": 1, "[": 1, "{": 1, r"\{": 1, r"\begin{": 2}
_CLOSE = {")", "]", "}", r"\}"}
_AND = re.compile(r"\\text\{[\s,]*(?:and|or|,)[\s,]*\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])")
_COMMAS = re.compile(r",(?:\s*,)+")
_REALS = re.compile(r"\\mathbb\{R\}|(?:\\text\{\s*)?all (?:real numbers|reals)(?:\s*\})?", re.IGNORECASE)


class Parts(NamedTuple):
    """The parts of an answer. ``brackets``: of a group its two brackets, of a matrix its kind.

    A matrix has its rows one after the other, ``width`` entries each.
    """

    kind: Kind
    items: tuple[str, ...]
    brackets: str = ""
    width: int = 0


def parts_of(spelled: str) -> Parts:
    """Take an answer apart, one level deep; "one" for what has no parts."""
    if is_empty(spelled):
        return Parts("set", ())
    if _REALS.fullmatch(spelled):
        return Parts("group", (r"-\infty", r"\infty"), "()")
    if r"\begin{" in spelled and (matrix := read_matrix(spelled)) is not None:
        return Parts("matrix", matrix.items, matrix.bars, matrix.width)
    pieces = split(spelled, _is_comma)
    if len(pieces) > 1:
        return Parts("list", tuple(pieces))
    united = split(spelled, lambda token: token == r"\cup")
    if len(united) > 1:
        return Parts("union", tuple(united))
    return _bracketed(spelled) or Parts("one", (spelled,))


def joined_by_commas(spelled: str) -> str:
    """With commas for "and" and "or" between the parts of an answer."""
    if "and" not in spelled and "or" not in spelled and r"\text" not in spelled:
        return spelled
    return _COMMAS.sub(",", _AND.sub(",", spelled)).strip(" ,")


def has_or(spelled: str) -> bool:
    """Whether an answer joins its parts by "or"."""
    return re.search(r"(?<![a-zA-Z\\])or(?![a-zA-Z])", spelled) is not None


def signs_spread(items: Sequence[str]) -> tuple[str, ...]:
    r"""The answers with \pm written as two: the upper signs, and the lower ones. Sets stay as they are."""
    spread: list[str] = []
    for item in items:
        if item.startswith(r"\{") or (r"\pm" not in item and r"\mp" not in item):
            spread.append(item)
            continue
        for upper, lower in (("+", "-"), ("-", "+")):
            chosen = re.sub(r"\\pm(?![a-zA-Z])", upper, item)
            spread.append(re.sub(r"\\mp(?![a-zA-Z])", lower, chosen).strip().removeprefix("+").strip())
    return tuple(spread)


def split(spelled: str, is_separator: Callable[[str], bool]) -> list[str]:
    """The pieces between separators that stand outside all brackets, stripped; empty ones are left out."""
    pieces: list[str] = []
    depth = start = 0
    for token, position in tokens(spelled):
        depth = max(depth + _OPEN.get(token, 0) - (token in _CLOSE), 0)
        if depth == 0 and is_separator(token):
            pieces.append(spelled[start:position])
            start = position + len(token)
    pieces.append(spelled[start:])
    return [piece.strip() for piece in pieces if piece.strip()]


def tokens(spelled: str) -> Iterator[tuple[str, int]]:
    """Commands, words in \\text and single characters, with where they begin."""
    for token in _TOKEN.finditer(spelled):
        yield token.group(), token.start()


def _is_comma(token: str) -> bool:
    return token in ",;"


def _bracketed(spelled: str) -> Parts | None:
    r"""A tuple, an interval or a set: all of it between one pair of brackets."""
    opening = r"\{" if spelled.startswith(r"\{") else spelled[:1]
    closing = r"\}" if spelled.endswith(r"\}") else spelled[-1:]
    if opening not in ("(", "[", r"\{") or closing not in (")", "]", r"\}") or not _is_one_pair(spelled):
        return None
    inner = spelled[len(opening) : -len(closing)].strip()
    items = tuple(split(inner, _is_comma))
    if opening == r"\{":
        return Parts("set", items) if closing == r"\}" and not re.search(r"\\?[|:]", inner) else None
    return Parts("group", items, opening + closing) if len(items) > 1 else None


def _is_one_pair(spelled: str) -> bool:
    """Whether the first bracket is closed by the last one."""
    depth = 0
    for token, position in tokens(spelled):
        depth += _OPEN.get(token, 0) - (token in _CLOSE)
        if depth == 0:
            return position + len(token) == len(spelled)
    return False
