"""``livecodebench`` (Jain et al. 2024, arXiv 2403.07974) and the coding part of LiveBench, ``livebench_coding``.

Rows of ``code_generation_lite``: ``question_content``, ``starter_code`` (a method of ``Solution`` to write; else a
program), ``public_test_cases`` (JSON), ``private_test_cases`` (packed, see `revelm.tasks.packed_tests`), ``metadata``
with ``func_name``, ``contest_date``. An answer has to pass all tests, public and hidden; hidden ones are unpacked when
an answer is judged, since those of all problems take many gigabytes.

The hub has six files, of which release N is the first N: ``version: release_v2`` is the 511 problems of May 2023 to
May 2024, ``release_v6`` the 1,055 up to April 2025, and ``v6`` the last file alone, 175 problems. A folder given as
``data`` is read like the hub; a single file as it is. ``since`` and ``until`` choose by the date of the contest.

Outputs and results are compared as LiveCodeBench's harness does (`revelm.rewards.stdout_match`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Literal

from revelm.core.types import Problem
from revelm.data.rows import Row
from revelm.tasks.code import asked
from revelm.tasks.code_records import code_tests, question, start
from revelm.tasks.code_task import CodeTask
from revelm.tasks.data_source import SAMPLE, problem_source
from revelm.tasks.file_splits import read_problems
from revelm.tasks.hub_files import hub_file
from revelm.tasks.task import check_split

HUB = "livecodebench/code_generation_lite"
LIVEBENCH_HUB = "livebench/coding[test]"
Release = Literal["release_v1", "release_v2", "release_v3", "release_v4", "release_v5", "release_v6"]
Version = Release | Literal["v1", "v2", "v3", "v4", "v5", "v6"]
_KEPT = ("public_test_cases", "private_test_cases", "metadata", "starter_code", "original_json", "partial_solution")


@dataclass(frozen=True)
class LiveCodeBench(CodeTask):
    """Problems of programming contests.

    ``version``: ``release_v1`` to ``release_v6``, or ``v1`` to ``v6`` for one file of it. ``since``, ``until``: first
    and last date of the contest, as 2024-10-01. ``data``: a file, or a folder with ``test.jsonl``, ``test2.jsonl`` and
    so on; None: the hub; "sample": a few that come with the package. The other fields are those of `CodeTask`.
    """

    version: Version = "release_v2"
    since: str | None = None
    until: str | None = None
    data: str | None = None
    id_field: str | None = "question_id"

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "livecodebench"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "test"; "train" is empty."""
        check_split(split)
        since = _date("0001-01-01" if self.since is None else self.since, "since")
        until = _date("9999-12-31" if self.until is None else self.until, "until")
        places = self._places() if split == "test" else []
        found = [problem for place in places for problem in _read(self, place, _problem)]
        return [problem for problem in found if since <= problem.info["date"] <= until]

    def _places(self) -> list[str]:
        if self.data == SAMPLE or (self.data is not None and not Path(self.data).is_dir()):
            return [problem_source(self.data, hub=HUB, task=self.name)]
        names = version_files(self.version)
        if self.data is not None:
            return [str(Path(self.data) / name) for name in names]
        return [hub_file(HUB, name) for name in names]


@dataclass(frozen=True)
class LiveBenchCoding(CodeTask):
    """LiveBench's coding problems: programs to write, and beginnings of programs to complete.

    ``data``: a file in LiveBench's format; None: the hub; "sample": a few that come with the package. ``instruction``:
    empty, since the questions say how to answer. The other fields are those of `CodeTask`.
    """

    instruction: str | None = ""
    data: str | None = None
    id_field: str | None = "question_id"

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "livebench_coding"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "test"; "train" is empty."""
        check_split(split)
        source = problem_source(self.data, hub=LIVEBENCH_HUB, task=self.name)
        return [] if split == "train" else _read(self, source, _livebench_problem)


def version_files(version: Version) -> list[str]:
    """The files of a version: ``release_v2`` is ``test.jsonl`` and ``test2.jsonl``, ``v2`` the latter alone."""
    last = int(version[-1])
    first = 1 if version.startswith("release") else last
    return [f"test{number if number > 1 else ''}.jsonl" for number in range(first, last + 1)]


def _read(task: CodeTask, source: str, read: Callable[[Row, str], Problem]) -> list[Problem]:
    return read_problems(source, task.name, read=read, id_field=task.id_field, max_bad_rows=task.max_bad_rows)


def _problem(row: Row, name: str) -> Problem:
    """A problem whose public tests are read now, as a check, and whose hidden ones later."""
    tests = code_tests(replace(row, fields={**row.fields, "private_test_cases": None}))
    text, begun = question(row), start(row)
    info = {"asked": asked(text, begun), "start": begun, "row": _kept(row), "is_stdio": tests.method == "stdio"}
    info["names"] = tests.names
    info["date"] = _date(row.get("contest_date"), f"{row.place}, field 'contest_date'")
    if group := row.optional_text("difficulty"):
        info["group"] = group
    return Problem(name, text, row.optional_text("solution"), info)


def _livebench_problem(row: Row, name: str) -> Problem:
    begun = start(row)
    tests = code_tests(replace(row, fields={**row.fields, "private_test_cases": None}))
    info = {"asked": question(row), "start": begun, "row": _kept(row), "is_stdio": tests.method == "stdio"}
    info["names"] = tests.names
    if group := row.optional_text("task"):
        info["group"] = group
    solution = row.get("solution")
    return Problem(name, str(info["asked"]), solution if isinstance(solution, str) else "", info)


def _kept(row: Row) -> Row:
    """What is needed for judging."""
    kept: Mapping[str, object] = {field: row.fields[field] for field in _KEPT if field in row.fields}
    return replace(row, fields=kept)


def _date(value: object, where: str) -> date:
    try:
        return date.fromisoformat(str(value)[:10])
    except ValueError as error:
        raise ValueError(f"{where}: expected a date such as 2024-10-01, not {str(value)[:40]!r}") from error
