r"""``countdown``: make a target from a few numbers, each used exactly once, with ``+ - * /``.

Any right way counts (`revelm.rewards.countdown` is the verdict). Without a file the puzzles are generated; whether one
belongs to training or test is decided by its numbers alone, for every seed the same. A row of a file has

- ``input``: the numbers, and ``output``: the target (``"30,100,93"``, ``"23"``);
- ``input``: the numbers and then the target, and ``output``: steps that reach it (``"15,44,79,50"``,
  ``"44-15=29,79-29=50"``);
- or ``nums``, a list, and ``target``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from revelm.core.seeds import derive_seed
from revelm.core.types import Completion, Demonstration, Problem, Score
from revelm.data.rows import Row
from revelm.rewards.countdown import reached, score_countdown
from revelm.tasks.countdown_puzzles import MAX_SOLVED, draw_solution, expression_of, solve
from revelm.tasks.data_source import SAMPLE, sample_file
from revelm.tasks.demonstrations import worked_demonstrations
from revelm.tasks.file_splits import read_problems
from revelm.tasks.generation import check_counts, check_range, draw_distinct
from revelm.tasks.problem_files import find_fields
from revelm.tasks.task import Messages, check_split

INSTRUCTION = (
    "Make {target} out of the numbers {numbers}. Use every number exactly once, and no other one, with +, -, *, / and "
    "parentheses. Please reason step by step, and put the expression within \\boxed{}."
)
_NUMBERS = re.compile(r"[0-9]{1,9}(?:\s*,\s*[0-9]{1,9}){1,9}")
_TEST_SHARE = 10  # one set of numbers in ten belongs to the test


@dataclass(frozen=True)
class Countdown:
    """Arithmetic puzzles.

    ``data``: the test, as a file or a data set of the hub; "sample": a few that come with the package; None: generated.
    ``train_data``: training puzzles; None: generated, without those of the test. ``num_numbers``: fewest and most
    numbers of a generated puzzle, drawn from 1 to ``max_number``; its target is at most ``max_target``.
    ``format_reward``: the score of an answer that uses the numbers rightly and misses the target. ``instruction``: how
    it is asked, with ``{numbers}`` and ``{target}``.
    """

    seed: int = 0
    num_train: int = 20000
    num_test: int = 200
    num_numbers: tuple[int, int] = (3, 4)
    max_number: int = 99
    max_target: int = 100
    data: str | None = None
    train_data: str | None = None
    format_reward: float = 0.0
    instruction: str = INSTRUCTION

    def __post_init__(self) -> None:
        """Raises ValueError for a field outside its range."""
        check_counts(num_train=self.num_train, num_test=self.num_test, habit_rate=0.0)
        check_range("num_numbers", self.num_numbers, low=2, high=6)
        for field, value in (("max_number", self.max_number), ("max_target", self.max_target)):
            if not 5 <= value < 10**6:
                raise ValueError(f"{field}={value}: expected from 5 to 999999")
        if not 0.0 <= self.format_reward < 1.0:
            raise ValueError(f"format_reward={self.format_reward}: expected 0 up to 1, what a right answer gets")
        missing = [part for part in ("{numbers}", "{target}") if part not in self.instruction]
        if missing:
            raise ValueError(f"instruction={self.instruction[:60]!r}: has no {' and no '.join(missing)}")

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "countdown"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test"; see `Task.problems`. ``info["group"]``: how many numbers."""
        check_split(split)
        test = self._generated("test", self.num_test) if self.data is None else self._read(self.data)
        if split == "test":
            return test
        train = self._generated("train", self.num_train) if self.train_data is None else self._read(self.train_data)
        asked = {_key(problem) for problem in test}
        return [problem for problem in train if _key(problem) not in asked]

    def prompt(self, problem: Problem) -> Messages:
        """The instruction with the numbers and the target."""
        numbers = ", ".join(map(str, problem.info["numbers"]))
        content = self.instruction.replace("{numbers}", numbers).replace("{target}", str(problem.info["target"]))
        return [{"role": "user", "content": content}]

    def score(self, problem: Problem, completion: Completion) -> Score:
        """1 if the answer makes the target from the numbers; see `score_countdown`."""
        numbers, target = problem.info["numbers"], problem.info["target"]
        return score_countdown(completion.text, numbers, target, format_reward=self.format_reward)

    def answer(self, problem: Problem, completion: Completion) -> str | None:
        """The value that the numbers were brought to, by whatever way; see `AnswerTask.answer`."""
        value = reached(completion.text, problem.info["numbers"])
        return None if value is None else str(value)

    def worked(self, problem: Problem) -> str:
        """Steps that reach the target, one a line, and the expression they make in a box.

        Raises ValueError for a puzzle without steps of its own that has no solution in whole numbers, or too many
        numbers to look for one.
        """
        numbers, target = problem.info["numbers"], problem.info["target"]
        steps = problem.reference if "=" in problem.reference else None
        if steps is None and len(numbers) <= MAX_SOLVED:
            steps = solve(tuple(sorted(numbers)), target)
        if steps is None:
            raise ValueError(f"problem {problem.id!r}: no steps in whole numbers found; give some as output")
        return "\n".join([*steps.split(","), f"\\boxed{{{expression_of(steps, numbers) or steps}}}"])

    def demonstrations(self, num: int, seed: int) -> list[Demonstration]:
        """``num`` worked training problems; see `worked_demonstrations`."""
        return worked_demonstrations(self, num, seed=seed)

    def _generated(self, split: str, num: int) -> Sequence[Problem]:
        return _generated(split, num, self.seed, (self.num_numbers, self.max_number, self.max_target))

    def _read(self, data: str) -> list[Problem]:
        return read_problems(sample_file("countdown") if data == SAMPLE else data, self.name, read=_from_row)


