"""The life of a worker process that judges answers: it gets a task, then answers to judge, and gives back scores.

It is started with nothing but a socket, so that it imports no torch and never runs its parent's main module again.
Messages are framed by ``multiprocessing.connection``. The parent sends pickles: ``("task", task, is_warmed)`` with the
task itself pickled once more, and ``("items", [item, ...])``, each a pickled (Problem, Completion). The worker answers
in JSON, which its parent can read without trusting it: one object when a list of items begins, one for each item. Each
has ``cpu``, the CPU time in ns that this process has used so far, and ``now``, the time in s of ``time.monotonic``, the
same clock in all processes: the differences are what the item took, however late the parent hears of it.

``{**clocks}`` items begin. ``{**clocks, "value": 1.0, "breakdown": {...}, "scope": "outcome", "reason": ""}`` a score.
``{**clocks, "other": "None"}`` the task gave something else; ``{**clocks, "raised": "TypeError: ..."}`` or raised.
``{"unusable": "..."}`` the task, or an item, cannot be unpickled here.

A worker ends when its parent closes the socket, or dies, or when memory runs out in a verdict.
"""

import ctypes
import json
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from revelm.core.types import Score

OUT_OF_MEMORY = 77  # exit code
_PR_SET_PDEATHSIG = 1


def main(channel: int, parent: int, memory_mb: int) -> None:
    """Serve the socket ``channel`` until it is closed. ``parent``: process id; ``memory_mb``: address space, 0: any."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    signal.signal(signal.SIGTERM, _leave)
    os.set_inheritable(channel, False)
    with suppress(OSError):
        os.dup2(2, 1)  # what verdicts print is not output of the parent
    if memory_mb:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = memory_mb << 20
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    serve(Connection(channel))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _leave(*_: object) -> None:
    """End in an orderly way, so that what verdicts opened (sandboxes, files) is closed; but only once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)


def serve(connection: Connection) -> None:
    """Judge what comes in until the other end is closed."""
    task: Any = None
    while True:
        try:
            kind, *content = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        try:
            if kind == "task":
                task = _ready_task(*content)
            else:
                _judge_all(connection, task, *content)
        except _UnusableError as error:
            _send(connection, {"unusable": str(error)})
        except MemoryError:
            sys.exit(OUT_OF_MEMORY)
        except ConnectionError:  # nobody listens any more
            return


class _UnusableError(Exception):
    """A task or an item that this process can do nothing with."""


def _ready_task(packed: bytes, is_warmed: bool) -> Any:
    task = _unpacked(packed)
    try:
        if is_warmed:
            task.warm_up()
    except MemoryError:
        raise
    except Exception as error:
        raise _UnusableError(f"warm_up raised {type(error).__name__}: {error}") from error
    return task


def _judge_all(connection: Connection, task: Any, packed: list[bytes]) -> None:
    _send(connection, _clocks())
    for item in packed:
        problem, completion = _unpacked(item)
        verdict = _judge(task, problem, completion)
        _send(connection, {**_clocks(), **verdict})


def _judge(task: Any, problem: Any, completion: Any) -> dict[str, Any]:
    try:
        score = task.score(problem, completion)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the parent names the task and the problem
        return {"raised": f"{type(error).__name__}: {error}"}
    if not isinstance(score, Score):
        return {"other": repr(score)}
    try:
        found = {"value": score.value, "breakdown": score.breakdown, "scope": score.scope, "reason": score.reason}
        return json.loads(json.dumps(found, default=_plain))
    except (TypeError, ValueError):  # a Score of things that are no numbers
        return {"other": repr(score)}


def _clocks() -> dict[str, float]:
    return {"cpu": time.process_time_ns(), "now": time.monotonic()}


def _unpacked(packed: bytes) -> Any:
    try:
        return pickle.loads(packed)
    except MemoryError:
        raise
    except Exception as error:
        raise _UnusableError(f"{type(error).__name__}: {error}") from error


def _send(connection: Connection, message: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(message).encode())


def _plain(value: Any) -> Any:
    """A number of numpy as one of Python; a mapping as a dictionary."""
    return dict(value) if isinstance(value, Mapping) else float(value)
