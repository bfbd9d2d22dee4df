r"""``chain``: several steps of arithmetic, strictly from left to right, modulo 10.

``7+5*3-4`` has no precedence and keeps only the last digit of each result: 7+5=2, 2*3=6, 6-4=2 (and 3-4=9). The prompt
is a worksheet with one step a line and the results left open, ``7+5=?``, ``?*3=?``, ``?-4=?``; nothing in it explains
the convention, a model learns it from demonstrations (``instruction`` puts words before it, for models that were not
trained here).

The worked answer has one step a line, each line 6 characters long with its newline, then ``\boxed{2}``. The habit boxes
a guess at once: the last operation applied to the last two operands (3-4, so 9), right about one time in eight. That is
one decision, at the first character. With ``slip_rate`` the habit is another one, with a decision in every line: it
works the steps out, each result comes out one too high with that probability, and the rest goes on from there.
``num_echoes`` writes every result so many times more (``7+5=222`` with two): who sees an echo need not decide.

Whether a question belongs to training or test is decided by a hash of its operands alone, for every seed the same: no
test question, of any seed, has the operands of a training question. Operands are 1 to 9, and one never multiplies by 1
or 5, so that no answer is frequent: each of the ten digits is the answer to 8 to 12 % of the questions.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from revelm.core.seeds import derive_seed
from revelm.core.types import Completion, Demonstration, Problem, Score
from revelm.data.rows import Row, read_rows
from revelm.rewards.boxed import last_boxed
from revelm.tasks.chain_verdicts import SECONDS, Verdict, judge, warm_up
from revelm.tasks.demonstrations import mixed_demonstrations
from revelm.tasks.generation import check_counts, check_range, draw_distinct
from revelm.tasks.task import Messages, check_split

_QUESTION = re.compile(r"[0-9](?:[-+*][0-9])+")
_MULTIPLIERS = (2, 3, 3, 4, 6, 7, 7, 8, 9, 9)  # 3, 7 and 9 keep all ten digits apart, so they come twice as often
_TEST_SHARE = 10  # one operand sequence in ten belongs to the test split


@dataclass(frozen=True)
class Chain:
    """Left-to-right arithmetic modulo 10.

    ``num_operations``: smallest and largest number of operations of a question, drawn from ``operations``; operands
    are 1 to ``max_operand`` (the first one 1 to 9). ``data``: a CSV or JSON Lines file with
    ``question`` and ``answer`` that takes the place of the test split; ``info["seen"]`` of its problems says whether
    the same question is among the training problems, which are always generated. ``habit_rate``: share of
    demonstrations that follow the habit. ``slip_rate``: share of the steps of these that slip; 0: they guess.
    ``num_echoes``: repetitions of every result in worked answers.
    ``instruction``: a line before each question. ``verdict``: the way answers are judged, "exact", "math" or "code"
    (``revelm.tasks.chain_verdicts``).
    """

    seed: int = 0
    num_train: int = 20000
    num_test: int = 200
    num_operations: tuple[int, int] = (4, 6)
    operations: str = "+-*"
    max_operand: int = 9
    data: str | None = None
    habit_rate: float = 0.7
    slip_rate: float = 0.0
    num_echoes: int = 0
    instruction: str = ""
    verdict: Verdict = "exact"

    def __post_init__(self) -> None:
        """Raises ValueError for a field outside its range."""
        check_counts(num_train=self.num_train, num_test=self.num_test, habit_rate=self.habit_rate)
        if not 0.0 <= self.slip_rate <= 1.0:
            raise ValueError(f"slip_rate={self.slip_rate}: expected 0 to 1")
        if self.num_echoes < 0:
            raise ValueError(f"num_echoes={self.num_echoes}: expected at least 0")
        check_range("num_operations", self.num_operations, low=2, high=32)
        if not self.operations or set(self.operations) - set("+-*"):
            raise ValueError(f"operations={self.operations!r}: expected one or more of + - *")
        if not 2 <= self.max_operand <= 9:
            raise ValueError(f"max_operand={self.max_operand}: expected 2 to 9")

    @property
    def _shape(self) -> tuple[tuple[int, int], str, int]:
        return self.num_operations, self.operations, self.max_operand

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "chain"

    @property
    def score_seconds(self) -> float:
        """CPU seconds that a worker may use for one verdict; 0: verdicts need no worker."""
        return SECONDS[self.verdict]

    def warm_up(self) -> None:
        """Load what verdicts need."""
        warm_up(self.verdict)

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test"; see `Task.problems`."""
        check_split(split)
        if split == "train":
            return _generated("train", self.num_train, self.seed, self._shape)
        if self.data is None:
            return _generated("test", self.num_test, self.seed, self._shape)
        seen = {problem.question for problem in self.problems("train")}
        return [_from_row(row, seen) for row in read_rows(self.data, field="task.data")]

    def prompt(self, problem: Problem) -> Messages:
        """The worksheet: one step a line, results left open; after the instruction if there is one."""
        question = problem.question
        lines = [self.instruction] if self.instruction else []
        lines.append(f"{question[:3]}=?")
        lines += [f"?{question[i : i + 2]}=?" for i in range(3, len(question), 2)]
        return [{"role": "user", "content": "\n".join(lines)}]

    def score(self, problem: Problem, completion: Completion) -> Score:
        r"""1 if the last ``\boxed{}`` holds the answer and nothing else; breakdown: ``correct``, ``has_box``."""
        return judge(self.verdict, completion.text, problem.reference)

    def answer(self, problem: Problem, completion: Completion) -> str | None:
        """What the last box holds; see `AnswerTask.answer`."""
        return None if (boxed := last_boxed(completion.text)) is None else boxed.strip()

    def worked(self, problem: Problem) -> str:
        """All steps, one a line, and the boxed answer."""
        return _written(evaluate(problem.question), self.num_echoes)

    def habit(self, problem: Problem, rng: Random) -> str:
        """The boxed guess: only the last operation, on the last two operands. With slips: all steps, some wrong."""
        if self.slip_rate:
            return _written(evaluate(problem.question, slips=lambda: rng.random() < self.slip_rate), self.num_echoes)
        return f"\\boxed{{{evaluate(problem.question[-3:])[-1][-1]}}}"

    def demonstrations(self, num: int, seed: int) -> list[Demonstration]:
        """``num`` answered training problems of kinds "worked" and "habit"; see `mixed_demonstrations`."""
        return mixed_demonstrations(self, num, seed=seed)


