r"""What a policy would learn to put into the box: the question's own expression, several answers, nothing at all."""

import pytest

from revelm.core.types import Completion, Problem
from revelm.rewards.math_answer import is_equal
from revelm.rewards.math_measure import Closeness
from revelm.rewards.math_score import score_math
from revelm.tasks.math import Math
from revelm.tasks.math500 import Math500


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("6", "1+2+3"),
        ("55", "1+2+3+4+5+6+7+8+9+10"),
        ("2484", r"54 \times 46"),
        ("70", r"\binom{8}{4}"),
        ("120", "5!"),
        ("6", r"\log_2 64"),
        ("4", r"\sqrt{16}"),
        ("27", "81^{3/4}"),
        ("6", r"\gcd(12,18)"),
        ("1", r"\sin^2 x + \cos^2 x"),
        ("7", "7 + 0x"),
        ("6", "x = 1+2+3"),
        ("6", "1+2+3 = 1+2+3"),
        ("6", "1+2+3 = 3+2+1"),
        ("(6,2)", "(1+2+3, 2)"),
        (r"\{6,2\}", r"\{2, 1+2+3\}"),
        ("[0,6]", "[0,1+2+3]"),
        ("x > 6", "x > 1+2+3"),
        (r"6\text{ cm}", r"1+2+3 \text{ cm}"),
        (r"\begin{pmatrix} 6 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1+2+3 \\ 2 \end{pmatrix}"),
        (r"\frac{1}{2}", r"\cos 60^\circ"),
        (r"\frac{\sqrt{3}}{2}", r"\sin 60^\circ"),
        (r"\sqrt{3}", r"\tan \frac{\pi}{3}"),
        (r"\frac{\pi}{6}", r"\arccos\frac{\sqrt3}{2}"),
        (r"2\sqrt{3}", r"\lfloor 2.5 \rfloor \sqrt{3}"),
        ("4x+18", "5x+6-x+12"),
        ("x^2+1", "x^2+1+0"),
        ("x^2+1", "(x^2+1+0)"),
    ],
)
def test_an_expression_is_no_number_yet(reference: str, answer: str) -> None:
    """Catches a copy of what was to be computed, and the same with a name, a unit or brackets around it."""
    assert not is_equal(reference, answer)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [("6", "1+2+3"), ("(6,2)", "(1+2+3, 2)"), ("120", "5!"), (r"\frac{1}{2}", r"\cos 60^\circ"), ("x^2+1", "x^2+1+0")],
)
def test_unworked_answers_are_right_on_request_as_for_graders_of_published_scores(reference: str, answer: str) -> None:
    """Catches scores that cannot be compared with published ones, and a request that accepts what is not equal."""
    lenient = Closeness(accepts_unworked=True)
    assert is_equal(reference, answer, closeness=lenient)
    assert not is_equal(reference, f"{answer}+1", closeness=lenient)


def test_tasks_take_formulas_of_the_question_on_request() -> None:
    """Catches a field of the tasks that reaches only half of the rules."""
    problem = Problem("1", "Factor $x^2-1$.", "(x-1)(x+1)")
    copied, wrong = (Completion(rf"\boxed{{{formula}}}", 3, 1, "stop") for formula in ("x^2-1", "x^2+1"))
    for make in (Math, Math500):
        task, lenient = make(), make(accepts_unworked=True)
        assert task.score(problem, copied).reason.startswith("copied")
        assert lenient.score(problem, copied).value == 1.0
        assert lenient.score(problem, wrong).value == 0.0


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("1024", "2^{10}"),
        (r"\frac{1}{1024}", r"\frac{1}{2^{10}}"),
        (r"\frac{1}{1024}", "2^{-10}"),
        (r"\frac{1}{16}", r"\left(\frac{1}{2}\right)^4"),
        (r"\frac{27}{16}", "3^3/2^4"),
        ("3", r"\frac{6}{2}"),
        ("-3", "-(3)"),
        ("3000", r"3 \times 10^3"),
        ("6", "1+2+3 = 6"),
        ("20", r"5 \times 4 = 20"),
        ("20", r"20 = 5 \times 4"),
        ("6", r"x = 1+2+3 = 6"),
        (r"\frac{\pi}{2}-\arctan\frac12", r"\arctan 2"),
        (r"3\ln 2", r"\ln 8"),
        (r"2(1+\sqrt2)", r"2+2\sqrt2"),
        (r"\frac{11+9a}{20}", r"\frac{11}{20}+\frac{9a}{20}"),
        (r"\frac{100!}{98!}", "9900"),
        (r"2^{1009}-1", "-1+2^{1009}"),
    ],
)
def test_a_worked_number_may_be_written_in_many_ways(reference: str, answer: str) -> None:
    """Catches a rule against expressions that turns away powers, fractions and answers with their way to them."""
    assert is_equal(reference, answer)


