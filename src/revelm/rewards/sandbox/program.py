"""The process that runs a program: as a script, or to answer calls of the functions it defines.

Nothing here is trusted once the program has begun. The process knows the program and its input, never a test or an
expected result, and has no channel on which a verdict could be given.
"""

import atexit
import builtins
import gc
import io
import os
import random
import site
import socket
import sys
import threading
import traceback
from types import ModuleType
from typing import Any, NoReturn

from revelm.rewards.sandbox.serving import Service

_CHUNK = 2**20
_OPEN = open
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_THREAD_STACK = 8 * 2**20


def read_all(descriptor: int) -> bytes:
    """The whole of a file, whatever its position."""
    parts, place = [], 0
    while part := os.pread(descriptor, _CHUNK, place):
        parts.append(part)
        place += len(part)
    return b"".join(parts)


def main(kind: str, code: int, peer: int, ready: int) -> NoReturn:
    """Run the program in descriptor ``code``, as a "script" or a "service" on ``peer``; close ``ready`` to begin."""
    source = read_all(code).decode("utf-8", "surrogatepass")
    os.close(code)
    channel = socket.socket(fileno=peer) if kind == "service" else None
    _open_streams()
    gc.enable()
    random.seed(0)  # the verdict on a program that draws lots is the same in every run
    os.close(ready)
    status = 1
    try:
        status = _script(source) if channel is None else _service(source, channel)
    finally:
        os._exit(status)


def _open_streams() -> None:
    """Text streams on descriptors 0, 1 and 2, as a new interpreter has them."""
    stdin, stdout, stderr = (
        io.TextIOWrapper(open(i, mode + "b", closefd=False), encoding="utf-8", errors=errors, line_buffering=i == 2)  # noqa: SIM115
        for i, mode, errors in (
            (0, "r", "surrogateescape"),
            (1, "w", "surrogateescape"),
            (2, "w", "backslashreplace"),
        )
    )
    for stream, name in ((stdin, "stdin"), (stdout, "stdout"), (stderr, "stderr")):
        stream.mode = "r" if name == "stdin" else "w"  # type: ignore[misc]  # asked for by streams put in their place
        stream.buffer.raw.name = f"<{name}>"  # type: ignore[attr-defined]
    builtins.open = _opened
    sys.stdin = sys.__stdin__ = stdin  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = stdout  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = stderr  # type: ignore[misc]


def _opened(file: Any, *arguments: Any, **named: Any) -> Any:
    """``open``, which finds the standard streams by their names, which are not there to be found."""
    if isinstance(file, str) and file in _STREAMS:
        return _OPEN(_STREAMS[file], *arguments, **{**named, "closefd": False})
    return _OPEN(file, *arguments, **named)


def _script(source: str) -> int:
    """Run as ``python main.py`` would; returns the exit status, which is 0 whatever one the program leaves with.

    The harnesses of LiveCodeBench, APPS and TraceRL catch SystemExit, and that of SYNTHETIC-1 looks at no status: what
    was printed decides.
    """
    status = 0
    try:
        _execute(source, "__main__")
    except SystemExit as stop:
        _show_exit(stop)
    except BaseException:  # noqa: BLE001 - whatever the program raises is its result
        _show_error()
        status = 1
    return _leave(status)


def _leave(status: int) -> int:
    """What an interpreter does at its end: wait for threads, call exit functions, flush."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
        for kind in (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom):  # they are flushed where they vanish
            for stream in [one for one in gc.get_objects() if type(one) is kind and not one.closed and one.writable()]:
                stream.flush()
    except BaseException:  # noqa: BLE001 - as above
        _show_error()
        return status or 1
    return status


def _service(source: str, channel: socket.socket) -> int:
    service = Service(channel)
    try:
        namespace = vars(_execute(source, "answer"))
    except BaseException as error:  # noqa: BLE001 - as above
        service.failed(error)
        return 1
    service.serve(namespace)
    return 0


def _execute(source: str, name: str) -> ModuleType:
    module = ModuleType(name)
    module.__dict__["__builtins__"] = __builtins__
    module.__file__ = "main.py"
    sys.modules[name] = module
    sys.argv = ["main.py"]
    exec(compile(source, "main.py", "exec"), module.__dict__)
    return module


def _show_exit(stop: SystemExit) -> None:
    if stop.code is not None and not isinstance(stop.code, int):
        print(stop.code, file=sys.stderr)  # noqa: T201 - what the interpreter does


def _show_error() -> None:
    try:
        traceback.print_exc(limit=8)
    except BaseException:  # noqa: BLE001 - a program may leave nothing to print with
        os.write(2, b"an exception that cannot be shown\n")


def fresh(arguments: list[str]) -> Any:
    """``main`` in an interpreter of its own, from words of its command line."""
    site.setquit()
    threading.stack_size(_THREAD_STACK)  # by default as large as the limit of the main thread's
    kind, *descriptors = arguments
    main(kind, *(int(word) for word in descriptors))
