"""Training and test problems from files: from one file each, or from one file divided by a hash of the question.

No question is ever on both sides. Divided by hash, a question is on the same side in every file and every run; with a
file for each, training questions that the test asks too are left out.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from revelm.core.seeds import derive_seed
from revelm.core.types import COLUMNS, Problem
from revelm.data.rows import Row, read_rows
from revelm.tasks.data_source import SAMPLE
from revelm.tasks.hub_files import local_path
from revelm.tasks.problem_files import row_ids

_LOG = logging.getLogger(__name__)
_SHARES = 10_000


@dataclass(frozen=True)
class Files:
    """Where the problems are. ``test`` None: ``test_share`` of the questions in ``train`` are for the test.

    ``train`` None: none beside a ``test``, and else, as for "sample", in ``sample``, which comes with the task.
    ``id_field``: the field that names a row; None: its number does. ``max_bad_rows``: how many rows of a file may be
    unusable; they are left out and logged.
    """

    train: str | None
    test: str | None
    test_share: float
    sample: str
    id_field: str | None = None
    max_bad_rows: int = 0


def file_problems(
    files: Files, split: str, *, task: str, read: Callable[[Row, str], Problem], keeps_columns: bool = True
) -> Sequence[Problem]:
    """The problems of "train" or "test"; ``read`` makes one from a row and its id.

    ``keeps_columns``: ``info`` has the fields of the row, under ``COLUMNS``: not of tasks whose rows hold large tests.
    Raises ValueError for files that cannot be read, ids that come twice, and more than ``max_bad_rows`` rows that
    ``read`` refuses: the error of the last.
    """
    train = files.sample if files.train in (None, SAMPLE) else str(files.train)

    def made(row: Row, name: str) -> Problem:
        problem = read(row, name)
        return replace(problem, info={**problem.info, COLUMNS: row.fields}) if keeps_columns else problem

    def problems_of(path: str) -> list[Problem]:
        return read_problems(path, task, read=made, id_field=files.id_field, max_bad_rows=files.max_bad_rows)

    if files.test is None:
        problems = problems_of(train)
        return [p for p in problems if _is_test(p.question, task, files.test_share) == (split == "test")]
    if split == "train" and files.train is None:
        return []
    test = problems_of(files.test)
    return test if split == "test" else unasked(problems_of(train), test)


def check_files(files: Files) -> None:
    """Refuse numbers outside their range, and one file for both splits.

    Raises ValueError that names the field.
    """
    if files.max_bad_rows < 0:
        raise ValueError(f"max_bad_rows={files.max_bad_rows}: expected how many rows may be unusable, at least 0")
    if not 0.0 <= files.test_share < 1.0:
        raise ValueError(f"test_share={files.test_share}: expected the share of questions for the test, from 0 up to 1")
    if files.test is not None and files.test == files.train:
        raise ValueError(f"test_data={files.test!r}: is the training file; leave it out to divide by test_share")


def read_problems(
    path: str, task: str, *, read: Callable[[Row, str], Problem], id_field: str | None = None, max_bad_rows: int = 0
) -> list[Problem]:
    """The problems of one file (which may be on the hub, see `local_path`) or data set.

    ``read`` makes one from a row and its id. Raises ValueError as `file_problems` does.
    """
    rows = read_rows(local_path(path), field="task.data")
    problems: list[Problem] = []
    bad: list[ValueError] = []
    for row, name in zip(rows, row_ids(rows, task, field=id_field), strict=True):
        try:
            problems.append(read(row, name))
        except ValueError as error:
            bad.append(error)
            if len(bad) > max_bad_rows:
                raise
    if bad:
        _LOG.warning("%s: %d of %d rows are left out; the first: %s", path, len(bad), len(rows), bad[0])
    return problems


def unasked(problems: Sequence[Problem], test: Sequence[Problem]) -> list[Problem]:
    """Those of the ``problems`` whose question the ``test`` does not ask."""
    asked = {problem.question for problem in test}
    return [problem for problem in problems if problem.question not in asked]


def _is_test(question: str, task: str, share: float) -> bool:
    return derive_seed(task, "split", question) % _SHARES < share * _SHARES
