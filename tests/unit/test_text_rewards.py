"""Verdicts that need a text and a reference, and rewards of form, length and speed."""

from difflib import SequenceMatcher
from functools import cache
from math import cos, pi
from random import Random
from time import perf_counter
from typing import Any

import pytest

from revelm.core.registry import build
from revelm.core.types import Completion, Problem, Score
from revelm.rewards.answer_part import Part, answer_part
from revelm.rewards.choice import choice_letter, score_choice
from revelm.rewards.code_score import score_code
from revelm.rewards.code_tests import CodeTests, TestResult
from revelm.rewards.exact_match import score_exact
from revelm.rewards.fuzzy_match import ratio, score_fuzzy, token_f1
from revelm.rewards.regex_match import score_regex
from revelm.rewards.reward import Judged
from revelm.rewards.sandbox.limits import Limits


def judged(text: str, reference: str = "", **changes: Any) -> Judged:
    """An answer of 10 tokens in 4 forwards, which the task calls right."""
    about = {"correct": 1.0, "tokens": 10, "forwards": 4, "ending": "stop"} | changes
    completion = Completion(text, about["tokens"], about["forwards"], about["ending"])
    return Judged(Problem("p", "q", reference), completion, Score(about["correct"], {"correct": about["correct"]}))


def rate(spec: Any, text: str = "", reference: str = "", **changes: Any) -> float | None:
    """What the reward of ``spec`` says."""
    found: float | None = build("rewards", spec, field="reward.parts.0").rate(judged(text, reference, **changes))
    return found


@pytest.mark.parametrize(
    ("text", "part", "found"),
    [
        ("so \\boxed{ 4 } <answer>5</answer>", "auto", "4"),
        ("so <answer> 5 </answer>.", "auto", "5"),
        (" just 6 ", "auto", "just 6"),
        ("<think>\\boxed{1}</think> 6", "auto", "6"),
        ("<think>\\boxed{1}", "auto", None),
        ("", "auto", None),
        ("4", "box", None),
        ("<answer>1</answer><answer>2</answer>", "tag", "2"),
        ("<answer>1<answer>2</answer>", "tag", "2"),
        ("<answer>1", "tag", None),
        ("The answer is 7.", "stated", "7"),
        ("\\boxed{4} and more", "text", "\\boxed{4} and more"),
    ],
)
def test_the_part_that_is_compared(text: str, part: Part, found: str | None) -> None:
    """Catches an answer inside a thought that counts, a tag that is not closed, and a box lost behind a tag."""
    assert answer_part(text, part) == found


@pytest.mark.parametrize(
    ("text", "reference", "correct", "reason"),
    [
        ("\\boxed{Paris}", "paris", 1.0, "equal"),
        ("  New\n York. ", "new york", 1.0, "equal"),
        ("caf\u0065\u0301", "caf\u00e9", 1.0, "equal"),
        ("-5", "5", 0.0, "different: -5 instead of 5"),
        ("1,2", "12", 0.0, "different: 1,2 instead of 12"),
        ("x\u00b2", "x2", 0.0, "different: x\u00b2 instead of x2"),
        ("", "", 0.0, "no answer"),
        ("\\boxed{}", "", 0.0, "no answer"),
        ("\\boxed{.}", "", 0.0, "different: . instead of "),
    ],
)
def test_exact_matches(text: str, reference: str, correct: float, reason: str) -> None:
    """W67: commas and signs that are deleted, so that other answers count as equal. And an empty answer that is right
    where there is no reference."""
    score = score_exact(text, reference)
    assert (score.value, score.breakdown["correct"], score.reason) == (correct, correct, reason)


def test_exact_without_normalisation() -> None:
    """Catches an option that is read and not obeyed."""
    assert score_exact("paris", "Paris", is_normalised=False).value == 0.0
    assert rate({"kind": "exact", "is_normalised": False}, "Paris ", "Paris") == 1.0
    assert rate({"kind": "exact", "part": "box"}, "Paris", "Paris") == 0.0
    assert rate("exact", "anything", " ") is None


def test_ratio_is_that_of_longest_common_subsequences() -> None:
    """Catches a carry lost between bits: against the recursion, on texts with many repetitions."""

    def longest(one: str, other: str) -> int:
        @cache
        def at(i: int, j: int) -> int:
            if i == len(one) or j == len(other):
                return 0
            return at(i + 1, j + 1) + 1 if one[i] == other[j] else max(at(i + 1, j), at(i, j + 1))

        return at(0, 0)

    rng = Random(0)
    for _ in range(200):
        one, other = ("".join(rng.choice("abc ") for _ in range(rng.randint(0, 12))) for _ in range(2))
        if one or other:
            assert ratio(one, other) == ratio(other, one) == 2 * longest(one, other) / (len(one) + len(other))
    assert ratio("", "") == 1.0
    assert ratio("kitten", "sitting") >= SequenceMatcher(None, "kitten", "sitting").ratio()


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ("the cat sat", "a cat sat", 1.0),
        ("cat cat cat", "cat", 0.5),
        ("dog", "cat", 0.0),
        ("cat, sat!", "cat sat", 1.0),
        ("", "cat", 0.0),
        ("the", "a", 1.0),
    ],
)
def test_words_in_common(answer: str, reference: str, value: float) -> None:
    """Catches a word that is repeated to be counted again, and articles and punctuation that count."""
    assert token_f1(answer, reference) == value


