"""The sandbox as root and as an ordinary user, with namespaces and without."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.ordinary_user import run_as_user
from tests.sandbox_traces import traces

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def audited(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


# Without namespaces and without a user of their own, programs see other processes and may kill their supervisor: that
# is an error, never a success. What they read there are other people's command lines; the tests are closed to them.
WEAK_SCORES = {"reads the tests from other processes", "imports the verifier"}
WEAK_ERRORS = {"kills its parent"}


def check(found: dict[str, Any], *, num_programs: int, has_process_limit: bool, is_weak: bool = False) -> None:
    assert found["programs"] >= num_programs
    assert set(found["scored"]) <= (WEAK_SCORES if is_weak else set())
    assert set(found["broken"]) <= (WEAK_ERRORS if is_weak else set())
    assert (found["right"], found["left"]) == (1.0, [])
    if has_process_limit:
        assert found["forks"] == "1 of 1 tests passed"


@pytest.mark.parametrize("isolation", ["namespaces", "weak"])
def test_as_this_user(isolation: str) -> None:
    """Catches a limit that root is exempt from (RLIMIT_NPROC), and holes that open without namespaces."""
    before = traces()
    done = subprocess.run(
        [sys.executable, "-m", "tests.sandbox_audit", isolation],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    is_limited = isolation == "namespaces" or os.geteuid() == 0
    is_weak = isolation == "weak"
    check(audited(done), num_programs=70 if is_weak else 80, has_process_limit=is_limited, is_weak=is_weak)
    assert traces() == before


@pytest.mark.parametrize("isolation", ["namespaces", "weak"])
def test_as_an_ordinary_user(isolation: str) -> None:
    """Catches a sandbox that needs root, a process limit that counts the user's other processes or none at all."""
    before = traces()
    try:
        done = run_as_user("-m", "tests.sandbox_audit", isolation, timeout=400)
    except RuntimeError as reason:
        pytest.skip(str(reason))
    found = audited(done)
    is_weak = isolation == "weak"
    check(found, num_programs=70 if is_weak else 80, has_process_limit=not is_weak, is_weak=is_weak)
    assert found["uid"] != 0
    assert traces() == before


KILLED = """
import sys
from revelm.rewards.code_tests import CodeTests
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.local import LocalSandbox
code = '''
import ctypes, os, time
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    ctypes.CDLL(None).prctl(15, b"revelm-orphan", 0, 0, 0)
time.sleep(30)
'''
sandbox = LocalSandbox(isolation=sys.argv[1])
print("ready", flush=True)
sandbox.run(code, CodeTests("stdio", inputs=("",), outputs=("",)), Limits(seconds=3))
"""


def orphans() -> int:
    names = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            names.append(path.read_text().strip())
    return names.count("revelm-orphan")


def waited(expected: int) -> int:
    """How many there are, once there are ``expected`` or 20 s have passed."""
    end = time.monotonic() + 20
    while orphans() != expected and time.monotonic() < end:
        time.sleep(0.1)
    return orphans()


@pytest.mark.parametrize("isolation", ["namespaces", "weak"])
def test_nothing_outlives_a_run_that_is_killed(isolation: str) -> None:
    """Catches processes of programs that stay when the one who wanted a verdict is gone."""
    with subprocess.Popen([sys.executable, "-c", KILLED, isolation], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        assert waited(1) == 1
        run.kill()
    assert waited(0) == 0
