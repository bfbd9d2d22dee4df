"""Reward hacks and hostile programs: none scores, none survives, none leaves anything behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from revelm.rewards.code_score import score_code
from revelm.rewards.code_tests import CodeTests
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.local import LocalSandbox
from tests.hostile_programs import FUNCTIONS, INPUTS, LAZY, OUTPUTS, SCRIPTS, STATEMENTS
from tests.sandbox_traces import descendants, traces

LIMITS = Limits(
    seconds=0.5, wall_factor=1.5, total_seconds=8, memory_mb=256, processes=8, file_mb=8, output_mb=8, stops_early=True
)
SQUARE = CodeTests("function", statements=STATEMENTS, names=("f",))
SCRIPT = CodeTests("stdio", inputs=INPUTS, outputs=OUTPUTS)
SOLUTION = "def f(x):\n    return x * x\n"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalSandbox]:
    """One sandbox for all: what one program leaves behind would be there for the next."""
    try:
        sandbox = LocalSandbox(isolation="namespaces")  # without them some of these programs would do what they try
    except RuntimeError as refused:
        pytest.skip(str(refused))
    yield sandbox
    sandbox.close()


def check_nothing_is_left(sandbox: LocalSandbox, before: set[str]) -> None:
    """The server has no child, the machine no new file, and the next program is judged as ever, by the same server."""
    server = sandbox.server_pid
    assert descendants(server) == []
    assert traces() == before
    assert score_code(SOLUTION, SQUARE, limits=LIMITS, executor=sandbox).value == 1.0
    assert sandbox.server_pid == server
    assert os.getpid() == int(Path("/proc/self/stat").read_text().split()[0])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_hostile_functions_do_not_score(name: str, sandbox: LocalSandbox) -> None:
    """Catches W59 and its kin: exits that count as success, faked equality, tests that can be read or patched."""
    before = traces()
    for statements in (STATEMENTS, LAZY):
        tests = CodeTests("function", statements=statements, names=("f",))
        score = score_code(FUNCTIONS[name], tests, limits=LIMITS, executor=sandbox)
        assert score.value == score.breakdown["correct"] == 0.0
        assert "error" not in score.breakdown, score.reason
    check_nothing_is_left(sandbox, before)


@pytest.mark.parametrize("name", SCRIPTS)
def test_hostile_scripts_do_not_score(name: str, sandbox: LocalSandbox) -> None:
    """Catches W61, W63 and W64: bombs, floods, sleepers, survivors, errors that pass for output."""
    before = traces()
    score = score_code(SCRIPTS[name], SCRIPT, limits=LIMITS, executor=sandbox)
    assert score.value == score.breakdown["correct"] == 0.0
    assert "error" not in score.breakdown, score.reason
    check_nothing_is_left(sandbox, before)


def test_the_tests_themselves_can_be_passed(sandbox: LocalSandbox) -> None:
    """Catches attacks that fail only because nothing passes."""
    for statements in (STATEMENTS, LAZY):
        tests = CodeTests("function", statements=statements, names=("f",))
        assert score_code(SOLUTION, tests, limits=LIMITS, executor=sandbox).value == 1.0
    assert score_code("print(int(input()) ** 2)", SCRIPT, limits=LIMITS, executor=sandbox).value == 1.0
