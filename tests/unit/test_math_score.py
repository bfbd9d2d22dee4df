r"""Verdicts of mathematics: reasons, hostile answers, limits of CPU time, and no influence of load."""

import contextlib
import random
import string
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revelm.core.types import Completion, Problem
from revelm.rewards import math_answer, math_formula
from revelm.rewards.cpu_limit import OutOfTime, cpu_limit
from revelm.rewards.final_answer import STATED
from revelm.rewards.math_answer import compare, is_equal
from revelm.rewards.math_score import closeness_of, score_math
from revelm.tasks.math import Math
from revelm.tasks.task import GuardedTask

HOSTILE = [
    "9^{9^{9^9}}",
    "9^{9^{9^{9^{9^9}}}}",
    "(10^{10^{10}})!",
    "100000!!!!!",
    "((10!)!)!",
    "\\binom{10^{10}}{10^9}",
    "1e999999999",
    "10^{-999999999}",
    "0.\\overline{" + "1" * 200 + "}",
    "\\frac{1}{0}",
    "\\log 0",
    "0^{-1}",
    "\\tan\\frac{\\pi}{2}",
    "\\sqrt[0]{2}",
    "(" * 150 + "x" + ")" * 150,
    "(" * 12 + "x" + ")" * 12,
    "{" * 140 + "}" * 140,
    "[" * 290,
    "x^{" * 12 + "2" + "}" * 12,
    "\\frac{" * 12 + "1" + "}{2}" * 12,
    "\\sqrt{" * 12 + "2" + "}" * 12,
    "\\begin{pmatrix}" + "1&" * 90 + "1\\end{pmatrix}",
    "\\begin{pmatrix}1&2\\\\3\\end{pmatrix}",
    "\\begin{pmatrix}",
    "\\{" + "1," * 140 + "1\\}",
    ",".join("x+1" for _ in range(70)),
    "\\pm" * 60,
    "1 \\pm 2 \\mp 3" * 8,
    "x = " * 60 + "1",
    "1 = " * 60 + "1",
    "\\sum_{n=1}^{10^{100}} n!",
    "\\int_0^{10^{10}} e^{x^x} dx",
    "\\prod_{n=1}^{100000} n^n",
    "\\text{" * 20,
    "\\text{a}" * 40,
    "a" * 300,
    "+" * 300,
    "-" * 299 + "1",
    "1" * 300,
    "1" * 5000,
    "0.5" + "+0" * 140 + "+1",
    "\x00\x01\x02",
    "\ud800\udfff",
    "7\ud800",
    "%" * 300,
    "$" * 299,
    "\\" * 299,
    "_" * 300,
    "^" * 300,
    "_{" * 100 + "}" * 100,
    "'" * 300,
    "\u202e7",
    "7" + "\u0301" * 200,
    "__import__('os').system('true')",
    "lambda: 1",
    "f(f(f(f(f(x)))))",
    "7" + "\\text{a} " * 26 + "\\te",
    "7" + "a" * 280 + "!",
    "x'" * 140,
    "(1)" * 90,
    "1 \\text{ or } " * 20 + "2",
    "0." + "12" * 140 + "3...",
    "\\frac{1}{2}\\begin{pmatrix}" * 8,
    "a" * 55 + "2 = 5",
    "\\alpha" * 9 + "2 = 5",
    "|" * 200,
    "|x|" * 60,
    "!" * 300,
    "1!" + "!" * 200,
]
REFERENCES = ["7", "\\frac{1}{2}", "x^2+1", "(1,2)", "[0,\\infty)", "\\{1,2\\}", "\\text{east}", "50\\%", "x = 3"]


@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_answers_are_wrong_and_quick(answer: str) -> None:
    """Catches a power tower, a factorial or a nesting that takes the verdict, or the process, down with it."""
    start = time.thread_time()
    for reference in REFERENCES:
        verdict = score_math(f"so \\boxed{{{answer}}}", reference)
        assert verdict.value == 0.0 == verdict.breakdown["correct"]
        assert verdict.reason.encode()
        assert "\n" not in verdict.reason
    assert time.thread_time() - start < 12.0


