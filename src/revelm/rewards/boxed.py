r"""The final answer of a text: the contents of its last ``\boxed{...}``.

"Last" is the box that begins last among those whose braces balance, so a box that was cut off at the length limit
does not hide a complete one before it, and of nested boxes the innermost counts. One pass over the text, linear time.
"""

import re

# In this order: the start of a box, an escaped brace or line break (it does not count), a plain brace. The line break
# before a box is not swallowed, so that a doubly escaped "\\boxed{3}" is still found.
_TOKEN = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\[{}]|\\\\(?!boxed|fbox)|(?P<open>\{)|(?P<close>\})")


def last_boxed(text: str) -> str | None:
    r"""Contents of the last balanced ``\boxed{...}`` or ``\fbox{...}``, as written; None where there is none.

    ``\boxed{}`` gives the empty string. Never raises, whatever the text.
    """
    unclosed: list[int | None] = []  # for each open brace: where its contents begin if it is a box, else None
    best: tuple[int, int] | None = None
    for token in _TOKEN.finditer(text):
        if token["box"]:
            unclosed.append(token.end())
        elif token["open"]:
            unclosed.append(None)
        elif token["close"] and unclosed:
            start = unclosed.pop()
            if start is not None and (best is None or start > best[0]):
                best = (start, token.start())
    return None if best is None else text[best[0] : best[1]]
