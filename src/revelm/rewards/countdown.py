r"""Countdown: whether an answer makes the target from the numbers, each of which is used exactly once.

An answer is one expression, ``(30 + 93) - 100``, which may end in ``= 23``; or steps, one after the other, in which the
result of a step takes the place of the numbers it has used: ``44-15=29,79-29=50``. Results that steps go on with are
whole numbers from 0, as the game has it; inside an expression any value may come up. The answer stands in the last
``\boxed{}``, or else in the last ``<answer></answer>``, or else it is the whole text.
"""

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from revelm.core.types import Score
from revelm.rewards.answer_part import answer_part
from revelm.rewards.arithmetic import Expression, NotArithmeticError, evaluate

_STEP = re.compile(r"[,;\n]|\\\\")
_MAX_STEPS = 64


def score_countdown(text: str, numbers: Sequence[int], target: int, *, format_reward: float = 0.0) -> Score:
    """1 if the answer reaches ``target``; ``format_reward`` if it uses the numbers rightly and misses it; else 0.

    Breakdown: ``correct``; ``format``, whether the answer is arithmetic in which every number is used exactly once.
    Never raises.
    """
    answer = answer_part(text)
    if not answer:
        return Score(0.0, {"correct": 0.0, "format": 0.0}, reason="no answer")
    try:
        value = _value(answer, numbers)
    except NotArithmeticError as error:
        return Score(0.0, {"correct": 0.0, "format": 0.0}, reason=f"no answer: {error}")
    if value == target:
        return Score(1.0, {"correct": 1.0, "format": 1.0}, reason="equal")
    reason = f"different: {str(value)[:20]} instead of {target}"
    return Score(format_reward, {"correct": 0.0, "format": 1.0}, reason=reason)


def reached(text: str, numbers: Sequence[int]) -> Fraction | None:
    """What the answer in ``text`` comes to; None where there is none that keeps the rules. Never raises."""
    answer = answer_part(text)
    if not answer:
        return None
    try:
        return _value(answer, numbers)
    except NotArithmeticError:
        return None


def _value(answer: str, numbers: Sequence[int]) -> Fraction:
    """What the answer comes to. Raises NotArithmeticError where it breaks a rule."""
    steps = [step for step in _STEP.split(answer) if step.strip()]
    if not 1 <= len(steps) <= _MAX_STEPS:
        raise NotArithmeticError(f"{len(steps)} steps")
    left = Counter(map(Fraction, numbers))
    value = Fraction(0)
    for number, step in enumerate(steps, start=1):
        said, equals, claimed = step.partition("=")
        found = evaluate(said)
        _use(left, found)
        value = found.value
        if equals and evaluate(claimed).value != value:
            raise NotArithmeticError(f"step {number} is {str(value)[:20]}")
        if not equals and number < len(steps):
            raise NotArithmeticError(f"step {number} has no result")
        left[value] += 1
    if left.total() > 1:
        raise NotArithmeticError("not every number is used")
    return value


def _use(left: Counter[Fraction], expression: Expression) -> None:
    """Take the numbers of an expression away from those that are left."""
    for number in expression.numbers:
        if left[Fraction(number)] < 1:
            raise NotArithmeticError(f"{number} is not there, or used too often")
        left[Fraction(number)] -= 1