def test_a_tolerance_takes_expressions() -> None:
    """Catches pi judged wrong for 3.14, where the data set says how near is near enough."""
    assert is_equal("3.14", r"\pi", closeness=Closeness(absolute=0.01))


@pytest.mark.parametrize(
    ("question", "reference", "answer", "reason"),
    [
        ("Factor $x^2-1$.", "(x-1)(x+1)", "x^2-1", "copied"),
        ("Factor $x^2-1$.", "(x-1)(x+1)", "0+(x^2-1)", "copied"),
        ("Factor $x^2-1$.", "(x-1)(x+1)", r"\frac{2(x^2-1)}{2}", "copied"),
        ("Factor $x^2-1$.", "(x-1)(x+1)", r"x^2-1 = x^2-1", "copied"),
        ("Factor $x^2-1$.", "(x-1)(x+1)", "x^2-1 = (x-1)(x+1)", "equal"),
        ("Factor $x^2-1$.", "(x-1)(x+1)", "-1+x^2", "not factored"),
        ("Factor $x^2-1$.", "(x-1)(x+1)", "(x+1)(x-1)", "equal"),
        ("Expand $(x-1)(x+1)$.", "x^2-1", "(x-1)(x+1)", "copied"),
        ("Expand $(x-1)(x+1)$.", "x^2-1", "(1+x)(x-1)", "not expanded"),
        ("Expand $(x-1)(x+1)$.", "x^2-1", "-1+x^2", "equal"),
        ("Expand $(x-1)(x+1)$.", "x^2-1", "(x^2-1)", "equal"),
        ("Factor $x^2-1$.", "(x-1)(x+1)", "(-1+x^2)", "not factored"),
        (r"Simplify \[\sqrt{37-20\sqrt3}.\]", r"5-2\sqrt3", r"\sqrt{37-20\sqrt3}", "copied"),
        (r"Rationalise $\frac{21}{\sqrt{21}}$", r"\sqrt{21}", r"\frac{21}{\sqrt{21}}", "copied"),
        (r"Simplify \[\sqrt{37-20\sqrt3}.\]", r"5-2\sqrt3", r"\sqrt{-20\sqrt3+37}", "copied"),
        (r"Simplify \[\sqrt{37-20\sqrt3}.\]", r"5-2\sqrt3", r"-2\sqrt3+5", "equal"),
        (r"Rationalise $\frac{21}{\sqrt{21}}$", r"\sqrt{21}", r"21/\sqrt{21}", "copied"),
        (r"Simplify $\frac{x^2-1}{x-1}$.", "x+1", r"\frac{-(1-x^2)}{-1+x}", "copied"),
        (r"Simplify $\frac{x}{2} \cdot \frac{y}{z}$.", r"\frac{xy}{2z}", r"\frac{y}{z} \cdot \frac{1}{2}x", "copied"),
        (r"Let $f(x) = 2x+1$. What is $f$?", "1+2x", "2x+1", "equal"),
        (r"Let $f(x) = 2x+1$. What is $f$?", "2x+1", "1+2x", "equal"),
        (r"The sides are $x+1$ and $x+2$. Find the area.", "x^2+3x+2", "(x+1)(x+2)", "equal"),
        (r"The angles are $50^\circ$ and $80^\circ$. Find the third one.", "50", r"50^\circ", "equal"),
        (r"A coin has $p = 0.5$. What is the probability?", r"\frac{1}{2}", "0.5", "equal"),
        ("Is $x^2+1$ irreducible? Give it again.", "x^2+1", "x^2+1", "equal"),
        ("Find $x$ with $x = 4$.", "4", "x = 4", "equal"),
    ],
)
def test_formulas_of_the_question_are_no_answer(question: str, reference: str, answer: str, reason: str) -> None:
    """Catches 7 % of the problems of MATH, whose answer is worth a point where it is copied from the question."""
    verdict = Math().score(Problem("p", question, reference), Completion(f"\\boxed{{{answer}}}", 3, 1, "stop"))
    assert verdict.reason.partition(":")[0] == reason
    assert verdict.value == verdict.breakdown["correct"] == float(reason == "equal")


