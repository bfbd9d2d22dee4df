"""The one rule by which output is compared."""

from time import perf_counter
from typing import get_args

import pytest

from revelm.rewards.stdout_match import Matching, is_same_output


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


@pytest.mark.parametrize(
    ("matching", "expected", "printed", "is_same"),
    [
        ("stripped", "1\n2", b"\n 1\n2 \n\n", True),
        ("stripped", "1\n\n2", b"1\n2", False),
        ("stripped", "1 2", b"1  2", False),
        ("stripped", "1", b"1.0", False),
        ("stripped", "1\n2", b"1 2", False),
        ("livecodebench", " 1\n2", b"1\n  2\n", True),
        ("livecodebench", "1 2", b"1.0   2e0", True),
        ("livecodebench", "0.1", b"0.10", True),
        ("livecodebench", "0.1", b"0.1000000001", False),
        ("livecodebench", "50000000000000000", b"50000000000000001", False),
        ("livecodebench", "Case 1", b"Case 1.0", False),
        ("livecodebench", "Yes", b"YES", False),
        ("livecodebench", "1\n\n2", b"1\n2", False),
        ("livecodebench", "inf", b"Infinity", True),
        ("livecodebench", "nan 1", b"nan 1.0", False),
        ("livecodebench", "sNaN 1", b"sNaN 1.0", False),
        ("livecodebench", "1", b"\xff", False),
        ("livecodebench", "1", b"1 1", False),
        ("apps", "1\n\n2", b"1\n2\n", True),
        ("apps", "0.5", b"0.500001", True),
        ("apps", "0.5", b"0.5001", False),
        ("apps", "Case: 0.5", b"Case: 0.5000001", True),
        ("apps", "2", b"1.9999999999", True),
        ("apps", "1000000", b"1000001", False),
        ("apps", "1000000", b"1000001.0", False),
        ("apps", "1000000000000000000000000000000", b"1000000000000000000000000000001", False),
        ("apps", "1e999999999", b"1", False),
        ("apps", "0.5", b"nan", False),
        ("apps", "0.5", b"inf", False),
        ("apps", "1 2", b"2 1", False),
        ("apps", "a\nb", b"b\na", False),
        ("apps", "", b"\n \n", True),
        ("apps", "1", b"", False),
        ("apps", "1", b"1\n1", False),
    ],
)
def test_rules_of_the_benchmarks(matching: Matching, expected: str, printed: bytes, is_same: bool) -> None:
    """Catches scores that are not those of the benchmark's own harness, and a tolerance that covers a wrong number."""
    assert is_same_output(expected, printed, matching=matching) is is_same


def test_large_outputs_take_linear_time() -> None:
    """Catches a rule that takes quadratic time for a line of blanks, or a list of a million lines."""
    began = perf_counter()
    blanks = b" " * 20_000_000
    assert is_same_output("x\ny", b"x" + blanks + b"\ny" + blanks)
    assert not is_same_output("x", b"x" + blanks + b"y")
    assert not is_same_output("x", b"\n" * 20_000_000 + b"x")
    blanks = b" " * 2_000_000
    for matching in get_args(Matching)[1:]:
        assert is_same_output("x\ny", blanks + b"x" + blanks + b"\ny", matching=matching)
        assert not is_same_output("x\n1", b"x" + blanks * 2 + b"\n2" + blanks, matching=matching)
        assert not is_same_output("y\nx", b"y" + b"\n" * 2_000_000 + b"x y", matching=matching)
        assert not is_same_output("1 2", b"9" * 2_000_000 + b" 1", matching=matching)
    assert perf_counter() - began < 5
