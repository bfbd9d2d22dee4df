"""``humaneval`` (Chen et al. 2021, arXiv 2107.03374) and ``humaneval_plus`` (EvalPlus, arXiv 2305.01210).

A row has ``task_id``, ``prompt`` (imports, helpers, and a function with a docstring), ``entry_point``, ``test`` (which
defines ``check``) and ``canonical_solution`` (the body). The chat shows the prompt and asks for the whole function; an
answer that goes on behind the prompt instead counts too. Both have test problems only.

EvalPlus publishes two files. In ``HumanEvalPlus-OriginFmt.jsonl`` all tests are in ``test``; this is the one to give.
``HumanEvalPlus.jsonl`` has inputs without results, and is refused. In the former, the test code of HumanEval/32 passes
arguments in the wrong order, so that no program can pass; they are put right, as in EvalPlus's own harness: the value
of the polynomial at the returned point is within 1e-4 of zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from revelm.core.types import Problem
from revelm.data.rows import Row
from revelm.rewards.sandbox.limits import Limits
from revelm.tasks.code_records import code_text, entry_tests
from revelm.tasks.code_task import CodeTask
from revelm.tasks.data_source import problem_source
from revelm.tasks.file_splits import read_problems
from revelm.tasks.task import check_split

HUMANEVAL_HUB = "openai/openai_humaneval[test]"
HUMANEVAL_PLUS_HUB = "evalplus/humanevalplus[test]"
_CONFUSED = ("_poly(*candidate(*inp), inp) <= 0.0001", "abs(_poly(*inp, candidate(*inp))) <= 0.0001")
# All inputs of a problem are one test; the slowest reference takes a third of this time, the largest half the memory.
PLUS_LIMITS = Limits(seconds=60.0, memory_mb=4096)


@dataclass(frozen=True)
class HumanEval(CodeTask):
    """164 functions to write.

    ``data``: a file in the format of ``HumanEval.jsonl.gz``; None: the hub; "sample": a few that come with the package.
    The other fields are those of `CodeTask`.
    """

    data: str | None = None
    id_field: str | None = "task_id"

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "humaneval"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "test"; "train" is empty."""
        return _problems(self, split, problem_source(self.data, hub=HUMANEVAL_HUB, task=self.name))


@dataclass(frozen=True)
class HumanEvalPlus(CodeTask):
    """The functions of HumanEval with 80 times as many tests.

    ``data``: a file in the format of ``HumanEvalPlus-OriginFmt.jsonl.gz``; None: the hub; "sample": a few that come
    with the package. The other fields are those of `CodeTask`.
    """

    limits: Limits = PLUS_LIMITS
    data: str | None = None
    id_field: str | None = "task_id"

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "humaneval_plus"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "test"; "train" is empty."""
        return _problems(self, split, problem_source(self.data, hub=HUMANEVAL_PLUS_HUB, task=self.name))


def _problems(task: CodeTask, split: str, source: str) -> Sequence[Problem]:
    check_split(split)
    if split == "train":
        return []
    return read_problems(source, task.name, read=_problem, id_field=task.id_field, max_bad_rows=task.max_bad_rows)


def _problem(row: Row, name: str) -> Problem:
    """A problem whose prompt is the beginning of its solution."""
    refuse_inputs(row, "HumanEvalPlus-OriginFmt.jsonl.gz")
    start = code_text(row, "prompt")
    tests = entry_tests(row)
    tests = replace(tests, setup=tests.setup.replace(*_CONFUSED))
    row.text("canonical_solution")
    asked = f"Complete this Python function:\n```python\n{start.strip()}\n```"
    info = {"asked": asked, "start": start, "tests": tests, "is_stdio": False}
    return Problem(name, start.strip(), f"{start}{row.get('canonical_solution')}", info)


def refuse_inputs(row: Row, file: str) -> None:
    """Refuse EvalPlus's own format with a ValueError that names the ``file`` to give."""
    if row.has("plus_input"):
        raise row.error("plus_input", f"inputs without expected results cannot be judged; give {file}, which has tests")