def test_fuzzy_scores() -> None:
    """Catches a threshold that is not applied, and a long answer that takes for ever."""
    score = score_fuzzy("\\boxed{colour}", "color", threshold=0.9)
    assert score.value == pytest.approx(10 / 11)
    assert (score.breakdown["correct"], score.reason) == (1.0, "ratio 0.909")
    assert rate({"kind": "fuzzy", "threshold": 0.95}, "colour", "color") == 0.0
    assert rate({"kind": "fuzzy", "measure": "token_f1"}, "red cat", "cat") == pytest.approx(2 / 3)
    assert score_fuzzy("", "color").reason == "no answer"
    began = perf_counter()
    for text in ("a" * 1_000_000, "ab" * 500_000, "a b " * 250_000):
        score_fuzzy(text, "a" * 20_000)
        score_fuzzy(text, "a b " * 5_000, measure="token_f1")
    assert perf_counter() - began < 10


def test_regular_expressions() -> None:
    """Catches a pattern that looks into thoughts, one that is none, and a reference that is not used."""
    assert rate({"kind": "regex", "pattern": "a.b"}, "xa\nbx") == 1.0
    assert rate({"kind": "regex", "pattern": "a.b", "is_whole": True}, "xa\nbx") == 0.0
    assert rate({"kind": "regex", "pattern": "yes"}, "<think>yes</think>no") == 0.0
    assert rate({"kind": "regex", "part": "box", "is_whole": True}, "\\boxed{42}", "4[0-9]") == 1.0
    assert rate("regex", "anything", "") is None
    assert rate("regex", "anything", "(") is None
    score = score_regex("text", "(")
    assert (score.value, score.breakdown["error"]) == (0.0, 1.0)
    assert score.reason.startswith("error: '(' is no regular expression")
    with pytest.raises(ValueError, match=r"reward\.parts\.0: pattern='\(': no regular expression"):
        build("rewards", {"kind": "regex", "pattern": "("}, field="reward.parts.0")


@pytest.mark.parametrize(
    ("text", "reference", "correct", "reason"),
    [
        ("\\boxed{b}", "B", 1.0, "equal"),
        ("\\boxed{\\text{(B) two}}", "B", 1.0, "equal"),
        ("The answer is (B).", "b", 1.0, "equal"),
        ("Answer: C", "B", 0.0, "different: C instead of B"),
        ("B", "B", 1.0, "equal"),
        ("The correct answer is option B.", "B", 1.0, "equal"),
        ("The answer is \\boxed{\\text{option C}}", "B", 0.0, "different: C instead of B"),
        ("Because of this", "B", 0.0, "no letter"),
        ("\\boxed{A} or \\boxed{B}", "B", 0.0, "no letter"),
        ("\\boxed{(B) or (C)}", "B", 0.0, "no letter"),
        ("\\boxed{(B) and C}", "B", 0.0, "no letter"),
        ("\\boxed{B. C.}", "B", 0.0, "no letter"),
        ("\\boxed{(B) vitamin C.}", "B", 1.0, "equal"),
        ("\\boxed{**B**}", "B", 1.0, "equal"),
        ("<answer>B</answer>", "B", 1.0, "equal"),
        ("The answer is B, because A is not.", "B", 1.0, "equal"),
        ("<think>The answer is B", "B", 0.0, "no letter"),
        ("", "B", 0.0, "no letter"),
    ],
)
def test_letters(text: str, reference: str, correct: float, reason: str) -> None:
    """W71: an option that can be asked for and not be judged. And hedging that counts as the right one of two."""
    score = score_choice(text, reference)
    assert (score.value, score.reason) == (correct, reason)


def test_letters_as_rewards() -> None:
    """Catches a wrong letter paid like a right one, and a reference that is no letter judged all the same."""
    spec = {"kind": "choice", "format_reward": 0.1}
    assert [rate(spec, text, "B") for text in ("\\boxed{B}", "\\boxed{C}", "?")] == [1.0, 0.1, 0.0]
    assert rate(spec, "\\boxed{B}", "12") is None
    assert score_choice("B", "12").breakdown["error"] == 1.0
    assert choice_letter("B. " + "x" * 10_000) is None
    with pytest.raises(ValueError, match=r"format_reward=1\.0"):
        build("rewards", {"kind": "choice", "format_reward": 1.0})


