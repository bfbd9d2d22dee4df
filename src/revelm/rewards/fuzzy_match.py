"""How much of a reference an answer has: by characters, or by words.

``ratio`` of two texts of n and m characters whose longest common subsequence has l:

    2 l / (n + m)

(the normalised indel similarity; l by the bit-parallel recurrence of Hyyrö, 2004). ``token_f1``: precision and recall
of words, counted with repetition, without case, punctuation and the articles a, an, the (SQuAD, arXiv 1606.05250):

    2 p r / (p + r)
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from revelm.core.types import Score
from revelm.rewards.answer_part import Part, answer_part
from revelm.rewards.exact_match import normalise
from revelm.rewards.reward import Judged

Measure = Literal["ratio", "token_f1"]
MAX_CHARACTERS = 20_000  # of which ``ratio`` is found in a fraction of a second; longer answers are cut there
_WORD = re.compile(r"\w+")
_ARTICLES = {"a", "an", "the"}


def ratio(one: str, other: str) -> float:
    """Similarity of two texts by their characters, 0 to 1; of two empty ones 1."""
    short, long = sorted((one, other), key=len)
    if not long:
        return 1.0
    places: dict[str, int] = {}
    for i, character in enumerate(short):
        places[character] = places.get(character, 0) | 1 << i
    ones = (1 << len(short)) - 1
    state = ones
    for character in long:
        common = state & places.get(character, 0)
        state = ((state + common) | (state - common)) & ones
    return 2 * (len(short) - state.bit_count()) / (len(one) + len(other))


def token_f1(answer: str, reference: str) -> float:
    """Similarity of two texts by their words, 0 to 1; of two without words 1."""
    found, wanted = (Counter(_words(text)) for text in (answer, reference))
    if not found or not wanted:
        return float(found == wanted)
    shared = (found & wanted).total()
    return 2 * shared / (found.total() + wanted.total())


def score_fuzzy(
    text: str, reference: str, *, measure: Measure = "ratio", threshold: float = 1.0, part: Part = "auto"
) -> Score:
    """The similarity of the answer in ``text`` to ``reference``; ``correct`` from ``threshold`` on. Never raises.

    ``part``: which part of the text is the answer. Both are normalised as for exact matches. Breakdown: ``correct``,
    ``similarity``.
    """
    answer = answer_part(text, part)
    if answer is None:
        return Score(0.0, {"correct": 0.0, "similarity": 0.0}, reason="no answer")
    found, wanted = (normalise(one)[:MAX_CHARACTERS] for one in (answer, reference))
    value = token_f1(found, wanted) if measure == "token_f1" else ratio(found, wanted)
    correct = float(value >= threshold)
    return Score(value, {"correct": correct, "similarity": value}, reason=f"{measure} {value:.3f}")


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text) if word not in _ARTICLES]


@dataclass(frozen=True)
class Fuzzy:
    """How similar the answer is to the problem's reference, 0 to 1; see `score_fuzzy`.

    ``threshold``: a smaller similarity counts as 0.
    """

    measure: Measure = "ratio"
    threshold: float = 0.0
    part: Part = "auto"

    def __post_init__(self) -> None:
        """Raises ValueError for a threshold outside 0 to 1."""
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"threshold={self.threshold}: expected 0 to 1")

    def rate(self, answer: Judged) -> float | None:
        """The similarity; None for a problem without a reference."""
        reference = answer.problem.reference
        if not reference.strip():
            return None
        value = score_fuzzy(answer.completion.text, reference, measure=self.measure, part=self.part).value
        return value if value >= self.threshold else 0.0
