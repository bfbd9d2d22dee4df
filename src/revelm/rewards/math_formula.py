r"""Whether two formulas are the same function of their letters, or the same number.

LaTeX is read by math-verify's grammar and evaluated to 50 digits at fixed points: small, middling and large, positive
and negative. Formulas that agree at all of them, or at all where they are real, are the same. That needs no
simplification, so its time depends on the length of the formulas alone. Fractions without letters are compared exactly.
Sums, integrals, limits and set operations are left to math-verify's own comparison.
"""

import logging
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

import mpmath

from revelm.rewards.math_exact import exact_value
from revelm.rewards.math_shape import Shape, shape_of
from revelm.rewards.math_values import DIGITS, Unsampled, Value, agree, sample

_STEPS = re.compile(r"\\l(?:floor|ceil)|floor|ceil")
# What the grammar reads as something else, or not at all, as what it reads right.
_PLAIN_FUNCTIONS = re.compile(
    r"(?<![a-zA-Z\\])(?:np\.|math\.)?(pi(?![a-zA-Z])|(?:log|ln|exp|arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc)(?=[\s({^_\d]))"
)
_GAMMA = re.compile(r"\\gamma(?![a-zA-Z_])")  # not the function
_BIG_E = re.compile(r"(?<![a-zA-Z\\])E(?:_\{?(\w+)\}?)?(?![a-zA-Z])")  # not the base of logarithms
_PRIMES = re.compile(r"([a-zA-Z])(?:\^\{\s*('+)\s*\}|\^?('+))")
# Of letters the grammar works these out as if they had no divisor in common.
_DIVISORS = re.compile(r"(?:gcd|lcm)(?![a-zA-Z])[^a-zA-Z]*[a-zA-Z]")
_MAX_LENGTH = 400
_MIN_POINTS = 3
_MAX_DEPTH = 10
_MAX_BARS = 12
_WHOLE_ALGEBRA = re.compile(r"\\(?:sum|prod|int|iint|lim|cap|setminus|mathbb)(?![a-zA-Z])")


class GrammarError(ImportError):
    """The grammar of LaTeX does not work: without it every formula would silently count as different."""


def values_of(spelled: str, other: str, *, is_real: bool = False) -> tuple[Value, ...] | None:
    """The values of a formula at the points at which ``other`` has values too; one value for a constant.

    None for what cannot be read or evaluated. ``is_real``: only where nothing on the way to it is a complex number.
    """
    return _sampled(spelled, has_steps=bool(_STEPS.search(spelled + other)), is_real=is_real)


def same_where_real(first: str, second: str) -> bool:
    """Whether two formulas of letters agree wherever all their roots and logarithms are real: sqrt(a) sqrt(b) and
    sqrt(a b) differ where a and b are negative. That has to be at three points at least."""
    values = values_of(first, second, is_real=True), values_of(second, first, is_real=True)
    if values[0] is None or values[1] is None:
        return False
    pairs = [pair for pair in _pairs(values[0], values[1]) if None not in pair]
    return len(pairs) >= _MIN_POINTS and all(agree(a, b) for a, b in pairs)


@lru_cache(maxsize=256)
def fraction_of(spelled: str) -> Fraction | None:
    """The fraction that a formula without letters is, exactly; None for others and what cannot be read."""
    expression = _read(spelled)
    return None if expression is None else exact_value(expression)


def same_values(first: tuple[Value, ...], second: tuple[Value, ...]) -> bool:
    """Whether two formulas agree at every point where both have a value, of which there is one at least.

    Of functions, points where one of them is real and the other is not are outside what they are about: log(x^2) and
    2 log(x) at -1.
    """
    is_constant = len(first) == len(second) == 1
    pairs = [(a, b) for a, b in _pairs(first, second) if a is not None and b is not None]
    if not is_constant:
        pairs = [(a, b) for a, b in pairs if (a.imag == 0) == (b.imag == 0)]
    return bool(pairs) and all(agree(a, b, is_settled=is_constant) for a, b in pairs)


def same_equation(first: tuple[str, str], second: tuple[str, str], *, is_oriented: bool) -> bool:
    """Whether two equations say the same: their differences of sides have a constant ratio other than 0.

    ``is_oriented``: of two inequalities with the same sign the ratio must be positive too.
    """
    differences = []
    whole = "".join((*first, *second))
    for left, right in (first, second):
        sides = values_of(left, whole), values_of(right, whole)
        if sides[0] is None or sides[1] is None:
            return False
        with mpmath.workdps(DIGITS):
            differences.append([None if a is None or b is None else a - b for a, b in _pairs(sides[0], sides[1])])
    pairs = [(a, b) for a, b in _pairs(tuple(differences[0]), tuple(differences[1])) if a is not None and b is not None]
    if len(pairs) < 2 or any(abs(a) < 1e-30 or abs(b) < 1e-30 for a, b in pairs):
        return False
    with mpmath.workdps(DIGITS):
        ratios = [a / b for a, b in pairs]
    is_same = all(agree(ratio, ratios[0]) for ratio in ratios)
    return is_same and (not is_oriented or (ratios[0].imag == 0 and ratios[0].real > 0))


