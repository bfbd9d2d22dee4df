"""The sandbox of this machine, seen from the process that wants programs judged.

A program meets up to four processes: the **server** (pre-imported, locked in, one per sandbox), and for each job a
**supervisor** that watches, **tests** that hold what is expected, and the **program**. What a script should print never
enters the sandbox: what it did print comes back and is compared here.
"""

import atexit
import json
import logging
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from threading import Lock
from typing import Any, Literal

from revelm.rewards.code_tests import CodeTests, TestResult
from revelm.rewards.sandbox.confine import Isolation
from revelm.rewards.sandbox.landlock import LATEST
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.server_process import ServerProcess, what_is_open
from revelm.rewards.sandbox.supervisor import described
from revelm.rewards.sandbox.visible import visible
from revelm.rewards.stdout_match import Matching, is_same_output

_LOG = logging.getLogger(__name__)
_BOOT = "import sys; sys.path[:0] = {path!r}; from revelm.rewards.sandbox.program import fresh; fresh(sys.argv[1:])"
_NUM_READ = 2  # of a job's descriptors: the program, and its input or its tests
_GRACE = 60.0  # seconds beyond a job's own limit after which the server itself counts as broken

Start = Literal["fork", "fresh"]


class LocalSandbox:
    """An `Executor` on this machine; one job at a time, other threads wait.

    ``isolation`` None: the strongest that the kernel allows, with a warning where that is the weaker mode. ``start``:
    programs are forks of a server that has imported the usual modules, or each a fresh interpreter (slower).
    ``landlock``: the newest version of Landlock to be used, 0 for none; an older kernel knows less of it. The attribute
    is the version in use; ``folder``: what programs may write in, in the weaker mode.
    """

    def __init__(self, *, isolation: Isolation | None = None, start: Start = "fork", landlock: int = LATEST) -> None:
        """Starts the server. RuntimeError where ``isolation`` is not to be had."""
        self._wanted = isolation
        self._start = start
        self._most_landlock = landlock
        self._paths = visible()
        self._lock = Lock()
        self._owner = os.getpid()
        self._server = ServerProcess()
        try:
            self.isolation: Isolation = self._open()
        except BaseException:  # nobody has this object, who could close it
            self.close()
            raise

    def run(self, code: str, tests: CodeTests, limits: Limits) -> tuple[TestResult, ...]:
        """See `Executor`."""
        if self._owner != os.getpid():
            self._disown()
        used = limits if tests.seconds is None else replace(limits, seconds=tests.seconds)
        source = tests.source(code)
        with self._lock, _Files() as files:
            program = files.new("code", source.encode("utf-8", "surrogatepass"))
            if tests.method == "stdio":
                return self._scripts(program, tests, used, files)
            return self._tested(program, tests, used, files)

    @property
    def server_pid(self) -> int:
        """The process number of the server; 0 when there is none."""
        return self._server.pid

    @property
    def landlock(self) -> int:
        """The version of Landlock in use."""
        return self._server.landlock

    @property
    def folder(self) -> str:
        """What programs may write in."""
        return self._server.folder

    def close(self) -> None:
        """End the server."""
        self._server.close()

    def _disown(self) -> None:
        """In a fork of the process that has started the server, whose answers are for that process alone."""
        self._owner, self._lock = os.getpid(), Lock()
        self._server.disown()

    def _scripts(self, program: int, tests: CodeTests, limits: Limits, files: "_Files") -> tuple[TestResult, ...]:
        results: list[TestResult] = []
        left = limits.total_seconds
        for given, expected in zip(tests.inputs, tests.outputs, strict=True):
            if left <= 0 or (limits.stops_early and results and results[-1].outcome != "passed"):
                results.append(TestResult("not run"))
                continue
            streams = [files.new("stdin", given.encode("utf-8", "surrogatepass")), files.new("out"), files.new("err")]
            part = replace(limits, total_seconds=left)
            answer = self._ask("script", part, [program, *streams])
            results.append(_script_result(answer, expected, streams[1:], limits, matching=tests.matching))
            left -= float(answer.get("wall", 0.0))
            for stream in streams:
                files.drop(stream)
        return tuple(results)

    def _tested(self, program: int, tests: CodeTests, limits: Limits, files: "_Files") -> tuple[TestResult, ...]:
        spec = {**asdict(tests), "stops_early": limits.stops_early}
        held = files.new("tests", json.dumps(spec).encode())
        report = files.new("report")
        answer = self._ask("tests", limits, [program, held, report])
        lines = _content(report).decode("utf-8", "replace").splitlines()
        results = [TestResult(*json.loads(line)) for line in lines][: tests.num_tests]
        is_whole = len(results) == tests.num_tests or (
            limits.stops_early and results and results[-1].outcome != "passed"
        )
        if not is_whole:
            broke_off = "error\nthe process of the tests broke off"
            outcome, detail = described(None, answer.get("verdict") or broke_off)
            results.append(TestResult(outcome, answer.get("detail", detail)))  # type: ignore[arg-type]
        results += [TestResult("not run")] * (tests.num_tests - len(results))
        return tuple(results[: tests.num_tests])

    def _ask(self, kind: str, limits: Limits, descriptors: Sequence[int]) -> dict[str, Any]:
        """The server's answer; a server that is gone is started again, once. ``descriptors``: two to read, the rest to
        be written."""
        fresh = self._fresh_words() if self._start == "fresh" else []
        request = json.dumps({"kind": kind, "limits": asdict(limits), "fresh": fresh}).encode()
        for _ in range(2):
            if self._server.channel is None:
                self._open()
            channel = self._server.channel
            assert channel is not None
            channel.settimeout(limits.total_seconds + _GRACE)
            _rewind(descriptors)
            try:
                socket.send_fds(channel, [request], list(descriptors))
                answer = channel.recv(65536)
            except OSError:
                answer = b""
            except BaseException:  # an interrupt: the answer to this would be taken for the next one's
                self.close()
                raise
            if answer:
                return dict(json.loads(answer))
            self.close()
        return {"verdict": "error\nthe sandbox's server died twice"}

    def _open(self) -> Isolation:
        wanted: tuple[Isolation, ...] = ("namespaces", "weak") if self._wanted is None else (self._wanted,)
        refused = ""
        for isolation in wanted:
            because, refused = refused, self._server.start(isolation, self._paths, landlock=self._most_landlock)
            if not refused:
                if isolation == "weak" and self._wanted is None:
                    _LOG.warning(
                        "the kernel refuses namespaces (%s): programs run in the weaker mode, under limits and a "
                        "filter of system calls, %s",
                        because,
                        what_is_open(self.landlock, is_root=os.geteuid() == 0),
                    )
                return isolation
        raise RuntimeError(f"no sandbox of isolation {self._wanted or 'namespaces or weak'} here: {refused}")

    def _fresh_words(self) -> list[str]:
        python = sys._base_executable  # type: ignore[attr-defined]  # in a virtual environment too
        return [os.path.realpath(python), "-s", "-P", "-S", "-c", _BOOT.format(path=self._paths["path"])]


