r"""Three ways to judge the boxed answer of a worksheet: as text, as mathematics, and as a program.

``exact`` compares the box with the digit, in the caller's process. ``math`` takes the way of mathematical answers
(``revelm.rewards.math_score``), ``code`` that of programs: the box becomes a program that prints it, run in the sandbox
and judged by its output. All answers that a model gives to a worksheet get the same verdict in all three, so that what
the ways cost can be measured on a task that is learnt in minutes.
"""

from typing import Literal

from revelm.core.types import Score
from revelm.rewards.boxed import last_boxed
from revelm.rewards.code_score import score_code
from revelm.rewards.code_tests import CodeTests
from revelm.rewards.math_score import SCORE_SECONDS, score_math
from revelm.rewards.sandbox.executors import open_executor
from revelm.rewards.sandbox.limits import Limits

Verdict = Literal["exact", "math", "code"]
_LIMITS = Limits(seconds=1.0, total_seconds=20.0)
SECONDS = {"exact": 0.0, "math": SCORE_SECONDS, "code": 5.0}
"""CPU seconds of a worker for one verdict; 0: none is asked."""


def judge(verdict: Verdict, text: str, reference: str) -> Score:
    """1 if the last box of ``text`` holds ``reference``; breakdown: ``correct``, ``has_box``."""
    if verdict == "math":
        return score_math(text, reference)
    answer = last_boxed(text)
    if verdict == "exact" or answer is None:
        correct = float(answer is not None and answer.strip() == reference)
        return Score(correct, {"correct": correct, "has_box": float(answer is not None)})
    tests = CodeTests("stdio", inputs=("",), outputs=(reference,))
    found = score_code(f"print({answer.strip()!r})", tests, limits=_LIMITS, executor=open_executor("local"))
    breakdown = {name: value for name, value in found.breakdown.items() if name in ("correct", "error")}
    return Score(found.value, {**breakdown, "has_box": 1.0}, reason=found.reason)


def warm_up(verdict: Verdict) -> None:
    """Load what verdicts need."""
    if verdict != "exact":
        judge(verdict, "\\boxed{1}", "2")
