"""The process that holds the tests of one program and reaches their verdict.

It is trusted with the tests, not with the machine: it runs under limits and without privileges, as the program does,
but in a process that the program can neither see into nor signal. A line of the report is written behind each test.
"""

import builtins
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from revelm.rewards.sandbox.channel import ClosedError
from revelm.rewards.sandbox.comparisons import make_strict
from revelm.rewards.sandbox.program import read_all
from revelm.rewards.sandbox.remote import Remote, UnpassableError
from revelm.rewards.sandbox.stand_in import ProgramError
from revelm.rewards.sandbox.values import is_right_value

_DETAIL = 200


def main(tests: int, report: int, control: int) -> None:
    """Judge by the tests in descriptor ``tests``, into ``report``; ``control`` asks the supervisor for programs."""
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for tests that report, as unittest does
    spec = json.loads(read_all(tests).decode("utf-8", "surrogatepass"))
    Tester(spec, report, socket.socket(fileno=control)).run()


class Tester:
    """The tests of one program at work."""

    def __init__(self, spec: Mapping[str, Any], report: int, control: socket.socket) -> None:
        """``spec``: the fields of ``CodeTests`` and ``stops_early``."""
        self._spec = spec
        self._report = report
        self._control = control
        self._namespace: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
        self._defined: dict[str, Any] = {}
        self._remote: Remote | None = None

    def run(self) -> None:
        """All tests in order, or as far as the first failed one."""
        if "numpy" in sys.modules:
            make_strict(sys.modules["numpy"])
        try:
            exec(compile(self._spec["setup"], "setup", "exec"), self._namespace)
        except BaseException as error:  # noqa: BLE001 - code from a data set
            self._write("error", f"the setup of the tests failed: {_line(error)}")
            return
        for test in self._tests():
            outcome, detail = self._one(test)
            self._write(outcome, detail)
            if outcome != "passed" and self._spec["stops_early"]:
                return

    def _tests(self) -> list[Callable[[], None]]:
        if self._spec["method"] == "call":
            pairs = zip(self._spec["arguments"], self._spec["returns"], strict=True)
            return [partial(self._call, arguments, returns) for arguments, returns in pairs]
        return [partial(self._statement, statement) for statement in self._spec["statements"]]

    def _one(self, test: Callable[[], None]) -> tuple[str, str]:
        """Outcome and detail of one test."""
        self._control.send(b"test")
        try:
            if self._remote is None:
                self._start()
            test()
            if self._remote is not None and self._remote.is_lost:
                raise ClosedError("the test has caught the end of its program")
        except ClosedError:
            self._remote = None
            self._control.send(b"why")
            outcome, _, detail = self._control.recv(4096).decode("utf-8", "replace").partition("\n")
            return outcome, detail
        except AssertionError as error:
            return "wrong", _line(error)
        except MemoryError:
            return "memory", "MemoryError"
        except UnpassableError as error:
            return "error", _line(error)
        except ProgramError as error:
            return ("exit" if str(error).startswith("SystemExit") else "exception"), _line(error)
        except BaseException as error:  # noqa: BLE001 - code from a data set, fed by a program
            return "exception", _line(error)
        return "passed", ""

    def _start(self) -> None:
        """Have a program started, and bind the names that the tests may use. Raises what the program raised."""
        self._control.send(b"start")
        _, descriptors, _, _ = socket.recv_fds(self._control, 16, 1)
        remote = Remote(socket.socket(fileno=descriptors[0]))
        before, self._defined = self._defined, remote.defined()
        self._remote = remote
        if self._spec["method"] == "call":
            return
        names = self._spec["names"]
        if names is None:
            known = set(vars(builtins)) | set(self._namespace)
            # What the tests have of a program that is gone is replaced.
            stale = {name for name, value in before.items() if self._namespace.get(name) is value}
            names = [name for name in self._defined if name not in known or name in stale]
        self._namespace |= {name: self._defined[name] for name in names if name in self._defined}

    def _statement(self, statement: str) -> None:
        try:
            exec(compile(statement, "test", "exec"), self._namespace)
        except AssertionError as error:
            raise AssertionError(str(error) or " ".join(statement.split())) from error

    def _call(self, arguments: str, returns: str) -> None:
        value, expected = self._function()(*json.loads(arguments)), json.loads(returns)
        matching, may_unwrap = self._spec["matching"], self._spec["may_unwrap"]
        if not is_right_value(value, expected, matching=matching, may_unwrap=may_unwrap):
            raise AssertionError(f"{repr(value)[:80]} instead of {repr(expected)[:80]}")

    def _function(self) -> Callable[..., Any]:
        first, *attributes = str(self._spec["names"][0]).split(".")
        if first not in self._defined:
            raise NameError(f"name {first!r} is not defined")
        found = self._defined[first]
        for attribute in attributes:  # "Solution.f": the method of a new Solution
            found = getattr(found(), attribute)
        return found

    def _write(self, outcome: str, detail: str) -> None:
        os.write(self._report, (json.dumps([outcome, detail[:_DETAIL]]) + "\n").encode())


def _line(error: BaseException) -> str:
    name = "" if isinstance(error, AssertionError | ProgramError) else f"{type(error).__name__}: "
    try:
        return name + " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - an exception may hold an object of the program
        return f"{name}an exception that cannot be shown"
