"""The one rule by which output is compared."""

from time import perf_counter

import pytest

from revelm.rewards.stdout_match import is_same_output


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("1\n2\n", b"1\n2"),
        ("1\n2", b"1\n2\n\n\n"),
        ("1 \n2\t", b"1\n2"),
        ("1\n2", b"1\r\n2\r\n"),
        ("1\n\n2", b"1\n \t\n2"),
        ("", b" \n\n"),
        ("gr\u00fc\u00df \u4f60\u597d", "gr\u00fc\u00df \u4f60\u597d\n".encode()),
        ("\ufffd", "\ufffd".encode()),
        ("a\u00a0", "a\u00a0".encode()),
        ("a\x00b", b"a\x00b"),
    ],
)
def test_the_same_output(expected: str, printed: bytes) -> None:
    """Catches a right program that fails for a newline at its end, blanks it cannot see, or text beyond ASCII."""
    assert is_same_output(expected, printed)


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("1\n2", b"12"),
        ("12", b"1\n2"),
        ("1 2", b"1\n2"),
        ("1 2", b"1  2"),
        ("1", b" 1"),
        ("1", b"\n1"),
        ("1\n\n2", b"1\n2"),
        ("0.5", b".5"),
        ("0.50", b"0.5"),
        ("YES", b"yes"),
        ("1", b""),
        ("", b"1"),
        ("1", b"1\x00"),
        ("a", "a\u00a0".encode()),
        ("\ufffd", b"\xff"),
        ("\ud800", b"\xed\xa0\x80"),
        ("\ud800", b"?"),
        ("a", b"a\xff"),
    ],
)
def test_other_output(expected: str, printed: bytes) -> None:
    """W63: newlines are insignificant, so that "12" passes for 1 and 2 on two lines. Also bytes that are no text and
    compare equal to a replacement character."""
    assert not is_same_output(expected, printed)


def test_large_outputs_take_linear_time() -> None:
    """Catches a rule that takes quadratic time for a line of blanks, or a list of a million lines."""
    began = perf_counter()
    blanks = b" " * 20_000_000
    assert is_same_output("x\ny", b"x" + blanks + b"\ny" + blanks)
    assert not is_same_output("x", b"x" + blanks + b"y")
    assert not is_same_output("x", b"\n" * 20_000_000 + b"x")
    assert perf_counter() - began < 5
