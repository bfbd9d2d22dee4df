r"""The final answer of a text: the contents of its last ``\boxed{...}``.

"Last" is the box that begins last among those whose braces balance, so a box that was cut off at the length limit
does not hide a complete one before it, and of nested boxes the innermost counts. One pass over the text, linear time.
"""

import re
from typing import NamedTuple

# In this order: the start of a box, an escaped brace or line break (it does not count), a plain brace. The line break
# before a box is not swallowed, so that a doubly escaped "\\boxed{3}" is still found.
_TOKEN = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\[{}]|\\\\(?!boxed|fbox)|(?P<open>\{)|(?P<close>\})")


class Box(NamedTuple):
    """Where one balanced box stands: from its command to its brace, and from where to where its contents are."""

    start: int
    end: int
    inner: int

    def content(self, text: str) -> str:
        """What is in the box, as written in ``text``."""
        return text[self.inner : self.end - 1]


def boxes(text: str) -> list[Box]:
    r"""All balanced ``\boxed{...}`` and ``\fbox{...}`` of a text, in the order in which they begin; linear time.

    Never raises, whatever the text.
    """
    # For each open brace: where its command and its contents begin if it is a box, else None.
    unclosed: list[tuple[int, int] | None] = []
    found: list[Box] = []
    for token in _TOKEN.finditer(text):
        if token["box"]:
            unclosed.append(token.span())
        elif token["open"]:
            unclosed.append(None)
        elif token["close"] and unclosed and (begun := unclosed.pop()) is not None:
            found.append(Box(begun[0], token.end(), begun[1]))
    return sorted(found)


def last_boxed(text: str) -> str | None:
    r"""Contents of the last balanced ``\boxed{...}`` or ``\fbox{...}``, as written; None where there is none.

    ``\boxed{}`` gives the empty string.
    """
    found = boxes(text)
    return found[-1].content(text) if found else None
