r"""Whether an answer is worked out: a number where the reference is one, and not the expression that gives it.

Questions contain expressions whose values they ask for. Without this rule a policy is paid for putting "1+2+3", or
``\sin 60^\circ``, into the box as it stands in the question. The rule knows nothing of the question:

numbers     the reference is a plain number: so is the answer, or it is a power of whole numbers, or a quotient of such
constants   other references without letters: the answer has no sines, logarithms, factorials, roundings, sums or common
            divisors if the reference has none of that kind
polynomials the reference is a sum of terms without brackets: the answer, if it is one too, has no more terms
"""

import re

from revelm.rewards.math_parts import split
from revelm.rewards.math_quantity import read_quantity

_WHOLE = r"\(?\s*-?\d+\s*\)?"
_POWER = rf"{_WHOLE}(?:\s*\^\s*(?:\{{\s*-?\d+\s*\}}|-?\d+))?"
_NUMBER = re.compile(
    rf"-?\s*(?:{_POWER}|{_POWER}\s*/\s*{_POWER}|\\frac\s*\{{\s*{_POWER}\s*\}}\s*\{{\s*{_POWER}\s*\}}"
    r"|\(\s*\\frac\s*\{\s*\d+\s*\}\s*\{\s*\d+\s*\}\s*\)\s*\^\s*(?:\{\s*-?\d+\s*\}|\d))"
)
_KINDS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:sin|cos|tan|cot|sec|csc)",
        r"(?<![a-zA-Z])(?:log|ln|lg)(?![a-zA-Z])",
        r"!|binom",
        r"floor|ceil|\||(?<![a-zA-Z])(?:gcd|lcm|max|min|bmod|pmod|mod)(?![a-zA-Z])",
        r"\\(?:sum|prod|i*int|lim)(?![a-zA-Z])",
    )
)
_NO_POLYNOMIAL = re.compile(r"\\(?!cdot|pi|alpha|beta|theta)[a-zA-Z]|[()\[\]|/!,=<>']|\^\{[^{}]*[^\d{} ][^{}]*\}")


def is_worked_number(answer: str) -> bool:
    """Whether a spelling is a number and no expression with a value."""
    return read_quantity(answer) is not None or _NUMBER.fullmatch(answer.strip()) is not None


def has_only_kinds_of(reference: str, answer: str) -> bool:
    """Whether an answer has operations of those kinds alone that the reference has too."""
    return all(kind.search(reference) or not kind.search(answer) for kind in _KINDS)


def has_no_more_terms(reference: str, answer: str) -> bool:
    """Whether an answer has its terms collected, as far as both are sums of terms without brackets."""
    reference, answer = without_brackets(reference), without_brackets(answer)
    if _NO_POLYNOMIAL.search(reference) or _NO_POLYNOMIAL.search(answer):
        return True
    return len(terms(answer)) <= len(terms(reference))


def without_brackets(spelled: str) -> str:
    """A formula without parentheses around all of it."""
    text = spelled.strip()
    while text.startswith("(") and text.endswith(")") and _is_closed_last(text):
        text = text[1:-1].strip()
    return text


def _is_closed_last(text: str) -> bool:
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return place == len(text) - 1
    return False


def terms(spelled: str) -> list[str]:
    """The terms of a sum."""
    return split(spelled, lambda token: token in ("+", "-"))
