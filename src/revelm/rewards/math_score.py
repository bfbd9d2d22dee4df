r"""The verdict on a text that ends in a mathematical answer: 1 if its final answer means what the reference means."""

from revelm.core.types import Score
from revelm.rewards.final_answer import BOX, Source, final_answer
from revelm.rewards.math_answer import compare
from revelm.rewards.math_measure import EXACT, Closeness
from revelm.rewards.math_question import asked_value, asks_for_percentage, left_undone, states_base

SCORE_SECONDS = 5.0  # of CPU time, for one verdict
_MAX_SHOWN = 40
_MAX_REPEATED = 4  # boxes with the same answer again, such as a mixed number and the fraction it is


def score_math(
    text: str,
    reference: str,
    *,
    sources: tuple[Source, ...] = BOX,
    closeness: Closeness = EXACT,
    question: str = "",
) -> Score:
    r"""1 if the final answer of ``text`` means what ``reference`` means, else 0; breakdown: ``correct``, ``has_box``.

    ``sources``: where an answer may stand (``rewards.final_answer``), by default in a box alone; ``closeness``: how
    near a number must come; ``question``: what was asked, whose own formulas are no answer (``rewards.math_question``).
    An answer in several boxes is right as a list, or if each of them is. Never raises, whatever the text; a comparison
    that uses up its CPU time is wrong, with the reason "timed out".
    """
    answer = final_answer(text, sources=sources)
    has_box = float(answer is not None and answer.source == "box")
    if answer is None or not answer.text.strip():
        return Score(0.0, {"correct": 0.0, "has_box": has_box}, reason="no answer")
    verdict = compare(reference, answer.text, closeness=closeness)
    if verdict == "different" and (value := asked_value(question, answer.text)) != answer.text:
        verdict = compare(reference, value, closeness=closeness)
    if verdict == "different" and 1 < len(answer.parts) <= _MAX_REPEATED:
        is_repeated = all(compare(reference, part, closeness=closeness) == "equal" for part in answer.parts)
        verdict = "equal" if is_repeated else verdict
    is_asked = verdict == "equal" and not closeness.accepts_unworked
    undone = left_undone(question, reference, answer.text) if is_asked else None
    correct = float(verdict == "equal" and undone is None)
    reason = undone or verdict
    if correct == 0.0 and reason != "timed out":
        reason = f"{reason}: {_shown(answer.text)} instead of {_shown(reference)}"
    return Score(correct, {"correct": correct, "has_box": has_box}, reason=reason)


def closeness_of(
    question: str, *, absolute: float = 0.0, relative: float = 0.0, accepts_unworked: bool = False
) -> Closeness:
    """How near an answer to ``question`` must come: where it asks for a percentage, 25 % answers a reference of 25, and
    where it names a base, 52 answers 52_8."""
    return Closeness(
        absolute,
        relative,
        is_percent=asks_for_percentage(question),
        is_base_stated=states_base(question),
        accepts_unworked=accepts_unworked,
    )


def _shown(text: str) -> str:
    """One line of at most 40 characters that can be printed anywhere."""
    line = " ".join(text[: 4 * _MAX_SHOWN].split()).encode("utf-8", "backslashreplace").decode("utf-8")
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= _MAX_SHOWN else line[: _MAX_SHOWN - 3] + "..."
