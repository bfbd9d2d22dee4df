"""Reward hacks and hostile programs: none scores, none survives, none leaves anything behind."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Timer

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


def test_a_program_cannot_die_as_an_exception(sandbox: LocalSandbox) -> None:
    """Catches tests of exceptions that are passed by leaving, and a test that pays for the death in the one before."""
    code = "import os\ndef f(x):\n    if x < 0: os._exit(0)\n    return x\n"
    statement = "try:\n    f(-1)\nexcept Exception:\n    pass\nelse:\n    assert False"
    tests = CodeTests("function", statements=(statement, "assert f(3) == 3"), names=("f",))
    results = sandbox.run(code, tests, replace(LIMITS, stops_early=False))
    assert [result.outcome for result in results] == ["exit", "passed"]


def test_time_of_children_counts_that_nobody_waits_for(sandbox: LocalSandbox) -> None:
    """Catches programs that have their work done, part by part, by processes whose time is in no account once they have
    ended: a limit of CPU time that is ten times as long."""
    code = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    if os.fork() == 0:
        start = time.thread_time()
        while time.thread_time() < start + 0.3: pass
        os._exit(0)
    try: os.wait()
    except ChildProcessError: pass
"""
    limits = replace(LIMITS, wall_factor=100, total_seconds=60)
    result = sandbox.run(code, CodeTests("stdio", inputs=("",), outputs=("",)), limits)[0]
    assert (result.outcome, result.detail) == ("timed out", "0.5 s of CPU time")


def test_a_program_cannot_break_its_tests(sandbox: LocalSandbox) -> None:
    """Catches wrong answers that count as errors of the sandbox, which training leaves out: exceptions of the tests
    that hold an object of the program, whose text cannot be had; coroutines that tests hand back to the program."""
    unshown = "import os\nclass A:\n    def __repr__(self): os._exit(0)\ndef f(x): return A()\n"
    for code, statement in (
        (unshown, "assert {9: True}[f(3)]"),
        ("async def f(x): return x\ndef g(x): return x", "assert g(f(3)) == 3"),
        ("async def f(x): return x\ndef g(h): return h(f(3))", "assert g(lambda x: x) == 3"),
    ):
        score = score_code(code, CodeTests("function", statements=(statement,)), limits=LIMITS, executor=sandbox)
        assert (score.value, score.breakdown.get("error")) == (0.0, None), score.reason


def test_tests_cannot_expect_their_own_error(sandbox: LocalSandbox) -> None:
    """Catches tests that pass although the program was never called, since it could not be given what they pass."""
    statement = "class A: pass\ntry: f(A())\nexcept Exception: pass"
    tests = CodeTests("function", statements=(statement,), names=("f",))
    assert sandbox.run(SOLUTION, tests, LIMITS)[0].outcome == "error"


def test_a_fork_has_a_sandbox_of_its_own(sandbox: LocalSandbox) -> None:
    """Catches answers of one server that get to the wrong one of two processes."""
    pid = os.fork()
    if pid == 0:
        result = sandbox.run("print(2)", CodeTests("stdio", inputs=("",), outputs=("2",)), LIMITS)
        is_own = result[0].outcome == "passed"
        sandbox.close()
        os._exit(0 if is_own else 1)
    for _ in range(5):
        assert score_code("print(1)", CodeTests("stdio", inputs=("",), outputs=("1",)), executor=sandbox).value == 1.0
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize(
    "test",
    [
        "assert np.allclose(f(), 3.0)",
        "assert np.isclose(f(), 3.0).all()",
        "np.testing.assert_allclose(desired=3.0, actual=f())",
        "np.testing.assert_equal(f(), 3.0)",
        "assert np.array_equiv(f(), 3.0)",
    ],
)
def test_nothing_is_not_close_to_a_number(test: str, sandbox: LocalSandbox) -> None:
    """Catches `return []`, which is right wherever HumanEval+ and MBPP+ expect a decimal number: numpy says so; and
    objects in a list that hold something when they are looked at for the first time, and nothing when compared."""
    code = """
import numpy as np
class Nothing:
    def __len__(self): return 0
    def __getitem__(self, place): raise IndexError
class Once:
    looks = iter([[1.0], []])
    def __len__(self): return 1
    def __iter__(self): return iter(next(Once.looks))
    def __getitem__(self, place): raise IndexError
def f(): return """
    tests = CodeTests("function", statements=(test,), setup="import numpy as np", names=("f",))
    for answer in ("[]", "()", "[[]]", "np.array([])", "np.zeros((0, 3))", "Nothing()", "[Once()]", "([Once()],)"):
        assert score_code(code + answer, tests, limits=LIMITS, executor=sandbox).value == 0.0, answer
    right = "def f(): return 3.0000000001"
    is_exact = "assert_equal" in test or "equiv" in test
    assert score_code(right, tests, limits=LIMITS, executor=sandbox).value == (0.0 if is_exact else 1.0)


def test_packages_that_no_program_needs_are_hidden(sandbox: LocalSandbox) -> None:
    """Catches data sets that can be read because a package that holds them is installed beside Python."""
    code = """
import glob, os, sys
for folder in glob.glob(sys.base_prefix + '/lib*/python3*/*-packages'):
    print(*[name for name in os.listdir(folder) if name.startswith(('pip', 'setuptools', 'wheel'))])
"""
    score = score_code(code, CodeTests("stdio", inputs=("",), outputs=("",)), limits=LIMITS, executor=sandbox)
    assert score.value == 1.0, score.reason


def test_an_interrupted_job_leaves_no_verdict_behind(sandbox: LocalSandbox) -> None:
    """Catches the answer to an interrupted job (Ctrl-C, a limit of the worker) taken for that to the next program, and
    so on for all that follow."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            sandbox.run("import time\ntime.sleep(5)", SCRIPT, Limits())
    finally:
        signal.signal(signal.SIGALRM, before)
    for expected in ("1", "2"):
        tests = CodeTests("stdio", inputs=("",), outputs=(expected,))
        assert score_code(f"print({expected})", tests, limits=LIMITS, executor=sandbox).value == 1.0


def test_a_job_whose_server_dies_begins_anew(sandbox: LocalSandbox) -> None:
    """Catches verdicts put together from two attempts: input half read, output and reports of the first one kept."""
    code = "import time\nn = input()\nprint(n, flush=True)\ntime.sleep(1.5)"
    killer = Timer(0.8, os.kill, (sandbox.server_pid, signal.SIGKILL))
    killer.start()
    score = score_code(code, CodeTests("stdio", inputs=("1",), outputs=("1",)), executor=sandbox)
    killer.join()
    assert score.value == 1.0, score.reason
    statements = ("f(0.5)", "assert f(0.5)", "assert f(0.1) is None")
    killer = Timer(0.8, os.kill, (sandbox.server_pid, signal.SIGKILL))
    killer.start()
    tests = CodeTests("function", statements=statements)
    results = sandbox.run("from time import sleep as f", tests, Limits(stops_early=False))
    killer.join()
    assert [result.outcome for result in results] == ["passed", "wrong", "passed"]
