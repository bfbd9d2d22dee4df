"""From what a recipe says about programs to what runs them: ``local``, or ``{kind: sandbox_fusion, url: ...}``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from revelm.core.registry import build
from revelm.rewards.code_tests import CodeTests, Executor, TestResult
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.local import local_executor


@dataclass(frozen=True)
class Local:
    """The sandbox of this machine; one for each process, started with the first program."""

    def run(self, code: str, tests: CodeTests, limits: Limits) -> tuple[TestResult, ...]:
        """See `Executor`."""
        return local_executor().run(code, tests, limits)


def open_executor(spec: Mapping[str, Any] | str, *, field: str = "executor") -> Executor:
    """The executor that ``spec`` names, one for each spec in a process; it starts nothing yet.

    Raises ValueError, naming the field, for one that there is not, a field outside its range, a missing package or key.
    """
    return _opened(json.dumps(spec, sort_keys=True, default=str), field)


@lru_cache(maxsize=64)
def _opened(spec: str, field: str) -> Executor:
    found: Executor = build("executors", json.loads(spec), field=field)
    return found