@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_references_raise_nothing(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Catches a data set with one odd row that ends a run."""
    monkeypatch.setattr(math_answer, "MAX_SECONDS", 0.5)
    assert compare(answer, "7") != "equal"
    assert is_equal(answer, answer)


@pytest.mark.parametrize("piece", ["1", "\\boxed{", "{", "\\frac{1}{2}+", "\\boxed{1}", "\\boxed{1},", "x^"])
def test_answers_of_a_megabyte(piece: str) -> None:
    """Catches time that is quadratic in the answer."""
    text = piece * (1_000_000 // len(piece))
    start = time.thread_time()
    score_math(text, "7", sources=STATED)
    assert (
        score_math("\\boxed{" + text.replace("\\boxed", "").replace("{", "").replace("}", "") + "}", "7").value == 0.0
    )
    assert time.thread_time() - start < 5.0


def test_blanks_make_no_answer_too_long() -> None:
    """Catches a long list of OlympiadBench judged wrong because it was written with blanks and sized brackets."""
    reference = ",".join(f"({k},{k + 1})" for k in range(30))
    wide = reference.replace("(", "\\left( ").replace(")", " \\right)").replace(",", " ,\\; ")
    assert len(wide) > 2 * len(reference)
    assert compare(reference, wide) == "equal"
    assert compare("7", "7" + " " * 500) == "equal"
    assert compare("7", "0" * 400 + "7") == "different"


def soups(seed: int, num: int) -> Iterator[str]:
    """Random strings of LaTeX tokens."""
    rng = random.Random(seed)
    tokens = [
        *(
            "\\frac",
            "\\sqrt",
            "{",
            "}",
            "(",
            ")",
            "[",
            "]",
            "\\{",
            "\\}",
            ",",
            ";",
            "=",
            "<",
            "\\le",
            "\\cup",
            "\\pm",
            "!",
        ),
        *(
            "^",
            "_",
            "+",
            "-",
            "*",
            "/",
            "\\text{",
            "\\%",
            "\\$",
            "$",
            "°",
            "x",
            "y",
            "i",
            "e",
            "\\pi",
            "\\infty",
            " ",
            "\\\\",
        ),
        *(
            "\\begin{pmatrix}",
            "\\end{pmatrix}",
            "&",
            "and",
            "or",
            "\\log",
            "\\sin",
            "\\sum_",
            "\\in",
            ":",
            "|",
            "'",
            ".",
        ),
        *string.digits,
    ]
    for _ in range(num):
        yield "".join(rng.choice(tokens) for _ in range(rng.randrange(1, 25)))


def test_no_soup_of_tokens_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an error of our own parts, which the boundary around a comparison would hide as a wrong answer."""
    monkeypatch.setattr(math_answer, "MAX_SECONDS", 30.0)
    for text in soups(0, 400):
        for reference in ("7", "(1,2)", "x \\ge 1", text + "+0"):
            math_answer.unguarded(reference, text)
        assert is_equal(text, text) or not text.strip()


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_raises(first: str, second: str) -> None:
    """Catches any text at all that ends a verdict."""
    assert score_math(f"\\boxed{{{first}}}", second).value in (0.0, 1.0)
    math_answer.unguarded(second, first)


@pytest.mark.parametrize(
    ("text", "value", "reason", "has_box"),
    [
        ("so \\boxed{3}", 1.0, "equal", 1.0),
        ("so \\boxed{4}", 0.0, "different: 4 instead of 3", 1.0),
        ("so 3", 0.0, "no answer", 0.0),
        ("so \\boxed{}", 0.0, "no answer", 1.0),
        ("so \\boxed{\n4\n}", 0.0, "different: 4 instead of 3", 1.0),
        ("so \\boxed{3} or \\boxed{4}", 0.0, "different: 3 or 4 instead of 3", 1.0),
        ("so \\boxed{3} or \\boxed{\\frac{6}{2}}", 1.0, "equal", 1.0),
        ("so \\boxed{" + "4" * 100 + "}", 0.0, "different: " + "4" * 37 + "... instead of 3", 1.0),
    ],
)
def test_reasons(text: str, value: float, reason: str, has_box: float) -> None:
    """Catches a verdict that nobody can check, and one that pays a hedge."""
    verdict = score_math(text, "3")
    assert (verdict.value, verdict.reason, verdict.breakdown) == (value, reason, {"correct": value, "has_box": has_box})


@pytest.mark.parametrize(
    ("question", "is_percent"),
    [
        ("3 of 12 puppies have spots. What percentage of the puppies have spots?", True),
        ("What is the probability, expressed as a percentage, that it rains?", True),
        ("What percent of 60 is 15?", True),
        ("Find the percent increase.", True),
        ("40 percent of 20 castles are ruins. How many are there?", False),
        ("It is off by the same percentage for any recipe. What temperature should she set?", False),
        ("A robe costs 30% more than $10. How much is it?", False),
    ],
)
def test_questions_for_a_percentage(question: str, *, is_percent: bool) -> None:
    """Catches 25 % judged wrong where the question asks for a percentage and the data set says 25: 1.7 % of GSM8K."""
    verdict = Math().score(Problem("p", question, "25"), Completion("\\boxed{25\\%}", 3, 1, "stop"))
    assert verdict.value == float(is_percent)
    assert closeness_of(question, absolute=0.1).absolute == 0.1


def test_parts_in_boxes_of_their_own() -> None:
    """Catches two roots in two boxes that count as the last of them."""
    assert score_math("\\boxed{1} and \\boxed{2}", "1, 2").value == 1.0
    assert score_math("\\boxed{2} and \\boxed{1}", "1, 2").value == 1.0
    assert score_math("\\boxed{2}", "1, 2").value == 0.0
    assert score_math("\\boxed{1} and \\boxed{2}", "(1, 2)").value == 1.0
    assert score_math("\\boxed{1} or \\boxed{2}", "1, 2").value == 1.0
    assert score_math("\\boxed{1} or \\boxed{2}", "(1, 2)").value == 0.0


def test_load_changes_no_verdict() -> None:
    """W65: limits counted from submission judged 63 % of 2,048 equal pairs wrong under load."""
    pairs = [(f"x^2+{k}", f"{k}+x^2") for k in range(24)] + [(f"x^2+{k}", f"{k + 1}+x^2") for k in range(24)]
    idle = [compare(*pair) for pair in pairs]
    is_done = threading.Event()

    def spin() -> None:
        while not is_done.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=spin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for cached in (math_formula._sampled, math_formula._read, math_formula.fraction_of):
        cached.cache_clear()
    busy = [compare(*pair) for pair in pairs]
    is_done.set()
    for thread in threads:
        thread.join()
    assert busy == idle == ["equal"] * 24 + ["different"] * 24


def test_the_time_of_other_threads_does_not_count() -> None:
    """W65: CPU time of the whole process would be used up by whatever else the process does."""
    is_done = threading.Event()

    def spin() -> None:
        while not is_done.is_set():
            sum(range(1000))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        with cpu_limit(0.3):
            start = time.perf_counter()
            while time.perf_counter() - start < 0.3:
                time.sleep(0.01)
    finally:
        is_done.set()
        thread.join()


def test_a_limit_of_cpu_time_ends_what_catches_every_exception() -> None:
    """Catches a comparison that goes on behind a handler of its own library."""

    def go_on() -> None:
        while True:
            with contextlib.suppress(Exception):
                sum(range(10_000))

    start = time.thread_time()
    with pytest.raises(OutOfTime), cpu_limit(0.1):
        go_on()
    assert time.thread_time() - start < 1.0


class _Slow:
    """Its destructor uses a tenth of a second of CPU time, so that a limit falls into it."""

    def __del__(self) -> None:
        start = time.thread_time()
        while time.thread_time() - start < 0.1:
            sum(range(100))


class _Faulty:
    """Its destructor fails, of which Python has to tell."""

    def __del__(self) -> None:
        _ = 1 // 0


def test_a_limit_that_falls_into_a_destructor_is_raised_again_and_not_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches "Exception ignored in ..." in the log of a worker whenever a limit meets a collection."""
    dropped: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda told: dropped.append(told.exc_value))

    def go_on() -> None:
        _Slow()
        while True:
            sum(range(100))

    with pytest.raises(OutOfTime), cpu_limit(0.05):
        go_on()
    assert not dropped
    with cpu_limit(5.0):
        _Faulty()
    assert [type(error) for error in dropped] == [ZeroDivisionError]


def test_out_of_time_is_wrong_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a limit that counts as an error, by which an endless answer would not be learnt from."""
    monkeypatch.setattr(math_answer, "MAX_SECONDS", 0.2)
    verdict = score_math("\\boxed{7}", "\\sum_{n=1}^{10^{100}} n!")
    assert (verdict.value, verdict.reason) == (0.0, "timed out")
    assert "error" not in verdict.breakdown


def test_a_missing_grammar_is_no_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """W66: without a runtime that fits its grammar, every formula was silently different."""
    math_formula.check_grammar.cache_clear()
    for cached in (math_formula._sampled, math_formula._read, math_formula.fraction_of):
        cached.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "latex2sympy2_extended.latex2sympy2", None)
    with pytest.raises(ImportError, match="grammar of math-verify does not load"):
        compare("x^2+1", "1+x^2")
    monkeypatch.undo()
    assert compare("x^2+1", "1+x^2") == "equal"


def test_the_task_is_guarded() -> None:
    """Catches verdicts of mathematics reached in the process that trains."""
    task = Math()
    assert isinstance(task, GuardedTask)
    assert task.score_seconds == 5.0
    verdict = task.score(Problem("p", "q", "\\frac{1}{2}"), Completion("\\boxed{0.5}", 3, 1, "stop"))
    assert (verdict.value, verdict.reason) == (1.0, "equal")
