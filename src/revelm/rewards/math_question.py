r"""What a question says about the answer to it: that it is a percentage, and which expressions are no answer yet.

A question that shows ``x^2-1`` and asks for its factors is not answered by ``x^2-1``, though that is the same function
as ``(x-1)(x+1)``. An answer is left undone if it is

copied        a formula of the question, or a side of one, which the reference is not; also in another order of terms
              and factors, and with something around it that changes nothing: ``0+(x^2-1)``
not factored  a sum, where the question asks to factor and the reference is a product
not expanded  with sums in brackets, where the question asks to expand and the reference has none

Numbers count however they are written: ``math_form`` sees to it that they are numbers.
"""

import re
from collections.abc import Sequence

from revelm.rewards.math_answer import is_equal
from revelm.rewards.math_form import terms, without_brackets
from revelm.rewards.math_formula import shape_in
from revelm.rewards.math_parts import parts_of
from revelm.rewards.math_quantity import read_quantity
from revelm.rewards.math_text import key, spell
from revelm.rewards.math_units import split_unit

_PERCENT = re.compile(
    r"\b(?:what|which)(?:['’]s| is| was| are)?(?: the| a)?(?: \w+)? ?(?:percent|%)|\bhow many percent"
    r"|\b(?:as|in) a? ?percent|\b(?:find|calculate|determine|compute|give)\b[^.?!]{0,40} percent",
    re.IGNORECASE,
)
_BASE = re.compile(r"\b(?:in|to|as a|of|its) base\b|\bbase[- ]\$?(?:\d|[a-z]+\b)|\bbinary\b|\boctal\b", re.IGNORECASE)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|\$([^$]+)\$", re.DOTALL)
_SIDES = re.compile(r"=|\\(?:equiv|approx)(?![a-zA-Z])")
_OPERATION = re.compile(r"[-+*/^!(|]|\\[a-zA-Z]")
_NO_FORMULA = re.compile(r"[<>]|\\(?:text|le|ge|ne|in|cup|begin|emptyset|infty|circ)(?![a-zA-Z])|°")
_FACTOR = re.compile(r"\bfactor(?:i[sz]e)?\b(?! of)", re.IGNORECASE)
_EXPAND = re.compile(r"\bexpand(?:ed)?\b|\bmultiply out\b|\bfind the product\b", re.IGNORECASE)
_SUM_IN_BRACKETS = re.compile(r"\([^()]*[^(,\s^{][-+][^()]*\)")
_MAX_QUESTION = 20_000
_MAX_FORMULAS = 20


def states_base(question: str) -> bool:
    """Whether a question speaks of numbers in another base."""
    return _BASE.search(question) is not None


def asks_for_percentage(question: str) -> bool:
    """Whether the answer to a question is a percentage."""
    return _PERCENT.search(question) is not None


def asked_value(question: str, answer: str) -> str:
    r"""An answer without the left side of its equation, where the question asks for just that: ``\tan A = 3`` of "Find
    $\tan A$". An equation that the question states itself stays one."""
    left, equals, value = answer.partition("=")
    if not equals or "=" in value or not _OPERATION.search(left):
        return answer
    wanted = key(spell(left))
    formulas = {key(spell(next(filter(None, f.groups()), ""))) for f in _FORMULA.finditer(question[:_MAX_QUESTION])}
    return value if wanted in formulas and key(spell(answer)) not in formulas else answer


def left_undone(question: str, reference: str, answer: str) -> str | None:
    """What an answer that equals the reference leaves to be done: "copied", "not factored", "not expanded"; or None.

    An answer that is spelt like the reference leaves nothing.
    """
    wanted, said = _bare(reference), _bare(answer)
    if not said or wanted == said or sorted(wanted) == sorted(said) or _is_number(answer):
        return None
    formulas = _formulas(question) if _is_formula(said) else []
    if any(is_equal(reference, one) for one in formulas if key(one) in said and key(one) not in wanted):
        return "copied"
    if _FACTOR.search(question) and len(terms(wanted)) == 1 < len(terms(said)):
        return "not factored"
    if _EXPAND.search(question) and not _SUM_IN_BRACKETS.search(wanted) and _SUM_IN_BRACKETS.search(said):
        return "not expanded"
    return "copied" if _is_reordered(wanted, said, formulas) else None


def _is_formula(said: str) -> bool:
    return bool(_OPERATION.search(said)) and not _NO_FORMULA.search(said) and parts_of(said).kind == "one"


def _formulas(question: str) -> list[str]:
    """The formulas of a question, and sides of them, each once."""
    found: dict[str, None] = {}
    for formula in _FORMULA.finditer(question[:_MAX_QUESTION]):
        for side in _SIDES.split(next(filter(None, formula.groups()), "")):
            if _OPERATION.search(key(spell(side))):
                found[spell(side)] = None
    return list(found)[:_MAX_FORMULAS]


def _is_reordered(wanted: str, said: str, formulas: Sequence[str]) -> bool:
    """Whether an answer is a formula of the question with its terms or factors in another order, and not the reference
    with them in another order."""
    shape = shape_in(said) if formulas else None
    if shape is None or shape == shape_in(wanted):
        return False
    return any(shape == shape_in(formula) for formula in formulas if sorted(key(formula)) != sorted(wanted))


def _is_number(answer: str) -> bool:
    return read_quantity(split_unit(spell(answer)).body) is not None


def _bare(text: str) -> str:
    """The last side of a spelling, without blanks and without brackets around all of it."""
    return without_brackets(key(spell(_SIDES.split(text)[-1])))
