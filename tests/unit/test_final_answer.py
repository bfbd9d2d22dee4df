r"""Where a text's final answer stands: boxes first, several boxes, fall-backs in their order, thoughts."""

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revelm.rewards.final_answer import ANYWHERE, BOX, STATED, Source, final_answer


@pytest.mark.parametrize(
    ("text", "expected", "source"),
    [
        (r"so \boxed{7}.", "7", "box"),
        (r"#### 3, no: \boxed{7}, the answer is 4", "7", "box"),
        (r"so \boxed 7.", "7.", "bare box"),
        ("2+2=4\n#### 1,234\n", "1,234", "hash"),
        ("The answer is 3. No: the final answer is: 3.5. I hope so.", "3.5", "phrase"),
        ("**Answer:** 12", "12", "phrase"),
        ("**Final answer:** 42", "42", "phrase"),
        ("The final answer is **42**.", "42", "phrase"),
        ("Final Answer: The final answer is $42$. I hope it is correct.", "$42$", "phrase"),
        ("The answer is 3. Actually, the answer is 4.", "4", "phrase"),
        ("The answer is 3 or 4.", "3 or 4", "phrase"),
        ("The answer isn't 5.", "The answer isn't 5.", "whole"),
        ("The answer is:\n\n12", "12", "phrase"),
        ("**Final Answer**: 12", "12", "phrase"),
        ("The answer is\n\\[\n12\n\\]\nas we saw", "12", "phrase"),
        ("The answer is therefore $12$.", "$12$", "phrase"),
        ("The answer is 12 because it is not 13.", "12", "phrase"),
        ("The answer is $1.5$, as shown.", "$1.5$", "phrase"),
        ("\u56e0\u6b64\uff0c\u7b54\u6848\u662f $12$\u3002", "$12$", "phrase"),
        ("<ANSWER>The answer is 5</ANSWER>", "5", "tag"),
        ("So there are 2 apples left.", "2", "number"),
        ("It is 10.5.", "10.5", "number"),
        ("So <answer>5</answer>, the answer is 6", "5", "tag"),
        ("<answer>4</answer> no: <answer> 5 </answer>", "5", "tag"),
        ("**42**", "42", "whole"),
        ("Thus $a+b = 3+4 = 7$.", "a+b = 3+4 = 7", "formula"),
        ("$5$ metres", "$5$ metres", "whole"),
        (r"\boxed{The answer is 5}", "5", "box"),
        (r"\boxed{\text{The final answer is: } 5}", "5", "box"),
        (r"\boxed{\text{The answer is 5.}}", "5.", "box"),
        (r"\boxed{answers}", "answers", "box"),
        (r"So the answer is \boxed{12", None, None),
        (r"So $x = 12$, that is \boxed{12", None, None),
        (r"So \boxed{1. The answer is 7.", "7", "phrase"),
        ("So \\boxed{1.\n#### 7", "7", "hash"),
        (r"The answer is \boxed{3}. Wait, rather \boxed{4", "3", "box"),
        ("I cannot help with that. It is against the rules, is it not?", None, None),
        (r"answer = \frac{1}{2}", r"\frac{1}{2}", "phrase"),
        ("  3/4 ", "3/4", "whole"),
        ("We see that it must be $x = 3$ and that $y$ is 4.", "y", "formula"),
        (r"We see. Then it must be \(x = 3\) as we saw before.", "x = 3", "formula"),
        ("We see that there are 3 of them, so that 12 remain for the others.", "12", "number"),
        ("We see that there are many of them, so that some remain.", None, None),
        ("", None, None),
    ],
)
def test_the_order_of_places(text: str, expected: str | None, source: Source | None) -> None:
    """Catches a fall-back that overrules what stands before it, and a full stop inside a number taken for an end."""
    answer = final_answer(text, sources=ANYWHERE)
    assert (answer and answer.text, answer and answer.source) == (expected, source)


@pytest.mark.parametrize("text", ["#### 7", "the answer is 7", "7", "$7$"])
def test_for_rewards_only_boxes_count(text: str) -> None:
    """Catches a policy that is paid for numbers which happen to come last."""
    assert final_answer(text, sources=BOX) is None
    assert (final_answer(text, sources=STATED) is None) == (text in ("7", "$7$"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{1} and \boxed{2}", ("1", "2")),
        (r"$\boxed{1}$, $\boxed{2}$ and $\boxed{3}$", ("1", "2", "3")),
        (r"\boxed{1}, \text{ and } \boxed{2}", ("1", "2")),
        (r"\boxed{1} or \boxed{2}.", ("1", "2")),
        (r"$x=\boxed{1}$ and $y=\boxed{2}$", ("1", "2")),
        (r"$x=\boxed{1}$ so $y=\boxed{2}$", ("2",)),
        (r"\boxed{1}\n\n\boxed{2}", ("2",)),
        (r"\boxed{1}. So \boxed{2}", ("2",)),
        (r"\boxed{1} = \boxed{2}", ("2",)),
        (r"first \boxed{9}, then \boxed{1}, \boxed{2}", ("1", "2")),
        (r"\boxed{a \boxed{2}}", ("2",)),
        (r"\boxed{1}\boxed{2}", ("1", "2")),
        (r"\boxed{1} / \boxed{2}", ("1", "2")),
        (r"\boxed{1} or maybe \boxed{2}", ("1", "2")),
        (r"\boxed{1}, possibly \boxed{2}", ("1", "2")),
        (r"it is \boxed{1} (or \boxed{2} if $x<0$)", ("1", "2")),
        (r"it is \boxed{1}, but it could also be \boxed{2}.", ("1", "2")),
        ("\\boxed{1}\n\n\\boxed{2}", ("2",)),
        (r"it could be \boxed{1}. But no, it might not: \boxed{2}", ("2",)),
        (r"not \boxed{1} but \boxed{2}", ("2",)),
    ],
)
def test_several_boxes(text: str, expected: tuple[str, ...]) -> None:
    """Catches the second of two roots taken for the whole answer, and hedging paid for its last guess."""
    answer = final_answer(text)
    assert answer is not None
    assert answer.parts == expected
    is_choice = len(expected) > 1 and any(word in text for word in (" or ", "(or ", "possibly", "could"))
    assert answer.text == (" or " if is_choice else ", ").join(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"<think>\boxed{1}</think>\boxed{2}", "2"),
        (r"<think>\boxed{1}</think> so it is one", None),
        (r"<think>\boxed{1}", None),
        (r"\boxed{1} <think> no, \boxed{2}", None),
        (r"\boxed{1}</think>\boxed{2}", "2"),
    ],
)
def test_thoughts_hold_no_answer(text: str, expected: str | None) -> None:
    """Catches an answer taken from a thought that was cut off at the length limit."""
    answer = final_answer(text, sources=ANYWHERE if expected else BOX)
    assert (answer and answer.text) == expected


@given(st.text() | st.text(alphabet="\\boxed{} 1,answeri:#$()[].\n", max_size=80))
def test_never_raises(text: str) -> None:
    """Catches an index past the end, and an empty answer."""
    answer = final_answer(text, sources=ANYWHERE)
    assert answer is None or answer.source == "box" or answer.text


@pytest.mark.parametrize(
    "piece", [r"\boxed{", r"\boxed{1},", r"\boxed ", "answer is ", "#### ", "$", r"\(", "1,", "<think>"]
)
def test_time_is_linear(piece: str) -> None:
    """Catches a pattern that takes minutes on a megabyte of its own beginnings."""
    start = process_time()
    final_answer(piece * (1_000_000 // len(piece)), sources=ANYWHERE)
    assert process_time() - start < 5.0