def local_executor() -> LocalSandbox:
    """The sandbox of this process, started on first use and ended with it."""
    return _executor_of(os.getpid())


@lru_cache(maxsize=1)
def _executor_of(pid: int) -> LocalSandbox:
    sandbox = LocalSandbox()
    atexit.register(sandbox.close)
    return sandbox


class _Files:
    """Anonymous files in memory, closed together."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    def new(self, name: str, content: bytes = b"") -> int:
        """A file with ``content``, its position at the beginning."""
        descriptor = os.memfd_create(name)
        self._open.add(descriptor)
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def drop(self, descriptor: int) -> None:
        """Close one now."""
        os.close(descriptor)
        self._open.remove(descriptor)


def _script_result(
    answer: dict[str, Any], expected: str, printed: Sequence[int], limits: Limits, *, matching: Matching
) -> TestResult:
    """The verdict on one run of a script; ``printed``: what went to its standard output and error."""
    out, err = printed
    seconds = float(answer.get("seconds", 0.0))
    outcome, detail = described(answer.get("status"), answer.get("verdict", ""))
    size = os.fstat(out).st_size
    if outcome in ("exit", "killed") and size >= max(limits.output_mb, limits.file_mb) * 2**20:
        return TestResult("output", f"more than {limits.output_mb} MB", seconds)
    if outcome == "exit" and answer.get("status") == 0:
        if is_same_output(expected, _content(out), matching=matching):
            return TestResult("passed", "", seconds)
        return TestResult("wrong", _difference(expected, out), seconds)
    if outcome == "exit":
        last = _content(err, 65536).decode("utf-8", "replace").strip().rpartition("\n")[2]
        kind = "memory" if last.startswith("MemoryError") else "exception"
        return TestResult(kind, last[:200] or detail, seconds)  # type: ignore[arg-type]
    return TestResult(outcome, detail, seconds)  # type: ignore[arg-type]


def _difference(expected: str, out: int) -> str:
    printed = _content(out, 200).decode("utf-8", "replace")
    return f"printed {printed[:80]!r} instead of {expected[:80]!r}"


def _rewind(descriptors: Sequence[int]) -> None:
    """To the beginning, the written ones emptied: a server that died may have begun the job."""
    for descriptor in descriptors:
        os.lseek(descriptor, 0, os.SEEK_SET)
    for descriptor in descriptors[_NUM_READ:]:
        os.ftruncate(descriptor, 0)


def _content(descriptor: int, most: int | None = None) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size if most is None else min(size, most), 0)
