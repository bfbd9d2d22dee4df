"""Tests of programs on a machine elsewhere, which runs one script at a time and says what it printed."""

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, get_args

from revelm.rewards.code_tests import CodeTests, Outcome, TestResult
from revelm.rewards.sandbox.http_harness import harness, read_report
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.values import is_right_value
from revelm.rewards.stdout_match import is_same_output

_SURROGATE = re.compile("[\ud800-\udfff]")
_START = 2.0  # seconds that an interpreter may take to begin, beside the program's own
# As in the local sandbox, a script may leave with any status.
_SCRIPT = """try:
    exec(compile({source}, "main.py", "exec", dont_inherit=True), globals())
except SystemExit:
    pass
"""
_SILENT = TestResult("exit", "the program ended before its tests did")


class ServiceError(Exception):
    """The service failed, and not the program; the message says how."""


@dataclass(frozen=True)
class Ran:
    """What became of a script: what it printed, its exit status, and whether it ran out of time."""

    stdout: str
    stderr: str
    status: int | None
    timed_out: bool = False
    seconds: float = 0.0


class Machine(Protocol):
    """A machine elsewhere."""

    def execute(self, source: str, stdin: str, seconds: float) -> Ran:
        """Run Python ``source`` for at most ``seconds`` of wall clock time. Raises ServiceError."""
        ...


@dataclass(frozen=True)
class RemoteTests:
    """The tests of one program, on ``machine``. ``patience``: wall clock time of a test, in its CPU seconds: a service
    elsewhere only knows the clock. ``concurrency``: scripts at a time."""

    machine: Machine
    tests: CodeTests
    limits: Limits
    patience: float
    concurrency: int

    def run(self, code: str) -> tuple[TestResult, ...]:
        """See `Executor`. A failure of the service is a result of "error"."""
        source = self.tests.source(code)
        if self.tests.method != "stdio":
            return self._together(source)
        if _SURROGATE.search(source):
            broken = TestResult("exception", "SyntaxError: the program is no UTF-8")
            return self._up_to_first_failure([broken] * self.tests.num_tests)
        results: list[TestResult] = []
        places = range(self.tests.num_tests)
        with ThreadPoolExecutor(max_workers=min(self.concurrency, len(places))) as pool:
            for first in range(0, len(places), self.concurrency):
                results += pool.map(lambda i: self._script(source, i), places[first : first + self.concurrency])
                if self.limits.stops_early and any(result.outcome != "passed" for result in results):
                    break
        return self._up_to_first_failure(results)

    @property
    def _seconds(self) -> float:
        return self.limits.seconds if self.tests.seconds is None else self.tests.seconds

    def _wall(self, num_tests: int) -> float:
        return min(self.limits.total_seconds, _START + self.patience * self._seconds * num_tests)

    def _up_to_first_failure(self, results: Sequence[TestResult]) -> tuple[TestResult, ...]:
        """A result for each test; behind the first failed one "not run" where tests stop early, also if they were."""
        failed = next((i for i, result in enumerate(results) if result.outcome != "passed"), len(results))
        kept = list(results[: failed + 1]) if self.limits.stops_early else list(results)
        return tuple(kept + [TestResult("not run")] * (self.tests.num_tests - len(kept)))

    def _script(self, source: str, number: int) -> TestResult:
        try:
            script = _SCRIPT.replace("{source}", ascii(source))
            ran = self.machine.execute(script, self.tests.inputs[number], self._wall(1))
        except ServiceError as error:
            return TestResult("error", str(error))
        if ran.timed_out:
            return TestResult("timed out", "by the clock", ran.seconds)
        if ran.status != 0:
            return _failed(ran)
        printed = ran.stdout.encode("utf-8", "replace")
        if len(printed) > self.limits.output_mb * 2**20:
            return TestResult("output", f"more than {self.limits.output_mb} MB", ran.seconds)
        if is_same_output(self.tests.outputs[number], printed, matching=self.tests.matching):
            return TestResult("passed", "", ran.seconds)
        difference = f"printed {ran.stdout[:80]!r} instead of {self.tests.outputs[number][:80]!r}"
        return TestResult("wrong", difference, ran.seconds)

    def _together(self, source: str) -> tuple[TestResult, ...]:
        """Statements or calls: all that are left in one script, again and again until each has a result."""
        results: list[TestResult] = []
        while len(results) < self.tests.num_tests:
            found = self._attempt(source, len(results))
            results += found
            if self.limits.stops_early and found[-1].outcome != "passed":
                break
        return self._up_to_first_failure(results)

    def _attempt(self, source: str, first: int) -> list[TestResult]:
        """Results of the tests from ``first`` on, at least one, as far as one script comes."""
        numbers = range(first, self.tests.num_tests)
        early = self.limits.stops_early
        script, mark = harness(source, self.tests, numbers, seconds=self._seconds, stops_early=early)
        try:
            ran = self.machine.execute(script, "", self._wall(len(numbers)))
        except ServiceError as error:
            return [TestResult("error", str(error))] * len(numbers)
        report = read_report(ran.stdout, mark)
        broke_off = (
            TestResult("timed out", "by the clock") if ran.timed_out else _failed(ran) if ran.status else _SILENT
        )
        program = self._result(-1, report.get(-1, (broke_off.outcome, broke_off.detail)))
        if program.outcome != "passed":
            return [program] * len(numbers)
        results: list[TestResult] = []
        for number in numbers:
            if number not in report:
                return [*results, broke_off]
            results.append(self._result(number, report[number]))
            if early and results[-1].outcome != "passed":
                break
        return results

    def _result(self, number: int, said: tuple[str, str]) -> TestResult:
        outcome, detail = said
        if outcome == "value" and self.tests.method == "call" and number >= 0:
            return _compared(detail, self.tests, number)
        if outcome not in get_args(Outcome) or (outcome == "passed" and self.tests.method == "call" and number >= 0):
            return TestResult("wrong", "a report that is none")
        return TestResult(outcome, detail)  # type: ignore[arg-type]


def _compared(said: str, tests: CodeTests, number: int) -> TestResult:
    try:
        value = json.loads(said)
    except (ValueError, RecursionError):
        return TestResult("wrong", "a report that is none")
    expected = json.loads(tests.returns[number])
    if is_right_value(value, expected, matching=tests.matching, may_unwrap=tests.may_unwrap):
        return TestResult("passed")
    return TestResult("wrong", f"{repr(value)[:80]} instead of {repr(expected)[:80]}")


def _failed(ran: Ran) -> TestResult:
    """A script whose exit status is not 0."""
    last = ran.stderr.strip().rpartition("\n")[2][:200]
    if last.startswith("MemoryError"):
        return TestResult("memory", "MemoryError", ran.seconds)
    return TestResult("exception", last or f"exit status {ran.status}", ran.seconds)
