"""Measured against published: the three verdicts."""

import pytest

from revelm.eval.agreement import AGREES, DIFFERS, UNKNOWN, agreement
from revelm.eval.config import Expected


def verdict(mean: float, half: float, published: float, num: int | None = None) -> str:
    measured = {"mean": mean, "low": mean - half, "high": mean + half, "n": 100}
    return str(agreement(measured, Expected(accuracy=published, source="s", num_answers=num))["verdict"])


@pytest.mark.parametrize(
    ("mean", "half", "published", "num", "expected"),
    [
        (0.90, 0.02, 0.91, None, AGREES),
        (0.90, 0.02, 0.93, None, DIFFERS),
        (0.90, 0.02, 0.93, 500, AGREES),  # +-0.022 of its own
        (0.90, 0.02, 0.93, 100_000, DIFFERS),
        (0.90, 0.09, 0.91, None, UNKNOWN),
        (0.50, 0.09, 0.90, None, DIFFERS),
        (0.90, 0.02, 0.92, None, AGREES),
    ],
)
def test_verdicts(mean: float, half: float, published: float, num: int | None, expected: str) -> None:
    """Catches "agrees" from ten problems, and a published number that is taken for exact although it is not."""
    assert verdict(mean, half, published, num) == expected


def test_the_result_says_what_was_expected() -> None:
    """Catches a verdict without its source and without the interval in which it would have agreed."""
    found = agreement({"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9}, Expected(accuracy=0.5, source="table 2"))
    assert found["source"] == "table 2"
    assert (found["low"], found["high"]) == pytest.approx((0.4, 0.6))
