r"""Whether a mathematical answer equals the reference.

Both are brought to one spelling (``math_text``); equal spellings are equal. Others are taken apart: lists and sets are
compared without order, tuples and intervals with their brackets, matrices by entry, equations by name and value or as a
whole, inequalities as intervals. What is left are numbers (exact, ``math_quantity``), units (``math_units``), words
(``math_words``) and formulas (values of what math-verify's grammar reads, ``math_formula``). The rules stand in
``docs/rewards.md``.

The CPU time of a verdict is bounded: answers are short, numbers small enough to compute, and what is left has 4 seconds
in the main thread of a process. No wall clock is involved, so load changes no verdict.
"""

from typing import Literal

from revelm.rewards.cpu_limit import OutOfTime, cpu_limit
from revelm.rewards.math_comparison import Comparison
from revelm.rewards.math_formula import GrammarError
from revelm.rewards.math_measure import EXACT, Closeness
from revelm.rewards.math_text import key, spell

Verdict = Literal["equal", "different", "timed out"]
MAX_CHARACTERS = 300  # a final answer is short; what is longer is wrong unless spelt like the reference
MAX_SECONDS = 4.0


def is_equal(reference: str, answer: str, *, closeness: Closeness = EXACT) -> bool:
    """Whether ``answer`` means what ``reference`` means. What cannot be read or takes too long is not equal.

    Raises nothing but GrammarError, where math-verify is installed without a working grammar.
    """
    return compare(reference, answer, closeness=closeness) == "equal"


def compare(reference: str, answer: str, *, closeness: Closeness = EXACT) -> Verdict:
    """The verdict on an answer; see `is_equal`."""
    if answer.strip() and answer.strip() == reference.strip():
        return "equal"
    if _is_too_long(answer, limit=max(MAX_CHARACTERS, 2 * len(reference))):
        return "different"
    try:
        with cpu_limit(MAX_SECONDS):
            return "equal" if unguarded(reference, answer, closeness=closeness) else "different"
    except OutOfTime:
        return "timed out"
    except GrammarError:
        raise
    except Exception:  # noqa: BLE001 - a boundary: whatever a model wrote, and libraries that read it
        return "different"


def _is_too_long(answer: str, *, limit: int) -> bool:
    """Whether an answer has more characters than it may, without blanks and commands that only say how it looks."""
    return len(answer) > limit and (len(answer) > 4 * limit or len(key(spell(answer))) > limit)


def unguarded(reference: str, answer: str, *, closeness: Closeness = EXACT) -> bool:
    """The comparison itself, of answers of any length, without a limit on its time and with its errors, if any."""
    return Comparison(closeness).holds(spell(reference), spell(answer))
