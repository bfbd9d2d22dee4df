"""Rows of a program and its tests, judged as the answers of tasks about code are."""

from collections.abc import Sequence
from dataclasses import dataclass

from revelm.core.types import Completion, Problem
from revelm.rollout.predictions import said
from revelm.tasks.code_records import code_tests, start
from revelm.tasks.code_task import CodeTask
from revelm.tasks.problem_files import Row


@dataclass(frozen=True)
class CodeRows(CodeTask):
    """Programs with their tests, in any format of ``revelm.tasks.code_records``."""

    prediction_field: str | None = None

    @property
    def name(self) -> str:
        """The name in errors."""
        return "code"

    def problems(self, _: str) -> Sequence[Problem]:
        """None: they are the rows."""
        return []

    def read(self, row: Row) -> tuple[Problem, Completion]:
        """What a row holds. ValueError, with row and field, where it is missing or wrong."""
        info = {"start": start(row), "tests": code_tests(row)}
        return Problem(row.place, "", "", info), said(row, self.prediction_field)