REFERENCES = (
    *(
        "7",
        "-3",
        "1234",
        r"\frac{1}{2}",
        r"50\%",
        r"\sqrt{2}",
        "1+2i",
        "x^2+1",
        "y=2x+3",
        "x=5",
        "(1,2)",
        r"[0,\infty)",
    ),
    *(r"\{1,2\}", "1,2", r"(-\infty,1)\cup(3,\infty)", r"x \le 3", r"\text{east}", r"\text{(B)}", "CD", "LQSX"),
    *(r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"12\text{ cm}", r"\$36", "3:4", "52_8", r"\pm 3", r"\text{Evelyn}"),
)
ATTACKS = (
    *("x", "y", "?", "...", r"\ldots", r"\square", r"\text{answer}", r"\text{any number}", r"\text{all of the above}"),
    *("A, B, C, D", "ABCD", "(A)(B)(C)(D)", "(A) or (B)", "B/C", r"\text{B, C}", "0,1,2,3,4,5,6,7,8,9", "1-10"),
    *(r"(-\infty,\infty)", r"\mathbb{R}", r"x \in \mathbb{R}", "x=x", "x=y", r"\infty", r"\frac{0}{0}", r"\frac{x}{x}"),
    *("nan", "inf", "None", "null", "undefined", "f(x)", r"\pm", r"\approx 3", "=", "7=7=8", r"\frac{}{}", r"\sqrt{}"),
    *("{}", "()", "(,)", ",", r"\text{}", r"\phantom{7}", r"\hspace{7}", r"\tag{7}", "7 8", "7;8", "7|8", "7!", "7..."),
    *(
        r"7,\ldots",
        r"\{7,\ldots\}",
        r"7 \text{ or } 8",
        r"7 \text{ not } 8",
        r"7 \text{ if } x",
        r"\max(7,8)",
        "7 (or 8)",
    ),
    *(
        r"7 \vee 8",
        r"7, \text{ maybe } 8",
        r"\cancel{7}8",
        r"\not 7",
        r"\neq 7",
        r"x \ne 7",
        "> 6",
        r"\ge 7",
        r"7 \pm 1",
    ),
    *("[6,8]", "(6,8)", r"\text{yes or no}", r"\text{east or west}", "east, west", r"\text{not east}", "Evelyn, Bob"),
    *(r"\text{north, south, east, west}", "1,2,3,4", "(1,2),(2,1)", r"\begin{cases}7\\8\end{cases}", "x = 5, x = 6"),
    *(r"x = 5 \text{ or } 6", "x^2+1, x^2-1", "x^2+1=0", r"\frac{1}{2}, 2", "3,-3,4", "(1,2,3)", r"[0,\infty", "x < 4"),
    *(
        "52",
        r"52_8 \text{ or } 52_9",
        r"36 \text{ cents}",
        r"\$36 \text{ or } \$37",
        r"12 \text{ cm or m}",
        "__any__",
        ".*",
    ),
    *("9" * 50, "1 2 3 4 5 6 7 8 9", "\u200b", "\\left(7", "7%8", "<!--7-->8", "7\n\n8", "7\\\\8", "7&8", "7 % 8"),
)


@pytest.mark.parametrize("answer", ATTACKS)
def test_no_answer_for_everything(answer: str) -> None:
    """Catches an answer that is right for many references, without a problem having been solved."""
    for reference in REFERENCES:
        assert score_math(f"\\boxed{{{answer}}}", reference).value == 0.0, reference


def test_what_a_question_leaves_undone_never_raises() -> None:
    """Catches an index past the end in texts that are no formulas."""
    for odd in ("$", "$$", "$ $", r"\[", "$=$", "$=x=$", "${$", "\x00", "\ud800", "$" + "(" * 400 + "$"):
        for answer in (odd, "x+1", "(x+1", "=", "x=", r"\frac"):
            assert score_math(f"\\boxed{{{answer}}}", "x+1", question=f"Factor {odd}. {answer}").value in (0.0, 1.0)
