r"""What is the same expression but for the order of its terms and factors, and what is another one."""

import pytest

from revelm.rewards.math_formula import shape_in
from revelm.rewards.math_text import spell


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x^2-1", "-1+x^2"),
        ("x^2-1", "-(1-x^2)"),
        (r"\frac{x+1}{2}", r"\frac{1}{2}(1+x)"),
        ("(x-1)(x+1)", "(1+x)(x-1)"),
        ("-(x-1)(x+1)", "(1-x)(x+1)"),
        ("x-2y", "0-2y+1x"),
        (r"\sin x\cos x", r"\cos x \sin x"),
        ("a-b+c", "c-(b-a)"),
    ],
)
def test_order_and_signs_change_no_shape(first: str, second: str) -> None:
    """Catches a copy of a formula of the question that is paid because two of its terms changed places."""
    assert shape_in(spell(first)) == shape_in(spell(second)) is not None


@pytest.mark.parametrize(
    ("first", "second"),
    [("x^2-1", "(x-1)(x+1)"), ("2+3", "5"), (r"\sqrt{8}", r"2\sqrt{2}"), ("x+x", "2x"), ("x-y", "y-x"), ("x-1", "1-x")],
)
def test_what_is_worked_out_has_another_shape(first: str, second: str) -> None:
    """Catches a right answer taken for a copy of what it was worked out from."""
    assert shape_in(spell(first)) != shape_in(spell(second))
