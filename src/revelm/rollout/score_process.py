"""One worker process that judges answers (``revelm.rewards.score_worker``), seen from the process that owns it.

It runs in a session of its own: Ctrl-C does not reach it, and it is ended together with what it started. It dies with
the thread that started it, so that thread has to live on.
"""

import json
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from revelm.rewards.score_worker import OUT_OF_MEMORY

GRACE = 2.0  # seconds that a worker has to close what it opened
_PATIENCE = 20  # milliseconds that a worker which reads has to go on with it
_LARGEST = 0x7FFFFFFF  # bytes of a message with a short header
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[4]); from revelm.rewards.score_worker import main; "
    "main(*map(int, sys.argv[1:4]))"
)
# One thread each, and the same order of sets in every process.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


class ScoreProcess:
    """A worker and what it is doing. Raises OSError when no process can be started.

    ``places``: of the items it was given and has not judged, the present one first. ``cpu``: its CPU time in ns when it
    began that one, None until it has begun; ``since``: the time in s of ``time.monotonic``.
    """

    def __init__(self, memory_mb: int) -> None:
        mine, theirs = socket.socketpair()
        with theirs:
            words = [
                str(theirs.fileno()),
                str(os.getpid()),
                str(memory_mb),
                json.dumps([str(place) for place in sys.path]),
            ]
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _START, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=os.environ | _ENVIRONMENT,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError:
                mine.close()
                raise
        self._socket = mine
        self.connection = Connection(os.dup(mine.fileno()), writable=False)
        self._unsent, self._room = memoryview(b""), select.poll()
        self._room.register(mine, select.POLLOUT)
        self.pid = self._process.pid
        self.places: deque[int] = deque()
        self.cpu: int | None = None
        self.since = time.monotonic()
        self._task: bytes | None = None

    def give(self, task: bytes, is_warmed: bool, items: Sequence[tuple[int, bytes]]) -> None:
        """Hand over items, each with its place, as far as the worker takes them. OSError when it is gone."""
        self.places.extend(place for place, _ in items)
        self.cpu, self.since = None, time.monotonic()
        messages = [_framed("items", [item for _, item in items])]
        if task != self._task:
            self._task = task
            messages.insert(0, _framed("task", task, is_warmed))
        self._unsent = memoryview(b"".join([self._unsent, *messages]))
        self.send()

    def send(self) -> None:
        """Hand over what it has not got yet. Does not wait for a worker that reads nothing: one that loads its
        libraries does so for seconds. OSError when it is gone."""
        with suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent, socket.MSG_DONTWAIT) :]
                if self._unsent:
                    self._room.poll(_PATIENCE)

    def receive(self) -> dict[str, Any]:
        """The next message. EOFError or OSError when the worker is gone."""
        return json.loads(self.connection.recv_bytes())

    def cpu_now(self) -> int:
        """The CPU time in ns that it has used, without its children; 0 when it is gone."""
        with suppress(OSError):
            return time.clock_gettime_ns((~self.pid << 3) | 2)  # the clock CPUCLOCK_SCHED of a process, see clock(3)
        return 0

    def has_ended(self) -> bool:
        """Whether the process is over. It stays known to the system until ``end``, and so does its process group."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # somebody else waited for it
            return True

    def ask_to_end(self) -> None:
        """Ask a worker that is busy to close what it opened and to end."""
        self._signal(signal.SIGTERM)

    def hang_up(self) -> None:
        """Close the channel: it ends when it has nothing to do."""
        self.connection.close()
        self._socket.close()

    def end(self, until: float) -> str:
        """End it and whatever it started, by force from the time ``until`` on; how it ended. May be called again."""
        self.hang_up()
        while not self.has_ended() and time.monotonic() < until:
            time.sleep(0.005)
        self._signal(signal.SIGKILL)
        return _ending(self._process.wait())

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:  # later its number may be another's
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)


def end_all(workers: Sequence[ScoreProcess], *, grace: float = GRACE) -> None:
    """End workers together; those that still hang after ``grace`` seconds, by force."""
    until = time.monotonic() + grace
    for worker in workers:
        worker.hang_up()
    for worker in workers:
        worker.end(until)


def _framed(*message: object) -> bytes:
    """A message as ``Connection.recv_bytes`` reads it."""
    content = pickle.dumps(message)
    size = len(content)
    return (struct.pack("!i", size) if size <= _LARGEST else struct.pack("!iQ", -1, size)) + content


def _ending(code: int) -> str:
    """A return code of ``subprocess`` in words."""
    if code == OUT_OF_MEMORY:
        return "out of memory"
    is_known = -code in set(signal.Signals)
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name if is_known else f"signal {-code}"
