r"""Multiple choice: the letter that an answer names.

A letter counts as it is usually written: ``B``, ``b``, ``B.``, ``(B)``, ``\text{B}``, ``B. the option``, ``option B``.
Two of them, "(B) or (C)", are none. It is looked for in the last box, or else in ``<answer></answer>``, behind "the
answer is" or "answer:", or else the whole text is one.
"""

import re
from dataclasses import dataclass

from revelm.core.types import Score
from revelm.rewards.final_answer import Source, final_answer
from revelm.rewards.reward import Judged

_STYLE = re.compile(r"\\(?:text|math)[a-z]*\s*\{([^{}]*)\}")
_LETTER = re.compile(
    r"(?:(?:option|choice|answer)\s+)?(?:\(([A-Z])\)[.:]?(?:\s(?P<rest>.*))?|([A-Z])(?:[.:)](?:\s(?P<option>.*))?)?)",
    re.IGNORECASE | re.DOTALL,
)
_ANOTHER = re.compile(r"\([A-Z]\)|^\s*(?:or|and|but|maybe)\b|^\s*[A-Z][.:)]*\s*$")  # a letter, no text of an option
_SOURCES: tuple[Source, ...] = ("box", "bare box", "tag", "phrase", "whole")
_MAX_LETTER = 2000  # the letter and its option; what is longer names no letter


def choice_letter(answer: str) -> str | None:
    """The letter that a final answer (the contents of a box) names, as a capital; None where it is something else."""
    text, bare = "", answer[: _MAX_LETTER + 1]
    if len(bare) > _MAX_LETTER:
        return None
    while text != bare:
        text, bare = bare, _STYLE.sub(r"\1", bare)
    found = _LETTER.fullmatch(text.strip("$ \n\t*,"))
    if found is None or _ANOTHER.search(found["rest"] or found["option"] or ""):
        return None
    return (found[1] or found[3]).upper()


def chosen_letter(text: str) -> str | None:
    """The letter that ``text`` names as its answer; None where it names none. Never raises."""
    answer = final_answer(text, sources=_SOURCES)
    return None if answer is None else choice_letter(answer.text)


def score_choice(text: str, reference: str) -> Score:
    """1 if ``text`` names the letter that ``reference`` names. Breakdown: ``correct``, ``format`` (it names a letter).

    Where the reference is no letter, the verdict is an error. Never raises.
    """
    wanted = choice_letter(reference)
    if wanted is None:
        return Score(
            0.0, {"correct": 0.0, "error": 1.0}, reason=f"error: the reference {reference[:40]!r} is no letter"
        )
    letter = chosen_letter(text)
    correct = float(letter == wanted)
    reason = "no letter" if letter is None else "equal" if correct else f"different: {letter} instead of {wanted}"
    return Score(correct, {"correct": correct, "format": float(letter is not None)}, reason=reason)


@dataclass(frozen=True)
class Choice:
    """1 for the letter of the reference, ``format_reward`` for another one, 0 where the answer names none."""

    format_reward: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for a wrong answer that is worth as much as a right one."""
        if not 0.0 <= self.format_reward < 1.0:
            raise ValueError(f"format_reward={self.format_reward}: expected 0 up to 1, what a right answer gets")

    def rate(self, answer: Judged) -> float | None:
        """The reward; None where the reference is no letter."""
        score = score_choice(answer.completion.text, answer.problem.reference)
        if "error" in score.breakdown:
            return None
        return max(score.value, self.format_reward * score.breakdown["format"])
