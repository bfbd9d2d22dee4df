"""Whatever ends a process that has reward workers, they and what they started are gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600.0
PRELUDE = """\
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background may have been told to ignore it
from revelm.core.types import Completion, Problem
from revelm.rollout.workers import ScorePool, shared_pool
from tests.guarded_tasks import Obedient

def items(*texts):
    return [(Problem(f"p{i}", "", "x"), Completion(text, 1, 1, "stop")) for i, text in enumerate(texts)]

def pids(pool):
    return " ".join(str(worker.pid) for worker in pool._workers)
"""


def start(script: str) -> subprocess.Popen[str]:
    """A process that runs ``script`` behind the prelude."""
    words = [sys.executable, "-c", PRELUDE + script]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, cwd=ROOT, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes)


def is_alive(pid: int) -> bool:
    """Whether a process runs, other than as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def assert_gone(pids: list[int]) -> None:
    """All of them end within seconds."""
    end = time.monotonic() + PATIENCE
    while any(map(is_alive, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    left = [pid for pid in pids if is_alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def appears(file: Path) -> list[int]:
    """The process ids that a verdict writes into ``file``, its own and its child's."""
    end = time.monotonic() + PATIENCE
    while not (file.exists() and len(file.read_text().split()) == 2):
        assert time.monotonic() < end
        time.sleep(0.02)
    return [int(word) for word in file.read_text().split()]


ENDINGS = {
    "close": "pool.close(); pool.close(); time.sleep(0.1); print('closed', flush=True); time.sleep(600)",
    "exit": "sys.exit(3)",
    "error": "raise KeyError('bug')",
    "forgotten": "del pool; print('closed', flush=True); time.sleep(600)",
    "hard exit": "os._exit(0)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_idle_workers_end_with_their_pool(ending: str) -> None:
    """Catches workers that wait for ever for a parent that has closed its pool, dropped it, or ended."""
    script = "pool = ScorePool(2)\npool.score(Obedient(), items('x', 'x'))\nprint(pids(pool), flush=True)\n"
    parent = start(script + ENDINGS[ending])
    try:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        if ending in ("close", "forgotten"):
            assert parent.stdout.readline() == "closed\n"
        else:
            parent.wait(PATIENCE)
        assert_gone(workers)
    finally:
        parent.kill()
        errors = parent.communicate()[1]
    assert ("bug" in errors) == (ending == "error")
    assert ending == "error" or not errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_busy_workers_end_with_their_parent(number: signal.Signals, tmp_path: Path) -> None:
    """Catches workers that outlive Ctrl-C or kill -9, busy in C code or asleep; and after Ctrl-C, their children."""
    file = tmp_path / "pids"
    regex = "regex"  # does not return to the interpreter, nor does it let other threads run
    parent = start(f"ScorePool(2).score(Obedient(900), items('{regex}', 'child {file}', 'x'))")
    try:
        busy = appears(file)
        children = Path(f"/proc/{parent.pid}/task").glob("*/children")
        workers = [int(pid) for file in children for pid in file.read_text().split()]
        assert len(workers) == 2
        assert busy[0] in workers
        parent.send_signal(number)
        parent.wait(PATIENCE)
        # A process killed by force has no time for its children; those of sandboxes look after themselves.
        assert_gone(workers + busy[1:] if number is signal.SIGINT else workers)
    finally:
        parent.kill()
        for pid in busy:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        errors = parent.communicate()[1]
    assert ("KeyboardInterrupt" in errors) == (number is signal.SIGINT)
    assert errors.count("Traceback") == (number is signal.SIGINT)


def test_time_that_is_up_ends_children(tmp_path: Path) -> None:
    """Catches a program that runs on when its verdict is no longer waited for."""
    file = tmp_path / "pids"
    script = f"with ScorePool(1) as pool: print(pool.score(Obedient(0.2), items('child {file}'))[0].reason)"
    assert start(script).communicate(timeout=PATIENCE)[0] == "error: no verdict after 2 s\n"
    assert_gone(appears(file))


def test_workers_do_not_depend_on_the_thread_that_asks() -> None:
    """Catches workers that are killed when the thread that made them ends, which Linux takes for their parent."""
    script = """
pool = ScorePool(1)
found = []
for _ in range(2):
    thread = threading.Thread(target=lambda: found.append(pool.score(Obedient(), items("x"))[0].breakdown["pid"]))
    thread.start()
    thread.join()
    time.sleep(0.1)
print(len(found), len(set(found)))
"""
    assert start(script).communicate(timeout=PATIENCE) == ("2 1\n", "")


def test_forks_have_pools_of_their_own() -> None:
    """Catches a forked process (a data loader) that talks to its parent's workers, or ends them when it exits."""
    script = """
pool = shared_pool()
first = pool.score(Obedient(), items("x"))[0].breakdown["pid"]
if os.fork() == 0:
    try:
        pool.score(Obedient(), items("x"))
    except RuntimeError as error:
        print(error, flush=True)
    own = shared_pool().score(Obedient(), items("x"))[0].breakdown["pid"]
    print(own != first, flush=True)
    sys.exit()
os.wait()
print(pool.score(Obedient(), items("x"))[0].breakdown["pid"] == first)
"""
    said, errors = start(script).communicate(timeout=PATIENCE)
    belongs = "this pool belongs to the process that made it; after a fork use shared_pool()"
    assert said.splitlines() == [belongs, "True", "True"]
    assert errors == ""


def test_tasks_of_a_script(tmp_path: Path) -> None:
    """Catches workers that run the user's script again, and a task of it that fails without a remedy."""
    script = """
print("once")
class Mine(Obedient):
    pass
try:
    shared_pool().score(Mine(), items("x"))
except ValueError as error:
    print(error)
"""
    file = tmp_path / "script.py"
    file.write_text(PRELUDE + script, encoding="utf-8")
    words = {"capture_output": True, "text": True, "cwd": ROOT, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
    done = subprocess.run([sys.executable, file], check=True, **words)
    once, error = done.stdout.splitlines()
    assert once == "once"
    assert "task 'obedient': cannot be used in the worker processes" in error
    assert "Can't get attribute 'Mine'" in error
    assert "not in a script or notebook" in error
