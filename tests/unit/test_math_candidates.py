"""Answers made from golds: what was made right is right, what was made wrong is not."""

import random

import pytest

from benchmarks.math_candidates import RIGHT, WRONG, candidates
from revelm.rewards.math_score import score_math

GOLDS = (
    *("42", "-7", "12345", "0.25", r"\frac{3}{8}", r"-\frac{7}{3}", r"2\sqrt{3}", r"3\pi", "x+7", "y=2x+3", "f(x)=x^2"),
    *("(2,5)", "(3,4]", r"[2,\infty)", r"(-\infty,1)\cup(3,\infty)", "1,-2,4", r"1\pm\sqrt{7}", r"30^\circ", r"60\%"),
    *(r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"15\mbox{ cm}^2", r"\text{east}", "2x", "-x^2+y"),
)


@pytest.mark.parametrize("gold", GOLDS)
def test_verdicts_are_those_that_the_answers_were_made_for(gold: str) -> None:
    """Catches a way of writing an answer, or of getting it wrong, for which the verdict is another one."""
    for kind, is_right, answer in candidates(gold, list(GOLDS), random.Random(0)):
        assert (score_math(f"\\boxed{{{answer}}}", gold).value == 1.0) == is_right, (kind, answer)


def test_every_change_has_a_gold() -> None:
    """Catches a change that never applies, and so compares nothing."""
    made = {kind for gold in GOLDS for kind, _, _ in candidates(gold, list(GOLDS), random.Random(0))}
    assert {*RIGHT, *WRONG} - made == set()
