"""Verdicts that need nothing but a text and a reference, by name."""

from collections.abc import Callable, Mapping

from revelm.core.types import Score
from revelm.rewards.choice import score_choice
from revelm.rewards.exact_match import score_exact
from revelm.rewards.fuzzy_match import score_fuzzy
from revelm.rewards.regex_match import score_regex

TEXT_SCORES: Mapping[str, Callable[[str, str], Score]] = {
    "choice": score_choice,
    "exact": score_exact,
    "fuzzy": score_fuzzy,
    "regex": score_regex,
}
"""Each takes an answer and a reference (for ``regex`` the expression), never raises, and gives its reason."""