def _key(problem: Problem) -> tuple[object, ...]:
    return (*sorted(problem.info["numbers"]), problem.info["target"])


def _problem(name: str, numbers: Sequence[int], target: int, reference: str) -> Problem:
    info = {"numbers": tuple(numbers), "target": target, "group": f"{len(numbers)} numbers"}
    return Problem(name, f"{', '.join(map(str, numbers))} -> {target}", reference, info)


@lru_cache(maxsize=8)
def _generated(split: str, num: int, seed: int, shape: tuple[tuple[int, int], int, int]) -> tuple[Problem, ...]:
    """``num`` different puzzles of a split; a smaller ``num`` gives the beginning of a larger one."""
    rng = Random(derive_seed("countdown", "problems", seed, split))
    (low, high), max_number, max_target = shape

    def draw() -> Problem | None:
        numbers = [rng.randint(1, max_number) for _ in range(rng.randint(low, high))]
        steps, target = draw_solution(numbers, rng)
        is_test = derive_seed("countdown", "split", ",".join(map(str, sorted(numbers)))) % _TEST_SHARE == 0
        if not 1 <= target <= max_target or target in numbers or is_test != (split == "test"):
            return None
        return _problem(f"countdown:{','.join(map(str, numbers))}:{target}", numbers, target, steps)

    return draw_distinct(draw, num, field=f"num_{split}", remedy=f"lower num_{split} or raise max_number {max_number}")


def _from_row(row: Row, name: str) -> Problem:
    found = find_fields(row, [("input", "output"), ("nums", "target"), ("numbers", "target")])
    if found[0] != "input":
        said = row.text("target")
        numbers = _numbers(row, found[0], ",".join(row.texts(found[0])))
        return _problem(name, numbers, _target(row, "target", said), said)
    output, numbers = row.text("output"), _numbers(row, "input", row.text("input"))
    if "=" not in output:
        return _problem(name, numbers, _target(row, "output", output), output)
    *numbers, target = numbers
    verdict = score_countdown(output, numbers, target)
    if not verdict.value:
        reason = f"does not make {target} from {numbers} ({verdict.reason}); correct it"
        raise row.error("output", f"{output[:60]!r} {reason}")
    return _problem(name, numbers, target, output)


def _numbers(row: Row, field: str, text: str) -> list[int]:
    if not (text.isascii() and _NUMBERS.fullmatch(text)):
        raise row.error(field, f"{text[:60]!r}; expected 2 to 10 whole numbers joined by commas")
    return [int(number) for number in text.split(",")]


def _target(row: Row, field: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise row.error(field, f"{text[:40]!r}; expected the target, a whole number")
    return int(text)
