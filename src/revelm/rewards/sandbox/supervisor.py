"""One job: starts the processes of a program, watches what they use, and leaves none of them behind.

The supervisor is outside of what it watches, holds no test, and runs nothing of the program itself.
"""

import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from revelm.rewards.sandbox import program, syscalls, tester
from revelm.rewards.sandbox.confine import Place, become_nobody, separate
from revelm.rewards.sandbox.leftovers import clear
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.usage import Tally, Use, folder_use, kill_others, kill_tree, process_seconds, tree_use

_TICK = 0.1  # seconds between looks at all processes of a job
_START = 30.0  # wall clock seconds for a process to begin
_GOODBYE = 1.0  # and to end, once it has hung up
_MOST_FILES = 4096


@dataclass(frozen=True)
class Job:
    """What is to be run. ``fresh``: words that start a new interpreter, or none.

    Descriptors: ``code``; for a script ``files``: its standard input, output and error; for tests ``tests`` and
    ``report``.
    """

    kind: str
    limits: Limits
    fresh: tuple[str, ...]
    descriptors: tuple[int, ...]


@dataclass
class _Running:
    """A started program. ``budget``: CPU seconds at which its time is over; ``deadline``: by the wall clock.

    ``others``: CPU seconds of its children, by ``tally``, as of the last look at all processes, ``looked``.
    """

    pid: int
    handle: int
    budget: float
    deadline: float
    looked: float
    others: float = 0.0
    tally: Tally = field(default_factory=Tally)
    verdict: str = ""
    seconds: float = 0.0
    status: int | None = None


