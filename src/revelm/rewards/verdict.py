r"""What a judge said: the number in the last ``\boxed{}`` of its reply, behind its thoughts."""

import re

from revelm.rewards.boxed import last_boxed

_THOUGHT, _THOUGHT_END = "<think>", "</think>"
_VERDICTS = {"1": 1.0, "+1": 1.0, "-1": -1.0}
_NUMBER = re.compile(r"[-+]?[0-9]{1,9}(?:\.[0-9]{1,9})?")


def read_verdict(reply: str) -> float | None:
    r"""1.0 or -1.0; None for a reply whose final part has no ``\boxed{1}`` or ``\boxed{-1}``. Never raises.

    What stands before the last ``</think>`` is not the reply but how the judge got there; a thought that was begun and
    not ended (``<think>`` behind it) has no verdict yet, whatever boxes it quotes.
    """
    answer = _boxed(reply)
    return None if answer is None else _VERDICTS.get(answer)


def read_grade(reply: str, low: float, high: float) -> float | None:
    r"""The number in the last ``\boxed{}`` of a reply, as ``read_verdict`` finds it; None where there is none from
    ``low`` to ``high``. Never raises."""
    answer = _boxed(reply)
    if answer is None or not _NUMBER.fullmatch(answer):
        return None
    grade = float(answer)
    return grade if low <= grade <= high else None


def _boxed(reply: str) -> str | None:
    """What the last box behind the thoughts holds, without blanks."""
    final = reply.rpartition(_THOUGHT_END)[2]
    answer = None if _THOUGHT in final else last_boxed(final)
    return None if answer is None else "".join(answer.split())