THINK: dict[str, Any] = {"kind": "format", "tags": ["think", "answer"]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>a</think>\n<answer>b</answer>\n", 1.0),
        ("<think></think><answer></answer>", 1.0),
        ("x<think>a</think><answer>b</answer>", 0.0),
        ("<think>a</think>x<answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer>x", 0.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<think>a<answer>b</think></answer>", 0.0),
        ("<think>a<answer>b</answer></think>", 0.0),
        ("<think>a</think><think>a</think><answer>b</answer>", 0.0),
        ("<think>a</think><answer>b", 0.0),
        ("</think>a<think><answer>b</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_tags(text: str, value: float) -> None:
    """Catches tags that are nested, repeated, left open or in another order, and text outside of them."""
    assert rate(THINK, text) == value


def test_formats() -> None:
    """Catches a box in a thought that counts as the answer's, an empty one, and a format of nothing."""
    boxed = THINK | {"has_box": True}
    assert rate(boxed, "<think>\\boxed{1}</think><answer>1</answer>") == 0.0
    assert rate(boxed, "<think>1</think><answer>\\boxed{1}</answer>") == 1.0
    assert rate({"kind": "format", "has_box": True}, "\\boxed{ }") == 0.0
    assert rate({"kind": "format", "pattern": "Step.*Done"}, "Step 1\nDone\n") == 1.0
    assert rate({"kind": "format", "pattern": "Step.*Done"}, "A Step 1\nDone") == 0.0
    for fields, message in (
        ({}, "a format of nothing"),
        ({"tags": ["a", "a"]}, "expected different names"),
        ({"tags": ["<a>"]}, "expected different names"),
        ({"pattern": "["}, "no regular expression"),
    ):
        with pytest.raises(ValueError, match=message):
            build("rewards", {"kind": "format", **fields})


@pytest.mark.parametrize(("tokens", "value"), [(0, 0.0), (50, 0.0), (51, -0.02), (75, -0.5), (100, -1.0), (999, -1.0)])
def test_a_budget_of_tokens(tokens: int, value: float) -> None:
    """Catches a penalty without a bound, and one that begins in the free tokens."""
    assert rate({"kind": "length", "free": 50, "limit": 100}, tokens=tokens) == pytest.approx(value)


def test_the_length_rule_is_for_every_task() -> None:
    """W69: code has raw pass counts and no length rule. W70: lengths come from text that is tokenised again."""

    class Passes:
        def run(self, code: str, tests: CodeTests, limits: Limits) -> tuple[TestResult, ...]:
            return (TestResult("passed"),)

    score = score_code("print(1)", CodeTests("stdio", inputs=("",), outputs=("1",)), executor=Passes())
    long = Judged(Problem("p", "q", ""), Completion("1", 90, 9, "stop"), score)
    length, task = (build("rewards", spec) for spec in ({"kind": "length", "limit": 100}, "task"))
    assert task.rate(long) + length.rate(long) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="a program without tests cannot be judged"):
        CodeTests("stdio")


def test_a_cosine_of_length() -> None:
    """Catches values of right and wrong answers that are exchanged, and a cosine that goes on behind the limit."""
    spec = {"kind": "cosine_length", "limit": 100, "correct": [2, 1], "wrong": [-10, 0], "exceeded": -7}
    assert rate(spec, tokens=0) == pytest.approx(2.0)
    assert rate(spec, tokens=100) == pytest.approx(1.0)
    assert rate(spec, tokens=25) == pytest.approx(1.0 + (1.0 + cos(pi / 4)) / 2)
    assert rate(spec, tokens=0, correct=0.0) == pytest.approx(-10.0)
    assert rate(spec, tokens=50, correct=0.0) == pytest.approx(-5.0)
    assert rate(spec, tokens=300, correct=0.0) == pytest.approx(0.0)
    assert rate(spec, tokens=100, ending="length") == -7.0


def test_tokens_per_forward() -> None:
    """Catches fast nonsense that is paid, and a division by no forwards."""
    assert rate({"kind": "tokens_per_forward", "target": 5}) == pytest.approx(0.5)
    assert rate({"kind": "tokens_per_forward", "target": 2}) == 1.0
    assert rate("tokens_per_forward", correct=0.0) == 0.0
    assert rate({"kind": "tokens_per_forward", "only_correct": False, "target": 5}, correct=0.0) == pytest.approx(0.5)
    assert rate("tokens_per_forward", tokens=0, forwards=0) == 0.0


def test_the_score_of_the_task() -> None:
    """Catches a verdict that could not be reached and counts as one, and a partial score taken for a whole one."""
    partial = Judged(Problem("p", "q", ""), Completion("", 1, 1, "stop"), Score(0.5, {"correct": 0.0}))
    broken = Judged(Problem("p", "q", ""), Completion("", 1, 1, "stop"), Score(0.0, {"correct": 0.0, "error": 1.0}))
    value, correct = (build("rewards", {"kind": "task", "what": what}) for what in ("value", "correct"))
    assert [(r.rate(partial), r.rate(broken)) for r in (value, correct)] == [(0.5, None), (0.0, None)]
