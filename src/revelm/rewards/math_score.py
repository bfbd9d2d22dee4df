r"""The verdict on a text that ends in a mathematical answer: 1 if its final answer means what the reference means."""

from revelm.core.types import Score
from revelm.rewards.final_answer import BOX, Source, final_answer
from revelm.rewards.math_answer import is_equal

SCORE_SECONDS = 5.0  # of CPU time, for one verdict
_MAX_SHOWN = 40


def score_math(text: str, reference: str, *, sources: tuple[Source, ...] = BOX) -> Score:
    r"""1 if the final answer of ``text`` means what ``reference`` means, else 0; breakdown: ``correct``, ``has_box``.

    ``sources``: where an answer may stand (``rewards.final_answer``), by default in a box alone. Never raises.
    """
    answer = final_answer(text, sources=sources)
    has_box = float(answer is not None and answer.source == "box")
    if answer is None or not answer.text.strip():
        return Score(0.0, {"correct": 0.0, "has_box": has_box}, reason="no answer")
    correct = float(is_equal(reference, answer.text))
    reason = "equal" if correct else f"different: {_shown(answer.text)} instead of {_shown(reference)}"
    return Score(correct, {"correct": correct, "has_box": has_box}, reason=reason)


def _shown(text: str) -> str:
    """One line of at most 40 characters that can be printed anywhere."""
    line = " ".join(text[: 4 * _MAX_SHOWN].split()).encode("utf-8", "backslashreplace").decode("utf-8")
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= _MAX_SHOWN else line[: _MAX_SHOWN - 3] + "..."
