r"""``math``: questions with one final answer, reasoned about in words and boxed.

The chat asks to reason step by step and to put the answer in ``\boxed{}``; an answer is right if its last box means
what the reference means (``revelm.rewards.math_answer``). `revelm.tasks.math_rows` says what a row of the file has.

Worked answers are the file's own solutions where they end in a right box, and the boxed reference elsewhere. Without a
file the problems are a small sample that comes with the package, enough to try a recipe.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from revelm.core.types import Completion, Demonstration, Problem, Score
from revelm.data.rows import Row
from revelm.rewards.boxed import last_boxed
from revelm.rewards.math_answer import is_equal
from revelm.rewards.math_score import SCORE_SECONDS, closeness_of, score_math
from revelm.rewards.spelling import spelling
from revelm.tasks.chats import USER, in_words
from revelm.tasks.data_source import sample_file
from revelm.tasks.demonstrations import worked_demonstrations
from revelm.tasks.file_splits import Files, check_files, file_problems
from revelm.tasks.math_benchmark import INSTRUCTIONS
from revelm.tasks.math_rows import at_levels, math_problem
from revelm.tasks.task import Messages, check_split


@dataclass(frozen=True)
class Math:
    """Mathematical questions from files or the hub.

    ``data``: the training file; ``test_data``: the test file, or else ``test_share`` of the questions in ``data``.
    ``levels``: those of the training problems, where the rows have levels; the test asks all.
    ``question_field``, ``answer_field``: the columns, where they have other names than the usual ones; ``id_field``:
    a column that names the problems (default: their number). ``max_bad_rows``: rows of a file that may be left out
    because they cannot be used. ``instruction``: what follows each question; with ``{question}``, all words.
    ``accepts_unworked``: as for benchmarks (``math_benchmark``).
    """

    data: str | None = None
    test_data: str | None = None
    test_share: float = 0.2
    question_field: str | None = None
    answer_field: str | None = None
    id_field: str | None = None
    max_bad_rows: int = 0
    levels: tuple[int, ...] | None = None
    instruction: str = INSTRUCTIONS["boxed"]
    accepts_unworked: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a field outside its range."""
        check_files(self._files)

    @property
    def _files(self) -> Files:
        sample = sample_file("math")
        return Files(self.data, self.test_data, self.test_share, sample, self.id_field, self.max_bad_rows)

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "math"

    @property
    def score_seconds(self) -> float:
        """CPU seconds that a worker may use for one verdict."""
        return SCORE_SECONDS

    def warm_up(self) -> None:
        """Load what compares answers."""
        is_equal("x+1", "1+x")

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test"; see `Task.problems`."""
        check_split(split)
        found = file_problems(self._files, split, task=self.name, read=self._problem)
        return at_levels(found, self.levels) if split == "train" else found

    def prompt(self, problem: Problem) -> Messages:
        """The question and the instruction."""
        return [{"role": USER, "content": in_words(problem.question, self.instruction)}]

    def score(self, problem: Problem, completion: Completion) -> Score:
        r"""1 if the last ``\boxed{}`` means what the reference means; breakdown: ``correct``, ``has_box``."""
        asked = problem.question
        closeness = closeness_of(asked, accepts_unworked=self.accepts_unworked)
        return score_math(completion.text, problem.reference, closeness=closeness, question=asked)

    def answer(self, problem: Problem, completion: Completion) -> str | None:
        """What the last box holds, in one spelling; see `AnswerTask.answer`."""
        return spelling(completion.text)

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
        return math_problem(row, name, question=self.question_field, answer=self.answer_field)
