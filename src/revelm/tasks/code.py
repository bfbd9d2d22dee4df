"""``code``: programming problems of your own.

A row is in one of the formats of `revelm.tasks.code_records`: a question, tests, and where there is one a solution to
learn from. Without a file the problems are a small sample that comes with the package.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from revelm.core.types import Demonstration, Problem
from revelm.data.rows import Row
from revelm.tasks.code_records import code_tests, question, reference, start
from revelm.tasks.code_task import CodeTask
from revelm.tasks.data_source import sample_file
from revelm.tasks.demonstrations import worked_demonstrations
from revelm.tasks.file_splits import Files, check_files, file_problems
from revelm.tasks.task import check_split


@dataclass(frozen=True)
class Code(CodeTask):
    """Programming problems from files.

    ``data``: the training file; ``test_data``: the test file, or else ``test_share`` of the questions in ``data``.
    The other fields are those of `CodeTask`.
    """

    data: str | None = None
    test_data: str | None = None
    test_share: float = 0.2

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "code"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test"; see `Task.problems`."""
        check_split(split)
        sample = sample_file(self.name)
        source = Files(self.data, self.test_data, self.test_share, sample, self.id_field, self.max_bad_rows)
        check_files(source)
        return file_problems(source, split, task=self.name, read=code_problem, keeps_columns=False)

    def demonstrations(self, num: int, seed: int) -> list[Demonstration]:
        """``num`` solved training problems; see `worked_demonstrations`."""
        return worked_demonstrations(self, num, seed=seed)


def code_problem(row: Row, name: str) -> Problem:
    """A problem from a row of any format. Raises ValueError that names row and field."""
    tests = code_tests(row)
    text, begun, solution = question(row), start(row), reference(row)
    info: dict[str, Any] = {"start": begun, "tests": tests, "is_stdio": tests.method == "stdio"}
    # A reference that does not go on from the prefix could not be learnt from behind it.
    if row.get("prefix") and begun and (not solution or solution.startswith(begun)):
        info |= {"asked": text, "opening": f"```python\n{begun}"}
    else:
        info["asked"] = asked(text, begun)
    if group := row.optional_text("difficulty"):
        info["group"] = group
    prompt = row.get("prompt")
    if isinstance(prompt, list):
        info["chat"] = _chat(row, prompt)
    return Problem(name, text, solution, info)


def asked(text: str, begun: str) -> str:
    """A question, and the beginning of the solution where there is one that the question does not show itself."""
    if not begun.strip() or begun.strip() in text:
        return text
    return f"{text}\n\nBegin your solution with this code:\n```python\n{begun.strip()}\n```"


def _chat(row: Row, prompt: Sequence[object]) -> tuple[dict[str, str], ...]:
    """The messages of a chat that ends with the user's turn."""
    turns: list[dict[str, str]] = []
    for message in prompt:
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            raise row.error("prompt", f"expected messages with role and content, not {repr(message)[:60]}")
        turns.append({"role": str(message["role"]), "content": str(message["content"])})
    if turns[-1]["role"] != "user":
        raise row.error("prompt", f"ends with a turn of {turns[-1]['role']!r}; it is to end with the user's")
    return tuple(turns)
