"""The fork server of a sandbox: has imported what programs import, is locked in, and runs one job after another.

Started by ``revelm.rewards.sandbox.local`` with one socket. A request is JSON and descriptors; the answer is JSON. The
server never sees a test: descriptors go on to the job's own processes. It ends when the other side does.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from revelm.rewards.sandbox.confine import Place, leave
from revelm.rewards.sandbox.leftovers import remove
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.supervisor import Job, Supervisor
from revelm.rewards.sandbox.syscalls import PR_SET_PDEATHSIG, prctl
from revelm.rewards.sandbox.usage import kill_tree

_IMPORTED = [
    "abc",
    "array",
    "ast",
    "bisect",
    "cmath",
    "collections",
    "copy",
    "csv",
    "ctypes",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "inspect",
    "io",
    "itertools",
    "json",
    "logging",
    "math",
    "numbers",
    "operator",
    "pprint",
    "queue",
    "random",
    "re",
    "statistics",
    "string",
    "struct",
    "textwrap",
    "threading",
    "time",
    "traceback",
    "types",
    "typing",
    "unicodedata",
    "uuid",
    "numpy",
    "numpy.testing",
]
_MAX_REQUEST = 65536


def main(descriptor: int, options: str) -> None:
    """Serve on the socket ``descriptor``. ``options``: JSON: ``isolation``, ``landlock``, ``folders``, ``path``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.executable = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]  # a virtual one is not shown
    channel = socket.socket(fileno=descriptor)
    given = json.loads(options)
    for name in _IMPORTED:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    try:
        place = leave(given["folders"], given["isolation"], most_landlock=given["landlock"])
    except OSError as error:
        channel.send(json.dumps({"refused": str(error)}).encode())
        return
    os.environ.clear()
    os.environb.clear()
    sys.path[:] = given["path"]
    gc.collect()
    gc.freeze()
    told = {"landlock": place.landlock, "folder": place.folder if place.isolation == "weak" else ""}
    with suppress(ConnectionError):  # whoever has started it was interrupted, and is gone
        channel.send(json.dumps(told).encode())
        _serve(channel, place)
    _end(place)


def _end(place: Place) -> NoReturn:
    if place.isolation == "weak":
        remove(Path(place.folder))
    os._exit(0)


def _serve(channel: socket.socket, place: Place) -> None:
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, _MAX_REQUEST, 8)
        if not request:
            return
        if place.isolation == "weak" and not Path(place.folder).is_dir():  # removed as old: begin anew
            return
        answer = _in_a_child(json.loads(request), descriptors, channel, place)
        for one in descriptors:
            os.close(one)
        channel.send(answer)


def _in_a_child(request: Any, descriptors: Sequence[int], channel: socket.socket, place: Place) -> bytes:
    """What a supervisor of its own says about one job. It is ended when nobody waits for its answer any more."""
    listen, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(listen)
        channel.close()
        _supervise(request, tuple(descriptors), tell, place)
    os.close(tell)
    answer = b""
    poller = select.poll()
    poller.register(listen, select.POLLIN)
    poller.register(channel.fileno(), select.POLLRDHUP | select.POLLHUP)
    while True:
        ready = [one for one, _ in poller.poll()]
        if listen in ready:
            part = os.read(listen, 65536)
            answer += part
            if not part:
                break
        elif ready:
            kill_tree(place, pid)
            _end(place)
    os.close(listen)
    os.waitpid(pid, 0)
    if not answer:
        kill_tree(place, 0)  # what a supervisor leaves that dies comes to this process
    return answer or json.dumps({"verdict": "error\nthe supervisor of the sandbox died"}).encode()


def _supervise(request: Any, descriptors: tuple[int, ...], tell: int, place: Place) -> None:
    def end(*_: object) -> NoReturn:
        if place.isolation == "weak":  # with namespaces all of a job ends with its first process
            kill_tree(place, 0)
            remove(Path(place.folder))
        os._exit(1)

    try:
        signal.signal(signal.SIGTERM, end)
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        limits = Limits(**request["limits"])
        job = Job(request["kind"], limits, tuple(request["fresh"]), descriptors)
        answer = Supervisor(job, place).run()
    except BaseException as error:  # noqa: BLE001 - the server goes on whatever happens to a job
        answer = {"verdict": f"error\n{type(error).__name__}: {error}"}
    try:
        os.write(tell, json.dumps(answer).encode())
    finally:
        os._exit(0)
