"""Questions with lettered options: in which order they are shown, how they are written, and which letter is right."""

import re
from collections.abc import Sequence
from random import Random
from string import ascii_uppercase

from revelm.core.types import Problem, Score
from revelm.rewards.choice import choice_letter
from revelm.rewards.final_answer import BOX, final_answer

MAX_OPTIONS = len(ascii_uppercase)
_ABOVE = re.compile(r"\b(?:all|both|any|none|neither|either)\b.*\b(?:above|below|preceding|following)\b", re.IGNORECASE)


def arranged(options: Sequence[str], right: int, *, seed: int | None) -> tuple[tuple[str, ...], str]:
    """The options as they are shown, and the letter of the one at place ``right``.

    They are shuffled by ``seed`` (None: not at all), unless they speak of each other.
    """
    order = list(range(len(options)))
    if seed is not None and not _speak_of_each_other(options):
        Random(seed).shuffle(order)
    return tuple(options[i] for i in order), ascii_uppercase[order.index(right)]


def lettered(problem: Problem) -> str:
    """The options of a problem (``info["options"]``), one a line, each behind its letter."""
    options = problem.info["options"]
    return "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, options, strict=False))


def score_letter(problem: Problem, text: str, *, format_reward: float) -> Score:
    """1 for the right letter in the last box, ``format_reward`` for that of another option, else 0.

    Breakdown: ``correct``, ``format`` (the box holds the letter of an option).
    """
    answer = final_answer(text, sources=BOX)
    letter = None if answer is None else choice_letter(answer.text)
    is_letter = letter is not None and letter in ascii_uppercase[: len(problem.info["options"])]
    correct = float(is_letter and letter == problem.reference)
    reason = "equal" if correct else f"different: {letter} instead of {problem.reference}" if is_letter else "no letter"
    breakdown = {"correct": correct, "format": float(is_letter)}
    return Score(max(correct, format_reward * is_letter), breakdown, reason=reason)


def _speak_of_each_other(options: Sequence[str]) -> bool:
    """Whether an option names others by their letters or their places, so that it is wrong in another order."""
    letter = rf"\(?\b[A-{ascii_uppercase[len(options) - 1]}]\b\)?"
    names = re.compile(
        rf"{letter},? *(?:and|or|nor|&) *{letter}|\b(?i:options?|choices?|answers?|only|neither|both) +{letter}"
    )
    return any(names.search(text) or _ABOVE.search(text) for text in options)
