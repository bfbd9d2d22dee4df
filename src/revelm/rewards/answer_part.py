r"""Which part of an answer is compared with a reference.

box       the last ``\boxed{...}`` (``revelm.rewards.final_answer``)
tag       the contents of the last ``<answer>...</answer>``
stated    a box, or what says of itself that it is the answer ("the answer is ...", ``####``)
text      the whole text
auto      the box, or else the tag, or else the text

Thoughts do not count: what is looked at stands behind the last ``</think>``, and a thought that was begun and not ended
holds no answer.
"""

import re
from typing import Literal

from revelm.rewards.final_answer import BOX, STATED, final_answer

Part = Literal["auto", "box", "tag", "stated", "text"]
_TAG = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)
_THOUGHT, _THOUGHT_END = "<think>", "</think>"


def answer_part(text: str, part: Part = "auto") -> str | None:
    """The part of ``text`` that is compared, without blanks around it; None where there is none, or it is empty.

    Never raises.
    """
    said = text.rpartition(_THOUGHT_END)[2]
    if _THOUGHT in said:
        return None
    found = _found(said, part)
    return None if found is None else found.strip() or None


def _found(said: str, part: Part) -> str | None:
    if part == "text":
        return said
    if part == "tag":
        return _tag(said)
    answer = final_answer(said, sources=STATED if part == "stated" else BOX)
    if answer is not None:
        return answer.text
    if part != "auto":
        return None
    tag = _tag(said)
    return said if tag is None else tag


def _tag(said: str) -> str | None:
    tags = _TAG.findall(said)
    return tags[-1] if tags else None
