"""Answers in one spelling, for votes."""

import pytest

from revelm.rewards.spelling import letter, spelling, spelt


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,234", "1234"),
        ("$\\dfrac{1}{2}$", "\\frac{1}{2}"),
        ("007.50", "7.5"),
        ("-0", "0"),
        ("+5.", "5.0"),
        ("\\left( 3,\\, 4 \\right)", "(3,4)"),
        ("x  y", "x y"),
        ("  7 ", "7"),
    ],
)
def test_looks_do_not_count(one: str, other: str) -> None:
    """Catches votes for one answer that are split by how it is set."""
    assert spelt(one) == spelt(other)


@pytest.mark.parametrize(
    ("one", "other"), [("1,2", "12"), ("(1,234)", "(1234)"), ("1 2", "12"), ("-5", "5"), ("0.5", "5"), ("x", "X")]
)
def test_meanings_stay_apart(one: str, other: str) -> None:
    """Catches two answers of which one may be right that become one vote."""
    assert spelt(one) != spelt(other)


def test_the_answer_is_where_the_verdict_looks() -> None:
    """Catches votes for numbers that no verdict would look at, and a text that raises."""
    assert spelling("so 7, no: \\boxed{ 8 }") == "8"
    assert spelling("it is 7") is None
    assert spelling("\\boxed{}") is None
    assert spelling("<think>\\boxed{7}") is None
    assert (letter("\\boxed{(b)}"), letter("\\boxed{7}"), letter("b")) == ("B", None, None)
    for text in ("\\boxed{" * 999, "\ud800", "{" * 5000, "\\boxed{" + "9," * 9999 + "}"):
        assert spelling(text) is None or isinstance(spelling(text), str)
