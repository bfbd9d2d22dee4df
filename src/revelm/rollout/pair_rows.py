"""Rows of a prediction and a reference, judged by the functions that training and evaluation use.

Each kind is a guarded task without problems of its own; see ``revelm.rollout.row_rewards``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from revelm.core.types import Completion, Problem, Score
from revelm.data.rows import Row
from revelm.rewards.answer_part import Part
from revelm.rewards.choice import score_choice
from revelm.rewards.exact_match import score_exact
from revelm.rewards.final_answer import ANYWHERE, BOX, STATED, Source
from revelm.rewards.fuzzy_match import Measure, score_fuzzy
from revelm.rewards.math_answer import is_equal
from revelm.rewards.math_score import SCORE_SECONDS, closeness_of, score_math
from revelm.rewards.regex_match import score_regex
from revelm.rollout.predictions import said
from revelm.tasks.math_rows import QUESTIONS, final_reference
from revelm.tasks.problem_files import find_fields
from revelm.tasks.task import Messages

REFERENCES = (
    *("reference", "ground_truth_answer", "ground_truth", "reward_model.ground_truth"),
    *("answer", "final_answer", "expected_answer"),
)
_SOURCES: dict[str, tuple[Source, ...]] = {"box": BOX, "stated": STATED, "anywhere": ANYWHERE}


@dataclass(frozen=True)
class PairRows:
    """Rows of an answer and what is right. ``prediction_field``, ``reference_field``: None: the first of the usual."""

    prediction_field: str | None = None
    reference_field: str | None = None

    @property
    def score_seconds(self) -> float:
        """CPU seconds that a worker may use for one verdict."""
        return SCORE_SECONDS

    def problems(self, _: str) -> Sequence[Problem]:
        """None: they are the rows."""
        return []

    def prompt(self, problem: Problem) -> Messages:
        """The question, which rows need not have."""
        return [{"role": "user", "content": problem.question}]

    def read(self, row: Row) -> tuple[Problem, Completion]:
        """What a row holds. ValueError, with row and field, where it is missing or no text."""
        usual = REFERENCES if self.reference_field is None else (self.reference_field,)
        (field,) = find_fields(row, [(name,) for name in usual], remedy="; name the field with reference_field=NAME")
        asked = next((row.optional_text(name) for name in QUESTIONS if isinstance(row.get(name), str)), "")
        return Problem(row.place, asked, row.number_or_text(field)), said(row, self.prediction_field)


@dataclass(frozen=True)
class MathRows(PairRows):
    """Mathematical answers; ``answer``: where in the prediction one may stand (``revelm.rewards.final_answer``).

    A reference may be a worked one, whose final answer stands behind ``####`` or in a box.
    """

    answer: Literal["box", "stated", "anywhere"] = "anywhere"

    @property
    def name(self) -> str:
        """The name in errors."""
        return "math"

    def warm_up(self) -> None:
        """Load what compares answers."""
        is_equal("x+1", "1+x")

    def score(self, problem: Problem, completion: Completion) -> Score:
        """1 if the prediction means what the reference means, as an answer to the question, if there is one."""
        asked, reference = problem.question, final_reference(problem.reference) or problem.reference
        sources, closeness = _SOURCES[self.answer], closeness_of(asked)
        return score_math(completion.text, reference, sources=sources, closeness=closeness, question=asked)


@dataclass(frozen=True)
class ExactRows(PairRows):
    """Answers that are the reference, letter for letter; the fields are those of ``score_exact``."""

    part: Part = "auto"
    is_normalised: bool = True

    @property
    def name(self) -> str:
        """The name in errors."""
        return "exact"

    def score(self, problem: Problem, completion: Completion) -> Score:
        """1 for the same text."""
        return score_exact(completion.text, problem.reference, part=self.part, is_normalised=self.is_normalised)


@dataclass(frozen=True)
class FuzzyRows(PairRows):
    """Answers that are like the reference; the fields are those of ``score_fuzzy``."""

    measure: Measure = "ratio"
    threshold: float = 1.0
    part: Part = "auto"

    @property
    def name(self) -> str:
        """The name in errors."""
        return "fuzzy"

    def score(self, problem: Problem, completion: Completion) -> Score:
        """The similarity."""
        options = {"measure": self.measure, "threshold": self.threshold, "part": self.part}
        return score_fuzzy(completion.text, problem.reference, **options)


@dataclass(frozen=True)
class ChoiceRows(PairRows):
    """Letters of options."""

    @property
    def name(self) -> str:
        """The name in errors."""
        return "choice"

    def score(self, problem: Problem, completion: Completion) -> Score:
        """1 for the right letter."""
        return score_choice(completion.text, problem.reference)


@dataclass(frozen=True)
class RegexRows(PairRows):
    """Texts in which the reference, a regular expression, is found; the fields are those of ``score_regex``."""

    part: Part = "text"
    is_whole: bool = False

    @property
    def name(self) -> str:
        """The name in errors."""
        return "regex"

    def score(self, problem: Problem, completion: Completion) -> Score:
        """1 where it is found."""
        return score_regex(completion.text, problem.reference, part=self.part, is_whole=self.is_whole)
