"""``mbpp`` (Austin et al. 2021, arXiv 2108.07732) and ``mbpp_plus`` (EvalPlus, arXiv 2305.01210).

A row has ``task_id``, ``text`` (or ``prompt``), ``code`` and ``test_list``; rows with ``test_setup_code`` build their
arguments with the answer's own classes. As in the paper the chat shows the tests, since nothing else tells what the
function is called, and the number says which split a problem belongs to: 601 to 974 training, 11 to 510 test (1 to 10
and 511 to 600, for prompts and validation, are in neither). That holds for the full file of 974 and for the 427
sanitised ones alike.

``mbpp_plus`` is EvalPlus's ``MbppPlus-OriginFmt.jsonl``, 378 test problems, of which the chat shows one assert.
``MbppPlus.jsonl`` has inputs without results, and is refused. The tests of 737, 787 and 794 work out whether a result
is right and forget to assert it, so that any program would pass; the assert is added. Of the inputs of 255, five whose
results are lists of 6 to 128 million values are left out: they are more than can come back from a program.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from revelm.core.types import Demonstration, Problem
from revelm.data.rows import Row
from revelm.rewards.code_tests import CodeTests
from revelm.rewards.sandbox.limits import Limits
from revelm.tasks.code_records import assert_tests, code_text, question
from revelm.tasks.code_task import CodeTask
from revelm.tasks.data_source import problem_source
from revelm.tasks.demonstrations import worked_demonstrations
from revelm.tasks.file_splits import read_problems
from revelm.tasks.humaneval import PLUS_LIMITS, refuse_inputs
from revelm.tasks.task import check_split

MBPP_HUB = "google-research-datasets/mbpp:full"
MBPP_PLUS_HUB = "evalplus/mbppplus[test]"
_NUMBERS = {"train": range(601, 975), "test": range(11, 511)}
_DEFINED, _WORD = re.compile(r"^(?:def|class)[ \t]+(\w+)", re.MULTILINE), re.compile(r"\w+")
_FORGOTTEN = re.compile(r"^ +exact_match = exp == \(out is not None\)\n(?!\s*assert)", re.MULTILINE)
_LARGE = ("\nfor i, inp in enumerate(inputs):\n", "\nfor i, inp in enumerate([x for x in inputs if x[1] < 50]):\n")
_WITH_LARGE = "255"
_SHOWN = "Your code should pass these tests:"


@dataclass(frozen=True)
class Mbpp(CodeTask):
    """974 short functions to write, 500 of them the test.

    ``data``: a file in the format of ``mbpp.jsonl`` or ``mbpp_sanitized.jsonl``; None: the hub; "sample": a few that
    come with the package. The other fields are those of `CodeTask`.
    """

    data: str | None = None
    id_field: str | None = "task_id"

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "mbpp"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems whose numbers are those of "train" or "test"."""
        check_split(split)
        source = problem_source(self.data, hub=f"{MBPP_HUB}[{split}]", task=self.name)
        return [problem for problem in numbered_problems(self, source) if problem.info["number"] in _NUMBERS[split]]

    def demonstrations(self, num: int, seed: int) -> list[Demonstration]:
        """``num`` solved training problems; see `worked_demonstrations`."""
        return worked_demonstrations(self, num, seed=seed)


@dataclass(frozen=True)
class MbppPlus(CodeTask):
    """378 functions of MBPP with 35 times as many tests.

    ``data``: a file in the format of ``MbppPlus-OriginFmt.jsonl.gz``; None: the hub; "sample": a few that come with
    the package. The other fields are those of `CodeTask`.
    """

    limits: Limits = PLUS_LIMITS
    data: str | None = None
    id_field: str | None = "task_id"

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "mbpp_plus"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "test"; "train" is empty."""
        check_split(split)
        source = problem_source(self.data, hub=MBPP_PLUS_HUB, task=self.name)
        return [] if split == "train" else _read(self, source, _plus_problem)


def numbered_problems(task: CodeTask, source: str) -> list[Problem]:
    """All problems of a file or data set of MBPP, of whatever split; ``info["number"]`` says which they are."""
    return _read(task, source, _problem)


def _read(task: CodeTask, source: str, read: Callable[[Row, str], Problem]) -> list[Problem]:
    return read_problems(source, task.name, read=read, id_field=task.id_field, max_bad_rows=task.max_bad_rows)


def _problem(row: Row, name: str) -> Problem:
    tests = assert_tests(row)
    number = row.text("task_id")
    if not number.isdecimal():
        raise row.error("task_id", f"{number[:40]!r} is not the number of a problem, which says what split it is in")
    value = row.get("test_list")
    shown = [str(test) for test in value] if isinstance(value, list) else []
    code = code_text(row, "code").replace("\r\n", "\n")
    asked = _asked(question(row), shown)
    return Problem(name, asked, code, {"asked": asked, "tests": tests, "is_stdio": False, "number": int(number)})


def _plus_problem(row: Row, name: str) -> Problem:
    refuse_inputs(row, "MbppPlus-OriginFmt.jsonl.gz")
    code = code_text(row, "code")
    test = _FORGOTTEN.sub(r"\g<0>    assert exact_match\n", code_text(row, "test"))
    if row.optional_text("task_id").rpartition("/")[2] == _WITH_LARGE:
        test = test.replace(*_LARGE)
    names = tuple(sorted(set(_DEFINED.findall(code)) & set(_WORD.findall(test)) - set(_DEFINED.findall(test))))
    tests = CodeTests("function", statements=(test,), names=names)
    shown = row.texts("test_list")[:1]
    asked = _asked(question(row), shown)
    return Problem(name, asked, code, {"asked": asked, "tests": tests, "is_stdio": False})


def _asked(text: str, shown: Sequence[str]) -> str:
    tests = "\n".join(test.strip() for test in shown)
    return f"{text}\n{_SHOWN}\n```python\n{tests}\n```"
