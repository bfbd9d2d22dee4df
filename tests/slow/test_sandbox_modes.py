"""The sandbox as root and as an ordinary user, with namespaces and without."""

import json
import os
import subprocess
import sys
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