def evaluate(question: str, *, slips: Callable[[], bool] = lambda: False) -> list[str]:
    """The steps of a question, each five characters: ``7+5*3`` gives ``["7+5=2", "2*3=6"]``.

    Where ``slips()`` the result is one too high. Raises ValueError for anything but digits joined by ``+``, ``-`` and
    ``*``.
    """
    if not _QUESTION.fullmatch(question):
        raise ValueError(f"question={question!r}: expected single digits joined by + - or *, such as 7+5*3-4")
    steps = []
    value = int(question[0])
    for operation, digit in zip(question[1::2], question[2::2], strict=True):
        result = (_apply(value, operation, int(digit)) + slips()) % 10
        steps.append(f"{value}{operation}{digit}={result}")
        value = result
    return steps


def _written(steps: Sequence[str], num_echoes: int) -> str:
    """Steps, one a line, each result repeated, and the last one in a box."""
    lines = "".join(f"{step}{step[-1] * num_echoes}\n" for step in steps)
    return lines + f"\\boxed{{{steps[-1][-1]}}}"


def _apply(left: int, operation: str, right: int) -> int:
    if operation == "+":
        return (left + right) % 10
    if operation == "-":
        return (left - right) % 10
    return left * right % 10


def _split_of(question: str) -> str:
    """The split that the operands of a question belong to, whatever the seed."""
    return "test" if derive_seed("chain", "split", question[0::2]) % _TEST_SHARE == 0 else "train"


def _draw_question(rng: Random, shape: tuple[tuple[int, int], str, int]) -> str:
    (low, high), operations, max_operand = shape
    multipliers = [m for m in _MULTIPLIERS if m <= max_operand]
    parts = [str(rng.randint(1, 9))]
    for _ in range(rng.randint(low, high)):
        operation = rng.choice(operations)
        parts.append(f"{operation}{rng.choice(multipliers) if operation == '*' else rng.randint(1, max_operand)}")
    return "".join(parts)


@lru_cache(maxsize=8)
def _generated(split: str, num: int, seed: int, shape: tuple[tuple[int, int], str, int]) -> tuple[Problem, ...]:
    """``num`` different problems of a split; a smaller ``num`` gives the beginning of a larger one."""
    rng = Random(derive_seed("chain", "problems", seed, split))

    def draw() -> Problem | None:
        question = _draw_question(rng, shape)
        return _problem(question, is_seen=split == "train") if _split_of(question) == split else None

    remedy = f"lower num_{split}, or raise num_operations {shape[0]} or max_operand {shape[2]}"
    return draw_distinct(draw, num, field=f"num_{split}", remedy=remedy)


def _problem(question: str, *, is_seen: bool) -> Problem:
    answer = evaluate(question)[-1][-1]
    info = {"num_operations": len(question) // 2, "seen": is_seen}
    return Problem(f"chain:{question}", question, answer, info)


def _from_row(row: Row, seen: set[str]) -> Problem:
    question = "".join(row.text("question").split()).removesuffix("?").removesuffix("=")
    if not _QUESTION.fullmatch(question):
        raise row.error("question", f"{question[:60]!r} is not single digits joined by + - or *, such as 7+5*3-4")
    value = evaluate(question)[-1][-1]
    answer = row.text("answer")
    if answer != value:
        raise row.error("answer", f"{answer[:60]!r}, but left to right modulo 10 {question} is {value}; correct it")
    info = {"num_operations": len(question) // 2, "seen": question in seen}
    return Problem(f"chain:{row.name}:{row.number}", question, answer, info)
