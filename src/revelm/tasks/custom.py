"""``custom``: questions and answers of one's own, with one of a few verdicts.

A row has ``question`` and ``ground_truth_answer``, or what ``question_field`` and ``answer_field`` name. ``reward``
says when an answer is right:

math    its box means what the reference means
exact   it is the reference, up to case, blanks and a full stop: the box, or else ``<answer>``, or else the whole text
choice  it names the letter of the reference
regex   the reference is a regular expression that is found in it

For mathematics there is more in ``math``, for options in columns of their own ``multiple_choice``, for programs
``code``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from revelm.core.types import Completion, Demonstration, Problem, Score
from revelm.data.rows import Row
from revelm.rewards.answer_part import answer_part
from revelm.rewards.choice import chosen_letter, score_choice
from revelm.rewards.exact_match import normalise, score_exact
from revelm.rewards.math_answer import is_equal
from revelm.rewards.math_score import SCORE_SECONDS, score_math
from revelm.rewards.regex_match import score_regex
from revelm.rewards.spelling import spelling
from revelm.tasks.chats import USER, in_words
from revelm.tasks.data_source import sample_file
from revelm.tasks.demonstrations import worked_demonstrations
from revelm.tasks.file_splits import Files, check_files, file_problems
from revelm.tasks.problem_files import find_fields
from revelm.tasks.task import Messages, check_split

Verdict = Literal["math", "exact", "choice", "regex"]
_SCORES: dict[str, Callable[[str, str], Score]] = {
    "math": score_math,
    "exact": score_exact,
    "choice": score_choice,
    "regex": score_regex,
}


@dataclass(frozen=True)
class Custom:
    """Questions from files or the hub.

    ``data``: the training file; None or "sample": a few questions that come with the package. ``test_data``: the test
    file, or else ``test_share`` of the questions in ``data``. ``reward``: when an answer is right. ``question_field``,
    ``answer_field``: the columns, ``answer_field`` with a dot where it is inside another one. ``id_field``: a column
    that names the problems (default: their number). ``max_bad_rows``: rows of a file that may be left out because they
    cannot be used. ``instruction``: what follows each question; with ``{question}``, all words.
    """

    data: str | None = None
    test_data: str | None = None
    test_share: float = 0.2
    reward: Verdict = "exact"
    question_field: str = "question"
    answer_field: str = "ground_truth_answer"
    id_field: str | None = None
    max_bad_rows: int = 0
    instruction: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for a field outside its range."""
        if self.reward not in _SCORES:
            raise ValueError(f"reward={self.reward!r}: expected one of {', '.join(_SCORES)}")
        check_files(self._files)

    @property
    def _files(self) -> Files:
        sample = sample_file("custom")
        return Files(self.data, self.test_data, self.test_share, sample, self.id_field, self.max_bad_rows)

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "custom"

    @property
    def score_seconds(self) -> float:
        """CPU seconds that a worker may use for one verdict: a regular expression can take for ever."""
        return SCORE_SECONDS

    def warm_up(self) -> None:
        """Load what compares answers."""
        if self.reward == "math":
            is_equal("x+1", "1+x")

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test"; see `Task.problems`."""
        check_split(split)
        return file_problems(self._files, split, task=self.name, read=self._problem)

    def prompt(self, problem: Problem) -> Messages:
        """The question and the instruction."""
        return [{"role": USER, "content": in_words(problem.question, self.instruction)}]

    def score(self, problem: Problem, completion: Completion) -> Score:
        """1 if the answer is right; breakdown: ``correct``, and what the verdict adds."""
        return _SCORES[self.reward](completion.text, problem.reference)

    def answer(self, problem: Problem, completion: Completion) -> str | None:
        """What is judged, in one spelling; see `AnswerTask.answer`. Of a regular expression, the whole text."""
        if self.reward == "math":
            return spelling(completion.text)
        if self.reward == "choice":
            return chosen_letter(completion.text)
        said = answer_part(completion.text, "text" if self.reward == "regex" else "auto")
        return said if said is None or self.reward == "regex" else normalise(said) or None

    def worked(self, problem: Problem) -> str:
        """The row's ``response`` where it has one, else the reference, boxed for mathematics and letters."""
        given = problem.info.get("response")
        if given is not None:
            return str(given)
        return f"\\boxed{{{problem.reference}}}" if self.reward in ("math", "choice") else problem.reference

    def demonstrations(self, num: int, seed: int) -> list[Demonstration]:
        """``num`` worked training problems; see `worked_demonstrations`."""
        return worked_demonstrations(self, num, seed=seed)

    def _problem(self, row: Row, name: str) -> Problem:
        for setting, field in (("question_field", self.question_field), ("answer_field", self.answer_field)):
            find_fields(row, [(field,)], remedy=f"; name the column with {setting}")
        response = row.optional_text("response")
        info = {"response": response} if response else {}
        reference = row.number_or_text(self.answer_field)
        if "error" in _SCORES[self.reward]("", reference).breakdown:
            raise row.error(
                self.answer_field, f"{reference[:60]!r} is no reference for reward={self.reward!r}; correct it"
            )
        return Problem(name, row.text(self.question_field), reference, info)
