r"""What the public benchmarks of mathematics share: how they ask and how they judge.

``style: boxed`` asks the question and then to reason step by step and to box the answer; ``instruction_first`` asks for
the box and then the question. ``think`` is for models that think in tags: it asks as ``instruction_first`` does, and
begins the answer with ``<think>``; what is judged stands behind ``</think>``, so that a thought that was not ended has
no answer yet.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from revelm.core.types import Completion, Demonstration, Problem, Score
from revelm.data.rows import Row
from revelm.rewards.final_answer import BOX, final_answer
from revelm.rewards.math_answer import is_equal
from revelm.rewards.math_score import SCORE_SECONDS, closeness_of, score_math
from revelm.rewards.spelling import spelling
from revelm.tasks.chats import ASSISTANT, THOUGHT, THOUGHT_END, USER, in_words, opening_of
from revelm.tasks.data_source import problem_source
from revelm.tasks.demonstrations import worked_demonstrations
from revelm.tasks.file_splits import read_problems, unasked
from revelm.tasks.math_rows import at_levels, math_problem
from revelm.tasks.task import Messages, check_split

Style = Literal["boxed", "instruction_first", "think"]
INSTRUCTIONS: dict[str, str] = {
    "boxed": "Please reason step by step, and put your final answer within \\boxed{}.",
    "instruction_first": "You need to put your final answer in \\boxed{}. This is the problem:",
}
_DECIMAL = re.compile(r"([-+]?[0-9]{1,30}(?:\.[0-9]{1,30})?)\s*(?:\\?%)?")


@dataclass(frozen=True)
class MathBenchmark(ABC):
    """A benchmark of mathematics.

    ``data``: the test, as a file or a data set of the hub; None: its public copy on the hub; "sample": a few problems
    of our own. ``style``: how it is asked. ``instruction``: other words for it; with ``{question}``, all words.
    ``accepts_unworked``: ``1+2+3`` for 6, or a formula of the question, is right as well, as for the graders of most
    published scores.
    """

    data: str | None = None
    style: Style = "boxed"
    instruction: str | None = None
    accepts_unworked: bool = False

    @property
    @abstractmethod
    def name(self) -> str:
        """The short name under which results are reported."""

    @property
    @abstractmethod
    def hub(self) -> str:
        """The data set of the hub that has the test."""

    @abstractmethod
    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test"; see `Task.problems`."""

    @property
    def score_seconds(self) -> float:
        """CPU seconds that a worker may use for one verdict."""
        return SCORE_SECONDS

    def warm_up(self) -> None:
        """Load what compares answers."""
        is_equal("x+1", "1+x")

    def prompt(self, problem: Problem) -> Messages:
        """The question with the instruction, in the order and with the beginning of the style."""
        return styled_prompt(problem.question, self.style, self.instruction, usual=INSTRUCTIONS)

    def score(self, problem: Problem, completion: Completion) -> Score:
        r"""1 if the last ``\boxed{}`` means what the reference means; breakdown: ``correct``, ``has_box``.

        Where the problem allows a tolerance, a number within it is right as well.
        """
        text = opening_of(self.prompt(problem)) + completion.text
        asked = problem.question
        closeness = closeness_of(asked, accepts_unworked=self.accepts_unworked)
        score = score_math(text, problem.reference, closeness=closeness, question=asked)
        tolerance = problem.info.get("tolerance")
        if tolerance is None or score.value or not _is_near(problem.reference, text, tolerance):
            return score
        return Score(1.0, {**score.breakdown, "correct": 1.0}, reason=f"within {tolerance:g}")

    def answer(self, problem: Problem, completion: Completion) -> str | None:
        """What the last box holds, in one spelling; see `AnswerTask.answer`."""
        return spelling(opening_of(self.prompt(problem)) + completion.text)

    def worked(self, problem: Problem) -> str:
        """The public solution where it ends in a right box, else the boxed reference; as the style wants it."""
        solution = str(problem.info.get("solution", ""))
        is_right = score_math(solution, problem.reference).value == 1.0
        answer = solution if is_right else f"\\boxed{{{problem.reference}}}"
        return answer if self.style != "think" else f"{solution}{THOUGHT_END}\\boxed{{{problem.reference}}}"

    def demonstrations(self, num: int, seed: int) -> list[Demonstration]:
        """``num`` worked training problems; see `worked_demonstrations`."""
        return worked_demonstrations(self, num, seed=seed)


@dataclass(frozen=True)
class EvaluationOnly(MathBenchmark, ABC):
    """A benchmark without training problems."""

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "test"; "train" has none."""
        check_split(split)
        return [] if split == "train" else tested(self)


@dataclass(frozen=True)
class WithTraining(MathBenchmark, ABC):
    """A benchmark with training problems of its own.

    ``train_data``: their file or data set; None: with the test from the hub or the sample, theirs. ``levels``: those of
    the training problems, where they have levels; the test asks all. ``max_bad_rows``: training rows that may be left
    out because they cannot be used.
    """

    train_data: str | None = None
    levels: tuple[int, ...] | None = None
    max_bad_rows: int = 0

    @property
    @abstractmethod
    def train_hub(self) -> str:
        """The data set of the hub that has the training problems."""

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train", without those that the test asks, or of "test".

        Raises ValueError for the first where ``data`` is a file and ``train_data`` is not given.
        """
        check_split(split)
        test = tested(self)
        if split == "test":
            return test
        if self.train_data is None and self.data not in (None, "sample"):
            raise ValueError(f"task.train_data: not given, and task.data={self.data!r} has the test; give it as well")
        given = self.train_data if self.train_data is not None else self.data
        source = problem_source(given, hub=self.train_hub, task=f"{self.name}_train")
        found = read_problems(source, self.name, read=_problem, max_bad_rows=self.max_bad_rows)
        return at_levels(unasked(found, test), self.levels)


def styled_prompt(question: str, style: Style, instruction: str | None, *, usual: Mapping[str, str]) -> Messages:
    """The chat that asks a question in a style. ``usual``: the instructions of the styles, where none is given."""
    is_first = style != "boxed"
    words = usual["instruction_first" if is_first else "boxed"] if instruction is None else instruction
    asked = {"role": USER, "content": in_words(question, words, is_first=is_first)}
    return [asked, {"role": ASSISTANT, "content": THOUGHT}] if style == "think" else [asked]


def tested(task: MathBenchmark) -> list[Problem]:
    """The problems of the test."""
    return read_problems(problem_source(task.data, hub=task.hub, task=task.name), task.name, read=_problem)


def _problem(row: Row, name: str) -> Problem:
    return math_problem(row, name, tolerance="error")


def _is_near(reference: str, text: str, tolerance: float) -> bool:
    answer = final_answer(text, sources=BOX)
    wanted, found = _number(reference), None if answer is None else _number(answer.text)
    return wanted is not None and found is not None and abs(wanted - found) <= tolerance


def _number(text: str) -> float | None:
    """A plain decimal number, which may be a percentage; None for anything else."""
    found = _DECIMAL.fullmatch(text.replace("$", "").strip())
    return None if found is None else float(found[1])
