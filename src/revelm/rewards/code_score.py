"""Whether a program is right: the share of its tests that pass, or all of them or nothing."""

from dataclasses import replace

from revelm.core.types import Score
from revelm.rewards.code_tests import CodeTests, Executor, TestResult
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.local import local_executor


def score_code(
    code: str,
    tests: CodeTests,
    *,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    executor: Executor | None = None,
    is_partial: bool = False,
) -> Score:
    """1 if all tests pass; else 0, or the share that passes where ``is_partial``. Never raises for what ``code`` does.

    ``executor`` None: the sandbox of this process. Breakdown: ``correct``, ``passed`` (share of tests; with
    ``limits.stops_early`` those behind the first failed one count as failed), ``error`` where the sandbox failed.
    """
    used = replace(limits, stops_early=limits.stops_early and not is_partial)
    results = (executor or local_executor()).run(code, tests, used)
    passed = sum(result.outcome == "passed" for result in results)
    share = passed / tests.num_tests
    breakdown = {"correct": float(passed == tests.num_tests), "passed": share}
    if any(result.outcome == "error" for result in results):
        breakdown["error"] = 1.0
    value = share if is_partial else breakdown["correct"]
    return Score(value, breakdown, reason=_reason(results))


def _reason(results: tuple[TestResult, ...]) -> str:
    for number, result in enumerate(results, start=1):
        if result.outcome != "passed":
            start = "error: " if result.outcome == "error" else ""
            detail = f": {result.detail}" if result.detail else ""
            return f"{start}test {number} of {len(results)}: {result.outcome}{detail}"
    return f"{len(results)} of {len(results)} tests passed"
