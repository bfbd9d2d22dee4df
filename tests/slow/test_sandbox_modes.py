"""The sandbox as root and as an ordinary user, with namespaces and without."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from revelm.rewards.sandbox.landlock import version
from tests.hostile_aims import FILTERED
from tests.ordinary_user import run_as_user
from tests.sandbox_traces import traces

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sandbox")]
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 1200.0


def audited(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def audited_as_user(*words: str) -> dict[str, Any]:
    try:
        return audited(run_as_user("-m", "tests.sandbox_audit", *words, timeout=PATIENCE))
    except RuntimeError as reason:
        pytest.skip(str(reason))


def check(found: dict[str, Any], *, num_programs: int, counts_processes: bool) -> None:
    """Nothing has scored, broken or harmed anything, or is left. ``counts_processes``: the kernel does, as a limit."""
    assert found["programs"] >= num_programs
    assert (found["scored"], found["broken"], found["harmed"]) == ([], [], {})
    assert (found["right"], found["left"], found["folders"]) == (1.0, [], [])
    if counts_processes:
        assert found["forks"] == "1 of 1 tests passed"
    else:
        assert found["forks"] == "test 1 of 1: killed: more than 8 processes and threads at once"


def test_as_this_user() -> None:
    """Catches a limit that root is exempt from (RLIMIT_NPROC), and holes that open without namespaces."""
    before = traces()
    done = subprocess.run(
        [sys.executable, "-m", "tests.sandbox_audit", "both" if version() else "namespaces"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    for isolation, found in audited(done).items():
        check(found, num_programs=120, counts_processes=isolation == "namespaces" or os.geteuid() == 0)
    assert traces() == before


def test_as_an_ordinary_user() -> None:
    """Catches a sandbox that needs root, a process limit that counts the user's other processes or none at all."""
    before = traces()
    for isolation, found in audited_as_user("both" if version() else "namespaces").items():
        check(found, num_programs=120, counts_processes=isolation == "namespaces")
        assert found["uid"] != 0
    assert traces() == before


@pytest.mark.parametrize("landlock", [0, 2])
def test_on_kernels_with_less_of_landlock(landlock: int) -> None:
    """Catches rights that an older kernel does not know and nothing else refuses, and a kernel that is asked for them:
    signals before version 6 (Linux 6.12), files cut short before version 3 (6.2), all of it where there is none."""
    if not version():
        pytest.skip("no Landlock here")
    found = audited_as_user("weak", str(landlock), "aimed")["weak"]
    assert found["landlock"] == landlock
    check(found, num_programs=40 if landlock else len(FILTERED), counts_processes=False)


ORPHAN = f"orphan-{os.getpid()}"
KILLED = f"""
import sys
from revelm.rewards.code_tests import CodeTests
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.local import LocalSandbox
code = '''
import ctypes, os, time
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    ctypes.CDLL(None).prctl(15, b"{ORPHAN}", 0, 0, 0)
time.sleep(30)
'''
sandbox = LocalSandbox(isolation=sys.argv[1])
print("ready", sandbox.server_pid, sandbox.folder, flush=True)
sandbox.run(code, CodeTests("stdio", inputs=("",), outputs=("",)), Limits(seconds=3))
"""


def orphans() -> int:
    names = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            names.append(path.read_text().strip())
    return names.count(ORPHAN)


def waited(expected: int) -> int:
    """How many there are, once there are ``expected`` or it hangs."""
    end = time.monotonic() + PATIENCE
    while orphans() != expected and time.monotonic() < end:
        time.sleep(0.1)
    return orphans()


@pytest.mark.parametrize("kills_server", [False, True])
@pytest.mark.parametrize("isolation", ["namespaces", "weak"])
def test_nothing_outlives_a_run_that_is_killed(isolation: str, kills_server: bool) -> None:
    """Catches processes and folders of programs that stay when the one who wanted a verdict is gone, or the server."""
    with subprocess.Popen([sys.executable, "-c", KILLED, isolation], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        ready, server, *folder = run.stdout.readline().split()
        assert ready == "ready"
        assert waited(1) == 1
        if kills_server:
            run.send_signal(signal.SIGSTOP)  # who would have the program run again
            os.kill(int(server), signal.SIGKILL)
            left = waited(0)
        run.kill()
        assert not kills_server or left == 0
    assert waited(0) == 0
    end = time.monotonic() + PATIENCE
    while any(map(os.path.exists, folder)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(os.path.exists, folder))
