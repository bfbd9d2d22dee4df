r"""Whether a program printed what it should: one rule, wherever programs run.

Both texts are cut into lines at ``\n``; blanks at the end of a line are taken off (the ``\r`` of ``\r\n`` is one), and
blank lines at the end of the output. What is left must be the same, byte for byte of UTF-8: line breaks count, so that
"12" is not "1" and "2" on two lines, and so do blanks inside and in front of a line, case, and the way a number is
written (``0.5`` is not ``.50``; there is no tolerance).
"""

_BLANKS = b" \t\r\f\v"


def is_same_output(expected: str, printed: bytes) -> bool:
    """Whether ``printed``, as it came out of the program, is the ``expected`` text. Never raises.

    Bytes that are no UTF-8 are never the expected text; nothing is replaced in them. Takes memory for the lines of the
    expected text, however many were printed.
    """
    try:
        wanted = expected.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, which no UTF-8 can say
        return False
    wanted, found = (text.rstrip(_BLANKS + b"\n") for text in (wanted, printed))
    if wanted == found:
        return True
    if wanted.count(b"\n") != found.count(b"\n"):
        return False
    lines = zip(wanted.split(b"\n"), found.split(b"\n"), strict=True)
    return all(one.rstrip(_BLANKS) == other.rstrip(_BLANKS) for one, other in lines)
