r"""Answers as language models write them: what is only written otherwise is right, what only looks right is wrong."""

import pytest

from revelm.rewards.math_answer import is_equal
from revelm.rewards.math_score import closeness_of, score_math

EQUAL = {
    "equations": [
        (r"\frac{x^2}{4}+\frac{y^2}{9}=1", "9x^2+4y^2=36"),
        ("2x+4y-3=0", r"y = -\frac{1}{2}x + \frac{3}{4}"),
        ("y = 2x+1", "6x - 3y + 3 = 0"),
        ("x + y < 2", "3x + 3y < 6"),
        ("3", "3 = x"),
        ("x=1, y=2, z=3", "(x,y,z)=(1,2,3)"),
        ("(1,2)", r"\begin{cases} x=1 \\ y=2 \end{cases}"),
        ("(1,2)", r"\begin{aligned} x&=1\\ y&=2\end{aligned}"),
        ("(-1,1)", "|x|<1"),
        (r"(-\infty,-1)\cup(1,\infty)", "|x|>1"),
        ("-2 < a < 2", "|a| < 2"),
        ("10", r"\|\mathbf{v}\| = 10"),
        ("10", "[ABC] = 10"),
        ("10", r"\mathbb{E}[X] = 10"),
        ("1,2,3", r"x \in \{1, 2, 3\}"),
        (r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}", r"\mathbf{v} = \begin{pmatrix} 1 \\ -2 \end{pmatrix}"),
    ],
    "looks": [
        ("3", "**3**"),
        ("3", "`3`"),
        ("3", r"\(3\)"),
        ("3", r"\[3\]"),
        ("3", r"\large 3"),
        ("3", r"\Large{3}"),
        ("3", r"\huge\mathbf{3}"),
        ("3", r"{\bf 3}"),
        ("3", r"3\checkmark"),
        ("3", r"\approx 3"),
        ("12", r"\text{approximately } 12"),
        (r"\frac{3}{4}", r"{3 \over 4}"),
        (r"\binom{n}{k}", r"{n \choose k}"),
        (r"\vec{a}+\vec{b}", r"\vec b+\vec a"),
        (r"\sqrt[3]{4}", "∛4"),
        (r"\angle ABC", "∠ABC"),
        ("12", r"12^{\text{th}}"),
        ("12", "12th"),
        (r"1-\frac{1}{e}", r"1-\frac{1}{\mathrm{e}}"),
        ("e^{2}", r"\mathrm{e}^2"),
        ("e^{2}", r"\exp(2)"),
        (r"\infty", r"\text{infinity}"),
        (r"(-\infty,2]", "(-infty, 2]"),
        (r"\mathbb{R}", r"\text{All real numbers}"),
        (r"\text{does not exist}", r"\text{DNE}"),
        (r"\text{是}", "是"),
        ("10", "10 in."),
        ("10", "~10~"),
        ("10", r"\therefore 10"),
        ("10", r"10\\"),
        ("10", r"\underline{\underline{10}}"),
    ],
    "signs of Unicode": [
        (r"\frac{\alpha+\beta}{2}", "(\u03b1+\u03b2)/2"),
        ("2^n", "2\u207f"),
        ("a_n", "a\u2099"),
        (r"\lfloor n/2 \rfloor", "\u230an/2\u230b"),
        ("1,2", "1\u30012"),
        ("(1,2)", "\uff081\uff0c2\uff09"),
        ("3", "3 \u2713"),
        (r"2k\pi, k\in\mathbb{Z}", "2k\u03c0, k \u2208 \u2124"),
        ("5", "\u00a55"),
        ("\u00a55", "5\u5143"),
        ("25", "25\u2103"),
    ],
    "numbers": [
        (r"\frac{3}{4}", "three-fourths"),
        (r"\frac{1}{2}", r"\text{one half}"),
        (r"\frac{1}{3}", r"0.\dot{3}"),
        (r"\frac{1}{3}", r"0.\bar{3}"),
        (r"\frac{1}{3}", "0.(3)"),
        (r"\frac{1}{3}", r"0.333\ldots"),
        (r"\frac{1}{12}", "0.08333..."),
        (r"\frac{4}{33}", r"0.\dot{1}\dot{2}"),
        (r"\sqrt{2}", "1.41421356..."),
        (r"\frac{1}{2}", r"\frac{1}{2} \text{ or } 0.5"),
        (r"\frac{1}{2}", r"\frac12\ (0.5)"),
        (r"\frac{1}{2}", r"\frac12 (50\%)"),
        ("1.41", r"\sqrt{2} \approx 1.41"),
        ("6.28", r"x = 2\pi \approx 6.28"),
        ("1:2:3", "2:4:6"),
        ("3:4", r"3\text{ to }4"),
        ("1010_2", "(1010)_2"),
        ("1010_2", "1010_{(2)}"),
        ("1010_2", r"1010 \text{ (base 2)}"),
        ("1010_2", r"1010 \text{ in base } 2"),
    ],
    "units": [
        ("12", r"\text{12 ways}"),
        ("25", r"25^\circ\text{C}"),
        (r"25^\circ\text{C}", "25°"),
        (r"100^\circ C", "100"),
        ("45", r"45 \frac{\text{miles}}{\text{hour}}"),
        ("5", "5个"),
        ("5", r"5\text{ 厘米}"),
        (r"9 \text{ m squared}", r"9 \text{ m}^2"),
    ],
    "sets and matrices": [
        (r"(-\infty,-1)\cup(1,\infty)", r"(-\infty,-1) \text{ or } (1,\infty)"),
        (r"(-\infty,-1)\cup(1,\infty)", r"(-\infty, -1) U (1, \infty)"),
        (r"\{3\}", "3"),
        ("3", r"\{3\}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\left[\begin{array}{c}1\\2\end{array}\right]"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\[4pt] 2 \end{pmatrix}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "(1,2)"),
        (r"\begin{pmatrix} 1/2 & 0 \\ 0 & 1 \end{pmatrix}", r"\frac{1}{2}\begin{pmatrix} 1 & 0 \\ 0 & 2 \end{pmatrix}"),
        (r"\begin{pmatrix} -1 \\ x \end{pmatrix}", r"-\begin{pmatrix} 1 \\ -x \end{pmatrix}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}^T"),
    ],
    "remarks": [
        ("f(x)=x+c", r"f(x)=x+c \text{ for any constant } c"),
        ("2^n-1", r"2^n-1 \text{ for } n \ge 1"),
        ("12", r"12, \text{ where } n = 3"),
        (r"2k+1, k\in\mathbb{Z}", r"2k+1 \text{ for } k \in \mathbb{Z}"),
        (r"x=\frac{\pi}{2}+k\pi, k\in\mathbb{Z}", r"\frac{\pi}{2}+k\pi\ (k\in\mathbb{Z})"),
    ],
    "choices": [
        ("A", "Option A"),
        ("A", r"\text{option (A)}"),
        ("A", "A) 12"),
        ("A", "A: 12"),
        (r"\text{(B)}", r"\textbf{(B)}\ 3 \text{ and } 4"),
    ],
}
DIFFERENT = {
    "hedges": [
        ("10", "10 eleven"),
        ("10", r"10 \text{ eleven twelve}"),
        ("10", r"10 \text{ alternatively }"),
        ("10", r"10 \text{ oder elf}"),
        ("10", r"10\text{或十一}"),
        ("3", "three four"),
        ("3", r"3 \text{ plus one}"),
        ("3", "3 times two"),
        ("3", r"3 \text{ squared}"),
        ("3", "3 halves"),
        ("2", "two thirds"),
        ("1", r"\text{one half}"),
        ("12", "twelve point five"),
        ("12", r"12 \sim 13"),
        ("3", r"3 \approx 4"),
        ("4", r"3 \approx 4"),
        ("13", r"12 \text{ cm} \approx 13 \text{ cm}"),
        (r"\$\dfrac23 \approx \$0.67", r"\$\dfrac24 \approx \$0.67"),
        (r"\approx 8.24 \text{ mph}", r"-\approx 8.24 \text{ mph}"),
        ("3", "3 (4)"),
        ("3", r"3 \text{ or } \frac{6}{2} \text{ or } 4"),
        ("3", r"3 \text{ for some } n, 4 \text{ otherwise}"),
        (r"\text{(A)}", "(A) B"),
        (r"\text{(A)}", r"(A) \text{ or B}"),
        (r"\text{(A)}", "(A) 12, B 13"),
        (r"\text{(A)}", r"(A) \text{ but maybe } (B)"),
        (r"\text{(A)}", "Option A or B"),
    ],
    "what only looks alike": [
        (r"(2,\infty)", "|x|>2"),
        (r"(-\infty,2]", r"|x| \le 2"),
        (r"2k+1, k\in\mathbb{Z}", r"2k+1, k\in\mathbb{N}"),
        (r"\frac{1}{3}", "0.3..."),
        (r"\frac{1}{3}", "0.(34)"),
        ("0.5", "0.5..."),
        ("1:2:3", "1:3:2"),
        ("25", r"25^\circ\text{C or }26"),
        (r"25^\circ\text{C}", r"25^\circ\text{F}"),
        ("5", "5或"),
        ("(N)(N-1)", "(N)(N+1)"),
        ("(1,2),(3,4)", r"(1,2)\cup(3,4)"),
        ("0", r"\{\emptyset\}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "[1,2]"),
        (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", "(1,2)"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"2\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        (r"\frac{x^2}{4}+\frac{y^2}{9}=1", "9x^2+4y^2=35"),
        ("x + y < 2", "-3x - 3y < -6"),
        (r"\begin{cases} x & x>0 \\ 0 & x \le 0 \end{cases}", "x"),
    ],
}


@pytest.mark.parametrize(("reference", "answer"), [pair for pairs in EQUAL.values() for pair in pairs])
def test_what_is_only_written_otherwise(reference: str, answer: str) -> None:
    """Catches right answers that are not paid: scaled equations, arrays in brackets, degrees Celsius."""
    assert is_equal(reference, answer)
    assert is_equal(answer, answer)


@pytest.mark.parametrize(("reference", "answer"), [pair for pairs in DIFFERENT.values() for pair in pairs])
def test_what_only_looks_right(reference: str, answer: str) -> None:
    """Catches a second answer taken for a unit or for the text of a choice, and |x| taken for x."""
    assert not is_equal(reference, answer)


@pytest.mark.parametrize(
    ("question", "reference", "answer", "expected"),
    [
        ("Write $42$ in base $8$.", "52_8", "52", True),
        ("Write $42$ in base $8$.", "52_8", "42", False),
        ("Write $42$ in base $8$.", "52_8", "52_9", False),
        ("What is $42$?", "52_8", "52", False),
        (r"Find $\tan A$.", r"\frac{3}{4}", r"\tan A = \frac{3}{4}", True),
        ("If $x=1$ and $y=3$, what is $x^2+y^2$?", "10", "x^2+y^2 = 10", True),
        ("If $x=1$ and $y=3$, what is $x^2+y^2$?", "10", "x^2+y^2 = 9", False),
        ("If $x^2 = 3$, what is $x^4 - 6$?", "3", "x^2 = 3", False),
        ("If $x^2 = 3$, what is $x^2$?", "3", "x^2 = 3", False),
        ("Find $x$.", "3", "x^2 = 3", False),
    ],
)
def test_what_the_question_asks_for(question: str, reference: str, answer: str, *, expected: bool) -> None:
    """Catches "tan A = 3/4" judged wrong where tan A is asked for, and digits without the base that is asked for."""
    verdict = score_math(f"\\boxed{{{answer}}}", reference, question=question, closeness=closeness_of(question))
    assert verdict.value == float(expected)


def test_a_repeated_answer_is_one_answer() -> None:
    """Catches "1/2 or 0.5" judged as two answers, and "1/2 or 0.6" as one."""
    assert score_math(r"\boxed{\frac12 \text{ or } 0.5}", "0.5").value == 1.0
    assert score_math(r"\boxed{\frac12 \text{ or } 0.6}", "0.5").value == 0.0
