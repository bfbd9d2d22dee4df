r"""``math``: questions with one final answer, reasoned about in words and boxed.

The chat asks to reason step by step and to put the answer in ``\boxed{}``; an answer is right if its last box means
what the reference means (``revelm.rewards.math_answer``). A row of the file has a question (``question`` or
``problem``) and an answer: ``ground_truth_answer``, ``answer``, ``final_answer`` or ``expected_answer``, from which a
worked solution in front of ``####`` is taken off; or a ``solution``, whose last box counts.

Worked answers are the file's own solutions where they end in a right box, and the boxed reference elsewhere. Without a
file the problems are a small sample that comes with the package, enough to try a recipe.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from revelm.core.types import Completion, Demonstration, Problem, Score
from revelm.rewards.boxed import last_boxed
from revelm.rewards.math_answer import is_equal
from revelm.rewards.math_score import SCORE_SECONDS, score_math
from revelm.tasks.demonstrations import worked_demonstrations
from revelm.tasks.file_splits import Files, check_files, file_problems
from revelm.tasks.problem_files import Row, find_fields
from revelm.tasks.task import Messages, check_split

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
_QUESTIONS = ("question", "problem")
_ANSWERS = ("ground_truth_answer", "answer", "final_answer", "expected_answer", "solution")
_WORKED = "####"
_CALCULATION = re.compile(r"<<[^<>]*>>")  # annotations in GSM8K for a calculator that is not there
_BARE_BOX = re.compile(r"\\boxed\s+([^\s${}]+)")  # as a few solutions of MATH have it


@dataclass(frozen=True)
class Math:
    """Mathematical questions from JSON Lines or CSV.

    ``data``: the training file; ``test_data``: the test file, or else ``test_share`` of the questions in ``data``.
    ``question_field``, ``answer_field``: the columns, where they have other names than the usual ones; ``id_field``:
    a column that names the problems (default: their number). ``max_bad_rows``: rows of a file that may be left out
    because they cannot be used. ``instruction``: what follows each question.
    """

    data: str | None = None
    test_data: str | None = None
    test_share: float = 0.2
    question_field: str | None = None
    answer_field: str | None = None
    id_field: str | None = None
    max_bad_rows: int = 0
    instruction: str = INSTRUCTION

    def __post_init__(self) -> None:
        """Raises ValueError for a field outside its range."""
        check_files(self._files)

    @property
    def _files(self) -> Files:
        sample = str(files("revelm.tasks") / "samples" / "math.jsonl")
        return Files(self.data, self.test_data, self.test_share, sample, self.id_field, self.max_bad_rows)

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "math"

    @property
    def score_seconds(self) -> float:
        """CPU seconds that a worker may use for one verdict."""
        return SCORE_SECONDS

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test"; see `Task.problems`."""
        check_split(split)
        return file_problems(self._files, split, task=self.name, read=self._problem)

    def prompt(self, problem: Problem) -> Messages:
        """The question and the instruction."""
        content = f"{problem.question}\n{self.instruction}" if self.instruction else problem.question
        return [{"role": "user", "content": content}]

    def score(self, problem: Problem, completion: Completion) -> Score:
        r"""1 if the last ``\boxed{}`` means what the reference means; breakdown: ``correct``, ``has_box``."""
        return score_math(completion.text, problem.reference)

    def worked(self, problem: Problem) -> str:
        """The file's solution where it is right, else the boxed reference."""
        solution = str(problem.info.get("solution", ""))
        answer = last_boxed(solution)
        is_right = answer is not None and is_equal(problem.reference, answer)
        return solution if is_right else f"\\boxed{{{problem.reference}}}"

    def demonstrations(self, num: int, seed: int) -> list[Demonstration]:
        """``num`` worked training problems; see `worked_demonstrations`."""
        return worked_demonstrations(self, num, seed=seed)

    def _problem(self, row: Row, name: str) -> Problem:
        question_field = _field(row, self.question_field, _QUESTIONS)
        answer_field = _field(row, self.answer_field, _ANSWERS)
        raw = row.number_or_text(answer_field)
        solution = raw if _WORKED in raw or answer_field == "solution" else str(row.fields.get("solution", ""))
        info = {"solution": _boxed_ending(solution)} if solution else {}
        return Problem(name, row.text(question_field), _reference(row, answer_field, raw), info)


def _field(row: Row, given: str | None, usual: Sequence[str]) -> str:
    """The first of the ``usual`` fields that the row has; or the one that is ``given``, and no other."""
    return find_fields(row, [(name,) for name in ([given] if given else usual)])[0]


def _reference(row: Row, field: str, raw: str) -> str:
    """The final answer in a field: all of it, what follows the last ``####``, or a solution's last box."""
    answer = raw.rpartition(_WORKED)[2].strip() if field != "solution" else last_boxed(raw)
    if answer is None and (bare := _BARE_BOX.findall(raw)):
        answer = bare[-1]
    if not (answer and answer.strip()):
        raise row.error(field, f"holds no final answer ({raw[-40:]!r}); fill it in or remove the row")
    return answer.strip()


def _boxed_ending(solution: str) -> str:
    """A solution whose last line is ``#### 7``, that line as a box; without notes for a calculator."""
    before, found, answer = _CALCULATION.sub("", solution).rpartition(_WORKED)
    return f"{before.rstrip()}\nThe answer is \\boxed{{{answer.strip()}}}." if found else answer