@lru_cache(maxsize=1024)
def shape_in(spelled: str) -> Shape | None:
    """What a formula is but for the order of its terms and factors (``math_shape``); None for what cannot be read."""
    expression = _read(spelled)
    if expression is None:
        return None
    try:
        return shape_of(expression)
    except Exception:  # noqa: BLE001 - a boundary: expressions of others, of any kind
        return None


def same_by_algebra(reference: str, answer: str) -> bool:
    """What math-verify says, where the reference has sums, integrals, limits or operations on sets; else False.

    An answer that has them where the reference has none is not an answer yet; and to compute it could take for ever.
    """
    if not _WHOLE_ALGEBRA.search(reference) or not (_is_readable(reference) and _is_readable(answer)):
        return False
    check_grammar()
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that no time limit of its own is set
    from math_verify import parse, verify

    parts = [parse(f"${text}$", parsing_timeout=None) for text in (reference, answer)]
    return all(parts) and bool(verify(*parts, timeout_seconds=None))


@lru_cache(maxsize=1)
def check_grammar() -> None:
    """Raises GrammarError where math-verify's grammar of LaTeX is missing, or of another version than its parser."""
    try:
        import sympy
        from latex2sympy2_extended.latex2sympy2 import latex2sympy

        x = sympy.Symbol("x", real=True)
        is_sound = sympy.expand(latex2sympy("1+x^2", is_real=True) - x**2) == 1
    except Exception as error:
        raise GrammarError(
            f"formulas cannot be compared, the LaTeX grammar of math-verify does not load ({error}); reinstall "
            "math-verify, latex2sympy2_extended and antlr4-python3-runtime in versions that belong together"
        ) from error
    if not is_sound:
        raise GrammarError("formulas cannot be compared: math-verify reads 1+x^2 as something else; reinstall it")


def _pairs(first: tuple[Value, ...], second: tuple[Value, ...]) -> list[tuple[Value, Value]]:
    width = max(len(first), len(second))
    return list(zip(_widened(first, width), _widened(second, width), strict=True))


def _widened(values: tuple[Value, ...], width: int) -> tuple[Value, ...]:
    return values * width if len(values) == 1 else values


def _for_grammar(spelled: str) -> str:
    text = _PLAIN_FUNCTIONS.sub(r"\\\1", spelled).replace(r"\odot", "o").replace("°", r"\cdot\frac{\pi}{180}")
    text = _BIG_E.sub(lambda letter: f"Q_{{E{letter[1] or ''}}}", _GAMMA.sub(r"\\eta_{g}", text))
    return _PRIMES.sub(lambda letter: f"{letter[1]}_{{prime{len(letter[2] or letter[3])}}}", text)


def _is_readable(spelled: str) -> bool:
    """Whether the grammar can read it in bounded time: it takes long for what is long or deeply nested."""
    depth = deepest = 0
    for character in spelled[: _MAX_LENGTH + 1]:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return (
        0 < len(spelled) <= _MAX_LENGTH
        and max(spelled.count("|"), spelled.count("'")) <= _MAX_BARS
        and ":" not in spelled
        and _DIVISORS.search(spelled) is None
        and depth == 0
        and deepest <= _MAX_DEPTH
    )


@lru_cache(maxsize=1024)
def _read(spelled: str) -> Any | None:
    """The expression that a spelling is, as math-verify's grammar reads it, unevaluated; None if it is none."""
    check_grammar()
    if not _is_readable(spelled):
        return None
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy

    cleaning = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    conversion = ConversionConfig(lowercase_symbols=False)
    try:
        return latex2sympy(
            _for_grammar(spelled), is_real=True, normalization_config=cleaning, conversion_config=conversion
        )
    except Exception:  # noqa: BLE001 - a boundary: a parser of others, fed with whatever a model wrote
        return None


@lru_cache(maxsize=4096)
def _sampled(spelled: str, *, has_steps: bool, is_real: bool) -> tuple[Value, ...] | None:
    expression = _read(spelled)
    if expression is None:
        return None
    try:
        return sample(expression, has_steps=has_steps, is_real=is_real)
    except Unsampled:
        return None
    except Exception:  # noqa: BLE001 - a boundary: expressions of others, of any kind
        return None
