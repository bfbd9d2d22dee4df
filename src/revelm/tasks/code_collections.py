"""``apps`` and ``primeintellect``: public collections of programming problems to train on.

``apps`` (Hendrycks et al. 2021, arXiv 2105.09938): ``question``, ``input_output``, ``solutions``, ``starter_code``.
``primeintellect`` (the verifiable problems of SYNTHETIC-1): in the layout of the code records, as Gen-Verse publishes
them, or in that of PrimeIntellect and open-r1 (``prompt`` or ``problem``, ``verification_info``,
``gold_standard_solution``). Rows of both are read by `revelm.tasks.code_records`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from revelm.core.types import Demonstration, Problem
from revelm.tasks.code import code_problem
from revelm.tasks.code_task import CodeTask
from revelm.tasks.data_source import sample_file
from revelm.tasks.demonstrations import worked_demonstrations
from revelm.tasks.file_splits import Files, check_files, file_problems
from revelm.tasks.hub_files import hub_file
from revelm.tasks.task import check_split

APPS_HUB = "codeparrot/apps"
PRIMEINTELLECT_HUB = "Gen-Verse/PrimeIntellect[train]"


@dataclass(frozen=True)
class Apps(CodeTask):
    """10,000 problems, half of them for the test, with programs or functions to write.

    ``data``: a file in the format of APPS; None: the hub's training and test problems; "sample": a few that come with
    the package. ``test_data``: the test file, or else ``test_share`` of the questions in ``data``. The other fields are
    those of `CodeTask`.
    """

    data: str | None = None
    test_data: str | None = None
    test_share: float = 0.2
    id_field: str | None = "problem_id"

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "apps"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test"; see `Task.problems`."""
        train, test = self.data, self.test_data
        if train is None and test is None:
            test = hub_file(APPS_HUB, "test.jsonl")
        if train is None and split == "train":
            train = hub_file(APPS_HUB, "train.jsonl")
        return _problems(self, split, Files(train, test, self.test_share, "", self.id_field, self.max_bad_rows))

    def demonstrations(self, num: int, seed: int) -> list[Demonstration]:
        """``num`` solved training problems; see `worked_demonstrations`."""
        return worked_demonstrations(self, num, seed=seed)


@dataclass(frozen=True)
class PrimeIntellect(CodeTask):
    """Problems with programs or functions to write, for training.

    ``data``: a file; None: the hub's; "sample": a few that come with the package. ``test_data``: the test file, or else
    ``test_share`` of the questions in ``data``. The other fields are those of `CodeTask`.
    """

    data: str | None = None
    test_data: str | None = None
    test_share: float = 0.2

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "primeintellect"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test"; see `Task.problems`."""
        train = PRIMEINTELLECT_HUB if self.data is None else self.data
        source = Files(train, self.test_data, self.test_share, "", self.id_field, self.max_bad_rows)
        return [_stripped(problem) for problem in _problems(self, split, source)]

    def demonstrations(self, num: int, seed: int) -> list[Demonstration]:
        """``num`` solved training problems; see `worked_demonstrations`."""
        return worked_demonstrations(self, num, seed=seed)


def _problems(task: CodeTask, split: str, source: Files) -> Sequence[Problem]:
    check_split(split)
    check_files(source)
    source = replace(source, sample=sample_file(task.name))
    return file_problems(source, split, task=task.name, read=code_problem, keeps_columns=False)


def _stripped(problem: Problem) -> Problem:
    """A problem whose output is compared as the verifier of SYNTHETIC-1 does, whatever format its row is in."""
    return replace(problem, info={**problem.info, "tests": replace(problem.info["tests"], matching="stripped")})
