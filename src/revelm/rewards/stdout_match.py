r"""Whether a program printed what it should: four rules, the same wherever programs run.

- ``exact``: both texts are cut into lines at ``\n``; blanks at the end of a line are taken off (the ``\r`` of ``\r\n``
  is one), and blank lines at the end of the output. What is left must be the same, byte for byte of UTF-8: line breaks
  count, so that "12" is not "1" and "2" on two lines, and so do blanks inside and in front of a line, case, and the way
  a number is written (``0.5`` is not ``.50``; there is no tolerance).
- ``stripped``, as the verifier of SYNTHETIC-1 has it: blanks in front of a line, and blank lines in front of the
  output, are taken off as well.
- ``livecodebench``, as its harness has it: ``stripped``, and a line of numbers alone may have them written otherwise
  (``1.0`` for ``1``), exactly as large as they are.
- ``apps``, close to its harness: ``stripped``, without empty lines, numbers written otherwise, and numbers with a
  decimal point within 1e-5 in proportion or 1e-8 (``numpy.allclose``). Whole numbers that are expected are exact but
  for 1e-6, so that no large one is met by its neighbour; and order counts, which it does not there.
"""

import io
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import zip_longest
from typing import Literal

Matching = Literal["exact", "stripped", "livecodebench", "apps"]

_BLANKS = b" \t\r\f\v"
_MAX_DIGITS = 5_000  # of a number that may be written otherwise; Python prints whole numbers of 4,300
_EMPTY_LINES = b"\n" * 2
_RELATIVE, _ABSOLUTE, _WHOLE = Decimal("1e-5"), Decimal("1e-8"), Decimal("1e-6")


def is_same_output(expected: str, printed: bytes, *, matching: Matching = "exact") -> bool:
    """Whether ``printed``, as it came out of the program, is the ``expected`` text. Never raises.

    Bytes that are no UTF-8 are never the expected text; nothing is replaced in them. Takes memory for the lines of the
    expected text, however many were printed.
    """
    try:
        wanted = expected.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, which no UTF-8 can say
        return False
    if matching != "exact":
        return _is_same_stripped(wanted, printed, matching)
    wanted, found = (text.rstrip(_BLANKS + b"\n") for text in (wanted, printed))
    if wanted == found:
        return True
    if wanted.count(b"\n") != found.count(b"\n"):
        return False
    lines = zip(wanted.split(b"\n"), found.split(b"\n"), strict=True)
    return all(one.rstrip(_BLANKS) == other.rstrip(_BLANKS) for one, other in lines)


def _is_same_stripped(wanted: bytes, found: bytes, matching: Matching) -> bool:
    has_empty = matching != "apps"
    pairs = zip_longest(_lines(wanted, has_empty=has_empty), _lines(found, has_empty=has_empty))
    return all(one is not None and other is not None and _is_same_line(one, other, matching) for one, other in pairs)


def _lines(text: bytes, *, has_empty: bool) -> Iterator[bytes]:
    """The lines of a text, blanks around them and around all taken off."""
    text = text.strip(_BLANKS + b"\n")
    while not has_empty and _EMPTY_LINES in text:
        text = text.replace(_EMPTY_LINES, b"\n")
    stripped = (line.strip(_BLANKS + b"\n") for line in io.BytesIO(text))
    return stripped if has_empty else (line for line in stripped if line)


def _is_same_line(wanted: bytes, found: bytes, matching: Matching) -> bool:
    if wanted == found:
        return True
    ours = wanted.split()
    theirs = found.split(None, len(ours))  # no more parts than tell the difference
    if matching == "stripped" or len(ours) != len(theirs):
        return False
    if matching == "apps":
        return all(one == other or _is_close(one, other) for one, other in zip(ours, theirs, strict=True))
    return all(_is_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def _is_equal(wanted: bytes, found: bytes) -> bool:
    """Whether two words are the same finite number, or the same infinity."""
    one, other = _number(wanted), _number(found)
    return one is not None and other is not None and one == other


def _is_close(wanted: bytes, found: bytes) -> bool:
    one, other = _number(wanted), _number(found)
    if one is None or other is None or not (one.is_finite() and other.is_finite()):
        return False
    if one == other:
        return True
    if max(one.adjusted(), other.adjusted()) > 300:  # no decimal number of a program
        return False
    is_whole = not set(wanted) & set(b".eE")
    return abs(one - other) <= (_WHOLE if is_whole else _ABSOLUTE + _RELATIVE * abs(one))


def _number(word: bytes) -> Decimal | None:
    """The number that a word spells, as ``Decimal`` reads it; None for another word and for what is no number."""
    if len(word) > _MAX_DIGITS:
        return None
    try:
        number = Decimal(word.decode("utf-8"))
    except (InvalidOperation, UnicodeDecodeError):
        return None
    return None if number.is_nan() else number
