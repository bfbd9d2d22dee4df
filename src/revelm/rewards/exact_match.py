"""Whether an answer is the reference, letter for letter, up to what nobody means.

Normalised are: the form of composed characters (NFC), case, runs of blanks, and a full stop at the end. Signs and
punctuation inside stay: ``-5`` is not ``5``, and ``1,2`` not ``12``.
"""

import unicodedata
from dataclasses import dataclass

from revelm.core.types import Score
from revelm.rewards.answer_part import Part, answer_part
from revelm.rewards.reward import Judged


def normalise(text: str) -> str:
    """``text`` as it is compared."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split()).removesuffix(".").rstrip()


def score_exact(text: str, reference: str, *, part: Part = "auto", is_normalised: bool = True) -> Score:
    """1 if the answer in ``text`` is ``reference``; breakdown: ``correct``. Never raises.

    ``part``: which part of the text is the answer (``revelm.rewards.answer_part``). Without ``is_normalised`` only
    blanks around both are ignored.
    """
    answer = answer_part(text, part)
    if answer is None:
        return Score(0.0, {"correct": 0.0}, reason="no answer")
    pair = (answer, reference.strip())
    found, wanted = (normalise(one) for one in pair) if is_normalised else pair
    correct = float(found == wanted and bool(wanted))
    return Score(correct, {"correct": correct}, reason="equal" if correct else _difference(answer, reference))


def _difference(answer: str, reference: str) -> str:
    said, wanted = (" ".join(text.split())[:60] for text in (answer, reference))
    return f"different: {said} instead of {wanted}"


@dataclass(frozen=True)
class Exact:
    """1 where the answer is the problem's reference; see `score_exact`."""

    part: Part = "auto"
    is_normalised: bool = True

    def rate(self, answer: Judged) -> float | None:
        """1 or 0; None for a problem without a reference."""
        reference = answer.problem.reference
        if not reference.strip():
            return None
        return score_exact(answer.completion.text, reference, part=self.part, is_normalised=self.is_normalised).value
