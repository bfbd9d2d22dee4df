"""The last boxed answer of any text: right, balanced, in linear time."""

from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revelm.rewards.boxed import last_boxed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{7}", "7"),
        (r"so \boxed{1}, no, \boxed{2}.", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{a}{b}", "a"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{x \boxed{3} y", "3"),
        (r"\boxed{4} and then \boxed{5", "4"),
        (r"} } \boxed{6} {", "6"),
        (r"{\boxed{6}}", "6"),
        (r"\boxed {8}", "8"),
        (r"\fbox{9}", "9"),
        (r"\boxed{}", ""),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\{}", r"\{"),
        (r"\\boxed{3}", "3"),
        (r"\boxed{a \\{b} c}", r"a \\{b} c"),
        (r"\boxed{1{2}", None),
        (r"\boxed 3", None),
        (r"boxed{3}", None),
        ("", None),
    ],
)
def test_last_balanced_box(text: str, expected: str | None) -> None:
    """A regular expression up to the first brace would cut fractions short; a search for the last start, miss 4."""
    assert last_boxed(text) == expected


@given(st.text() | st.text(alphabet="\\boxed{} 1\n", max_size=60))
def test_never_raises_and_returns_a_balanced_part(text: str) -> None:
    """An odd brace anywhere used to be enough to index past the end."""
    content = last_boxed(text)
    assert content is None or ("{" + content + "}") in text


@given(st.text(alphabet="\\boxed{} 12", max_size=40), st.integers(0, 99))
def test_a_box_at_the_end_is_found_after_any_text(text: str, number: int) -> None:
    """Unclosed braces earlier in the text must not swallow the answer."""
    assert last_boxed(f"{text}\n\\boxed{{{number}}}") == str(number)


@pytest.mark.parametrize("piece", [r"\boxed{", r"\boxed{}", "{", "}", "\\", r"\boxed ", r"\boxed" + " " * 50])
def test_time_is_linear(piece: str) -> None:
    """Scanning forward from every start took minutes on a text of many unclosed boxes."""
    start = perf_counter()
    last_boxed(piece * 50_000)
    assert perf_counter() - start < 5.0
