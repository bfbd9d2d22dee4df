"""What the tasks share whose answers are programs: how they ask, and how a program is judged.

An answer is the last code block (`revelm.rewards.code_answer`). Tests run in an executor: the sandbox of this machine
or a service. The score is 1 if all tests pass, else 0, or with ``is_partial`` the share that passes. The breakdown has
``correct``, ``passed`` (the share), ``has_code``, and ``error`` where no verdict was reached.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from revelm.core.types import Completion, Problem, Score
from revelm.rewards.code_answer import code_answer, completed, defines
from revelm.rewards.code_fitting import in_a_function, without_examples
from revelm.rewards.code_score import score_code
from revelm.rewards.code_tests import CodeTests
from revelm.rewards.sandbox.executors import Local, open_executor
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.local import local_executor
from revelm.tasks.chats import ASSISTANT, THOUGHT, THOUGHT_END, USER, in_words, opening_of
from revelm.tasks.code_records import code_tests
from revelm.tasks.task import Messages

FUNCTION_INSTRUCTION = "Write the function in Python. Put the whole solution in a single Python code block."
STDIO_INSTRUCTION = (
    "Solve it with a Python program that reads its input with input() and writes its answer with print(). "
    "Put the whole program in a single Python code block."
)
_USUAL = Limits()


@dataclass(frozen=True)
class CodeTask(ABC):
    """Programming problems.

    ``instruction``: what follows each problem; None: a sentence that asks for one code block, with a function or a
    program as the tests need it; with ``{question}``, all words. ``is_partial``: the score is the share of tests that
    pass. ``limits``: what a program may use. ``executor``: where programs run. ``id_field``: the column that names the
    problems; None: their number does. ``max_bad_rows``: rows of a file that may be left out because they cannot be
    used. ``is_thinking``: the answer begins with ``<think>``, unless the row begins it with code.
    """

    instruction: str | None = None
    is_partial: bool = False
    limits: Limits = _USUAL
    executor: str | dict[str, Any] = "local"
    id_field: str | None = None
    max_bad_rows: int = 0
    is_thinking: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a field outside its range, and for an executor that there is not."""
        open_executor(self.executor)
        if self.max_bad_rows < 0:
            raise ValueError(f"max_bad_rows={self.max_bad_rows}: expected how many rows may be unusable, at least 0")

    @property
    @abstractmethod
    def name(self) -> str:
        """The short name under which results are reported."""

    @abstractmethod
    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test"; see `Task.problems`."""

    @property
    def score_seconds(self) -> float:
        """CPU seconds of the worker that waits for a verdict; ten times as many of wall clock time."""
        return self.limits.total_seconds / 5

    def warm_up(self) -> None:
        """Start the sandbox, where programs run here."""
        if isinstance(open_executor(self.executor), Local):
            local_executor()

    def prompt(self, problem: Problem) -> Messages:
        """The problem and the instruction, then the opening of the answer if there is one; or a chat as it is."""
        if "chat" in problem.info:
            return [dict(message) for message in problem.info["chat"]]
        usual = STDIO_INSTRUCTION if problem.info["is_stdio"] else FUNCTION_INSTRUCTION
        instruction = usual if self.instruction is None else self.instruction
        opening = problem.info.get("opening") or (THOUGHT if self.is_thinking else "")
        asked = {"role": USER, "content": in_words(problem.info["asked"], instruction, gap="\n\n")}
        return [asked, {"role": ASSISTANT, "content": opening}] if opening else [asked]

    def score(self, problem: Problem, completion: Completion) -> Score:
        """1, or less; see the head of this file."""
        start = problem.info.get("start", "")
        answer = opening_of(self.prompt(problem)) + completion.text
        program = program_of(answer, start, names=_wanted(problem))
        if program is None:
            return Score(0.0, {"correct": 0.0, "passed": 0.0, "has_code": 0.0}, reason="no program")
        try:
            tests = problem.info.get("tests") or code_tests(problem.info["row"])
        except ValueError as error:  # a boundary: tests that are only unpacked now
            breakdown = {"correct": 0.0, "passed": 0.0, "has_code": 1.0, "error": 1.0}
            return Score(0.0, breakdown, reason=f"error: {error}")
        program, tests = fitted(program, tests, start=start)
        executor = open_executor(self.executor)
        verdict = score_code(program, tests, limits=self.limits, executor=executor, is_partial=self.is_partial)
        return replace(verdict, breakdown={**verdict.breakdown, "has_code": 1.0})

    def worked(self, problem: Problem) -> str:
        """The reference program as a code block, or how it goes on behind the opening.

        Raises ValueError for a problem that has none.
        """
        if not problem.reference:
            raise ValueError(f"{problem.id}: has no solution to learn from; add a field solution to its row")
        if problem.info.get("opening"):
            return f"{problem.reference.removeprefix(problem.info['start']).rstrip()}\n```"
        fence = max(["```", *(mark + "`" for mark in re.findall("`{3,}", problem.reference))], key=len)
        block = f"{fence}python\n{problem.reference.strip(chr(10))}\n{fence}"
        return THOUGHT_END + block if self.is_thinking and "chat" not in problem.info else block


def program_of(text: str, start: str, *, names: Collection[str] = ()) -> str | None:
    """The program in an answer; indented lines without a fence, as base models go on with, count behind ``start``.

    ``names``: what it has to define, where that is known.
    """
    program = code_answer(text, names)
    lines = text.lstrip("\n")
    is_rest = program is None and bool(start.strip()) and lines[:1] in (" ", "\t") and bool(lines.strip())
    if not is_rest:
        return program
    whole = code_answer(f"{start.rstrip()}\n{lines}", names)
    return None if whole is None or whole.strip() == start.strip() else whole


def _wanted(problem: Problem) -> set[str]:
    """What a program has to define: functions, and classes with the names of their methods."""
    tests = problem.info.get("tests")
    names: Collection[str] = problem.info.get("names") or (tests.names if tests is not None else None) or ()
    return {part for name in names for part in name.split(".")}


def fitted(program: str, tests: CodeTests, *, start: str = "") -> tuple[str, CodeTests]:
    """The program and its tests, made to meet.

    ``start`` is put in front of a program that goes on from it. A method of ``class Solution`` is called as one, a
    function as one, whichever the program has. Examples behind functions are left out; a script of a contest may say
    ``return``, as in the harnesses of those.
    """
    program = completed(program, start)
    if tests.method != "stdio":
        program = without_examples(program)
    elif tests.matching in ("livecodebench", "apps"):
        program = in_a_function(program)
    if tests.method == "call" and tests.names:
        owner, _, name = tests.names[0].rpartition(".")
        if not owner and not defines(program, name) and defines(program, "Solution"):
            tests = replace(tests, names=(f"Solution.{name}",))
        elif owner and not defines(program, owner) and defines(program, name):
            tests = replace(tests, names=(name,))
    return program, tests