class Supervisor:
    """The processes of one job."""

    def __init__(self, job: Job, place: Place) -> None:
        """Separates this process from the server's other jobs. Raises OSError."""
        self._job = job
        self._began = time.monotonic()
        self._place = separate(place, job.limits)
        self._init = 0

    def run(self) -> dict[str, Any]:
        """Run the job; returns what is to be told of it. All its processes are gone then."""
        try:
            return self._run_script() if self._job.kind == "script" else self._run_tests()
        finally:
            kill_tree(self._place, self._init)
            if self._place.isolation == "weak":
                clear(Path(self._place.folder))

    def _run_script(self) -> dict[str, Any]:
        self._init = self._fork(_wait_for_ever, keeps=(), is_tests=True)
        running = self._start("script", None)
        while not self._is_over(running):
            _wait([running.handle], self._pause(running))
        wall = time.monotonic() - self._began
        return {"status": running.status, "verdict": running.verdict, "seconds": running.seconds, "wall": wall}

    def _run_tests(self) -> dict[str, Any]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _, tests, report = self._job.descriptors
        self._init = self._fork(
            lambda: tester.main(tests, report, theirs.fileno()), keeps=(tests, report, theirs.fileno()), is_tests=True
        )
        theirs.close()
        handle = os.pidfd_open(self._init)
        running: _Running | None = None
        while (left := self._left()) > 0:
            active = running is not None and running.status is None
            pause = min(left, self._pause(running)) if active and running else left
            ready = _wait([ours.fileno(), handle, *([running.handle] if active and running else [])], pause)
            if active and running:
                self._is_over(running)
            if ours.fileno() in ready and (word := ours.recv(16)):
                running = self._serve(word, ours, running)
            elif {ours.fileno(), handle} & set(ready):
                return {"verdict": ""}
        return {
            "verdict": "timed out",
            "detail": f"all tests together took more than {self._job.limits.total_seconds} s",
        }

    def _serve(self, word: bytes, control: socket.socket, running: _Running | None) -> _Running | None:
        """Do what the tests ask for."""
        if word == b"start":
            if running is not None:
                self._end(running, "")
            ours, theirs = socket.socketpair()
            running = self._start("service", ours)
            ours.close()
            socket.send_fds(control, [b"program"], [theirs.fileno()])
            theirs.close()
        elif word == b"test" and running is not None and running.status is None:
            self._renew(running)
        elif word == b"why" and running is not None:
            if not self._is_over(running):
                _wait([running.handle], _GOODBYE)
            if not self._is_over(running):
                self._end(running, "exit\nthe program hung up")
            control.send("\n".join(described(running.status, running.verdict)).encode())
        return running

    def _start(self, kind: str, channel: socket.socket | None) -> _Running:
        listen, ready = os.pipe()
        code = self._job.descriptors[0]
        peer = -1 if channel is None else channel.fileno()
        files = self._job.descriptors[1:] if kind == "script" else ()

        def run() -> NoReturn:
            _set_streams(files)
            words = [str(number) for number in (code, peer, ready)]
            if self._job.fresh:
                for descriptor in (code, ready, *([peer] if channel else [])):
                    os.set_inheritable(descriptor, True)
                os.execve(self._job.fresh[0], [*self._job.fresh, kind, *words], {"PYTHONHASHSEED": "0"})
            program.main(kind, code, peer, ready)

        keeps = (code, ready, *([peer] if channel else []), *files)
        pid = self._fork(run, keeps=keeps, is_tests=False)
        os.close(ready)
        _wait([listen], min(_START, self._left()))
        os.close(listen)
        running = _Running(pid, os.pidfd_open(pid), 0.0, 0.0, looked=time.monotonic())
        self._renew(running)
        return running

    def _renew(self, running: _Running) -> None:
        """Begin a test: its CPU time and its wall clock time."""
        running.budget = process_seconds(running.pid) + running.others + self._job.limits.seconds
        wall = max(1.0, self._job.limits.seconds) * self._job.limits.wall_factor
        running.deadline = time.monotonic() + min(wall, self._left())

    def _left(self) -> float:
        return self._began + self._job.limits.total_seconds - time.monotonic()

    def _pause(self, running: _Running) -> float:
        """Until the next look: no test can be over its time sooner, and all processes are looked at now and then."""
        soonest = running.budget - process_seconds(running.pid) - running.others
        return max(0.002, min(soonest, _TICK, running.deadline - time.monotonic()))

    def _is_over(self, running: _Running) -> bool:
        """Whether a program has ended, or is ended now for using too much. What it has started ends with it."""
        if running.status is not None:
            return True
        too_slow = f"timed out\n{self._job.limits.seconds:g} s of CPU time"
        found, status, used = os.wait4(running.pid, os.WNOHANG)
        if found:
            running.status, running.seconds = status, used.ru_utime + used.ru_stime
            running.verdict = too_slow if running.seconds >= running.budget else ""
            self._end_children()
            return True
        now = time.monotonic()
        seconds = process_seconds(running.pid)
        if now - running.looked > _TICK:
            running.looked = now
            use = tree_use(self._place, self._init, running.tally)
            running.others = max(running.others, use.seconds - seconds)
            if verdict := self._excess(use):
                return self._end(running, verdict)
        if seconds + running.others >= running.budget:
            return self._end(running, too_slow)
        if now >= running.deadline:
            return self._end(running, "timed out\nby the wall clock")
        return False

    def _excess(self, use: Use) -> str:
        """The verdict on a program that uses too much; empty for one that does not."""
        limits = self._job.limits
        if self._place.shares_user and use.threads > limits.processes:  # the kernel counts the user's others as well
            return f"killed\nmore than {limits.processes} processes and threads at once"
        if use.memory > limits.memory_mb * 2**20:
            return "memory\nall processes together"
        if self._place.isolation == "weak":
            size, number = folder_use(self._place.folder, _MOST_FILES)
            if size > 2 * limits.file_mb * 2**20 or number > _MOST_FILES:
                return f"output\nmore than {2 * limits.file_mb} MB or {_MOST_FILES} files"
        return ""

    def _end(self, running: _Running, verdict: str) -> bool:
        if running.status is None:
            os.kill(running.pid, signal.SIGKILL)
            _, running.status, use = os.wait4(running.pid, 0)
            running.verdict, running.seconds = verdict, use.ru_utime + use.ru_stime
            self._end_children()
        os.close(running.handle) if running.handle >= 0 else None
        running.handle = -1
        return True

    def _end_children(self) -> None:
        """What a program leaves behind could go on in its place, with no limits: only the tests are to stay."""
        if self._job.kind == "tests":
            kill_others(self._place, self._init)

    def _fork(self, run: Any, *, keeps: tuple[int, ...], is_tests: bool) -> int:
        """A process without privileges that has ``keeps`` and its standard streams open, nothing else."""
        pid = os.fork()
        if pid:
            return pid
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which a supervisor is told that its server has ended
            _close_but((*keeps, self._place.wall) if self._place.wall >= 0 else keeps)
            if is_tests:
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the first process of a job is the parent of orphans
            become_nobody(self._place, self._job.limits, is_tests=is_tests)
            run()
        except BaseException:  # noqa: BLE001 - nothing of this process may run on as a copy of the supervisor
            os._exit(70)
        os._exit(0)


def described(status: int | None, verdict: str) -> tuple[str, str]:
    """Outcome and detail of a program that has ended: ``status`` as of wait(2), ``verdict`` if it was made to end."""
    if verdict:
        outcome, _, detail = verdict.partition("\n")
        return outcome, detail
    if status is None:
        return "error", "the program's end was not seen"
    if os.WIFSIGNALED(status):
        return "killed", f"signal {os.WTERMSIG(status)} ({signal.Signals(os.WTERMSIG(status)).name})"
    return "exit", f"exit status {os.WEXITSTATUS(status)}"


def _wait_for_ever() -> None:
    while True:
        signal.pause()


def _wait(descriptors: list[int], seconds: float) -> list[int]:
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poller.poll(max(0.0, seconds) * 1000)]


def _set_streams(files: tuple[int, ...]) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for number, descriptor in enumerate(files or (null, null, null)):
        os.dup2(descriptor, number)
    for descriptor in {null, *files}:
        if descriptor > 2:
            os.close(descriptor)


def _close_but(keeps: tuple[int, ...]) -> None:
    last = 2
    for descriptor in sorted(keeps):
        os.closerange(last + 1, descriptor)
        last = max(last, descriptor)
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))
    sys.stdin = sys.stdout = sys.stderr = None
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
