"""Guarded tasks whose verdicts do what an answer says, however bad: for tests of the pool of reward workers."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from revelm.core.types import Completion, Problem, Score
from revelm.rollout.verdicts import verdicts
from revelm.tasks.file_splits import read_problems
from tests.toy_tasks import Parity


@dataclass(frozen=True)
class Obedient:
    """Does what the first word of an answer says, see ``_DEEDS``; right where the answer is the reference.

    ``score_seconds``: CPU seconds of a verdict.
    """

    score_seconds: float = 0.5

    @property
    def name(self) -> str:
        """The name in results."""
        return "obedient"

    def problems(self, split: str) -> Sequence[Problem]:
        """None."""
        return []

    def prompt(self, problem: Problem) -> list[dict[str, str]]:
        """The question as the user's turn."""
        return [{"role": "user", "content": problem.question}]

    def score(self, problem: Problem, completion: Completion) -> Any:
        """1 or 0, when it comes to that."""
        word, _, rest = completion.text.partition(" ")
        if word in _DEEDS:
            return _DEEDS[word](rest)
        correct = float(completion.text == problem.reference)
        return Score(correct, {"correct": correct, "pid": os.getpid()}, reason=f"said {completion.text!r}")


@dataclass(frozen=True)
class Warmed(Obedient):
    """Takes ``load`` CPU seconds to load what verdicts need, at the first verdict if not before."""

    load: float = 1.0

    def warm_up(self) -> None:
        """Load."""
        if "LOADED" not in os.environ:
            _spin(str(self.load))
            os.environ["LOADED"] = "1"

    def score(self, problem: Problem, completion: Completion) -> Any:
        """1 or 0."""
        self.warm_up()
        return super().score(problem, completion)


@dataclass(frozen=True)
class Gated(Obedient):
    """Gets ready when there is a file ``gate``; gives up after minutes."""

    gate: str = ""

    def warm_up(self) -> None:
        """Wait for it."""
        until = time.monotonic() + 120
        while not os.path.exists(self.gate):  # noqa: PTH110
            if time.monotonic() > until:
                raise TimeoutError(self.gate)
            time.sleep(0.01)


@dataclass(frozen=True)
class FromRows(Obedient):
    """Its problems are the rows of ``data``, with a ``reference``; only one of them is for training."""

    data: str | None = None
    is_short: bool = False

    def problems(self, split: str) -> Sequence[Problem]:
        """The first row for training, the others for the test; with ``is_short`` the last one for neither."""
        found = read_problems(
            str(self.data), self.name, read=lambda row, name: Problem(name, "", row.text("reference"))
        )
        return found[:1] if split == "train" else found[1 : len(found) - self.is_short]


@dataclass(frozen=True)
class GuardedParity(Parity):
    """``Parity`` whose verdicts are reached by workers; that on the problem of id ``bad`` raises."""

    score_seconds: float = 60.0
    bad: str = ""

    def score(self, problem: Problem, completion: Completion) -> Score:
        """1 or 0, by parity of the text."""
        if problem.id == self.bad:
            raise KeyError(problem.id)
        return super().score(problem, completion)


@dataclass(frozen=True)
class Consulting(GuardedParity):
    """Asks workers about something already when it writes a prompt."""

    def prompt(self, problem: Problem) -> list[dict[str, str]]:
        """The question, if 1 is odd."""
        (score,) = verdicts(GuardedParity(), [(problem, Completion("1", 1, 1, "stop"))])
        assert score.value == 0.0
        return super().prompt(problem)


def _right(reason: str) -> Score:
    return Score(1.0, {"correct": 1.0}, reason=reason)


def _spin(seconds: str) -> Score:
    end = time.process_time() + float(seconds)
    while time.process_time() < end:
        pass
    return _right("spun")


def _sleep(seconds: str) -> Score:
    time.sleep(float(seconds))
    return _right("slept")


def _print(_: str) -> Score:
    os.write(1, b"{" * 300_000)
    print("[" * 300_000, flush=True)
    return _right("printed")


def _once(path: str) -> Score:
    if not os.path.exists(path):  # noqa: PTH110
        open(path, "w").close()  # noqa: PTH123
        os.kill(os.getpid(), signal.SIGKILL)
    return _right("twice is once")


def _note(path: str) -> Score:
    with open(path, "a") as file:  # noqa: PTH123
        file.write(".")
    return _right("noted")


def _child(path: str) -> Score:
    # A shell is there at once, however busy the machine is.
    child = subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; echo; exec sleep 600"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    with open(path, "w") as file:  # noqa: PTH123
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(600)
    return _right("never")


def _log(words: str) -> Score:
    path, _, seconds = words.partition(" ")
    with open(path, "a") as file:  # noqa: PTH123
        file.write(".")
    time.sleep(float(seconds))
    return _right("logged")


def _orphan(path: str) -> Score:
    if not os.path.exists(path):  # noqa: PTH110
        open(path, "w").close()  # noqa: PTH123
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    return _right("twice is once")


def _raise(text: str) -> Score:
    raise TypeError(text)


def _modules(_: str) -> Score:
    return _right(" ".join(sorted(sys.modules)))


def _numpy(_: str) -> Score:
    import numpy as np

    return Score(np.float32(0.5), {"correct": np.float64(1.0), "is_odd": np.bool_(True), "n": np.int64(3)}, "step")


def _regex(_: str) -> Score:
    re.match("(a+)+$", "a" * 60 + "b")
    return _right("never")


_DEEDS = {
    "regex": _regex,
    "numpy": _numpy,
    "mapping": lambda _: Score(0.25, MappingProxyType({"correct": 0.0})),
    "spin": _spin,
    "sleep": _sleep,
    "log": _log,
    "print": _print,
    "exit": lambda code: os._exit(int(code)),
    "quit": lambda code: sys.exit(int(code)),
    "segfault": lambda _: ctypes.string_at(0),
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "memory": lambda _: bytearray(1 << 36),
    "once": _once,
    "note": _note,
    "child": _child,
    "orphan": _orphan,
    "raise": _raise,
    "other": lambda _: "fine",
    "incorrect": lambda _: Score(1.0, {"correctness": 1.0}),
    "modules": _modules,
}
