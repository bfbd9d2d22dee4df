"""Whether an answer has the form that a regular expression describes.

Expressions are Python's, in which ``.`` stands for line breaks as well. One whose repetitions are nested, such as
``(a+)+b``, can take for ever: whoever asks with answers of a model does so in a worker process.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from revelm.core.types import Score
from revelm.rewards.answer_part import Part, answer_part
from revelm.rewards.reward import Judged


def score_regex(text: str, reference: str, *, part: Part = "text", is_whole: bool = False) -> Score:
    """1 if the regular expression ``reference`` is found in ``text``; breakdown: ``correct``. Never raises.

    ``part``: which part of the text is looked at. ``is_whole``: all of it has to match. An expression that is none is
    an error.
    """
    pattern = _compiled(reference)
    if isinstance(pattern, str):
        said = f"error: {reference[:40]!r} is no regular expression ({pattern})"
        return Score(0.0, {"correct": 0.0, "error": 1.0}, reason=said)
    answer = answer_part(text, part)
    if answer is None:
        return Score(0.0, {"correct": 0.0}, reason="no answer")
    found = pattern.fullmatch(answer) if is_whole else pattern.search(answer)
    correct = float(found is not None)
    return Score(correct, {"correct": correct}, reason="found" if correct else "not found")


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> "re.Pattern[str] | str":
    """The compiled expression, or what is wrong with it."""
    try:
        return re.compile(pattern, re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)


@dataclass(frozen=True)
class Regex:
    """1 where the answer matches ``pattern``, else 0; None: the problem's reference is the pattern."""

    pattern: str | None = None
    part: Part = "text"
    is_whole: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a pattern that is none."""
        if self.pattern is not None and isinstance(problem := _compiled(self.pattern), str):
            raise ValueError(f"pattern={self.pattern!r}: no regular expression ({problem})")

    def rate(self, answer: Judged) -> float | None:
        """1 or 0; None for a problem without a reference, or whose reference is no regular expression."""
        pattern = answer.problem.reference if self.pattern is None else self.pattern
        if not pattern:
            return None
        score = score_regex(answer.completion.text, pattern, part=self.part, is_whole=self.is_whole)
        return None if "error" in score.breakdown else score.value
