"""Runs of the command line in processes that can be killed, at a moment that the test names.

Processes are forked from one that has imported everything: a start costs milliseconds, so that many kills fit into a
test. A moment is counted in Python and C calls inside one phase of the run: the same one every time, and possibly the
one right before a write, a flush or a rename.
"""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PATIENCE = 900.0
PRELOADED = [
    "revelm.trainers.rl",
    "revelm.trainers.sft",
    "torch.distributed.checkpoint",
    "transformers.models",
    "pandas",
]
Watch = Callable[[FrameType, str, Any], None]
PHASES = ("start", "rollout", "trajectories", "update", "metrics", "save")


@dataclass(frozen=True)
class Moment:
    """Within the ``entry``-th time (from 1) that the process is in ``phase``, after ``event`` calls; at the latest when
    the phase ends."""

    phase: str
    entry: int
    event: int


class Run:
    """``revelm WORDS`` under way in a process of its own. ``said``: the file that gets its stderr.

    ``moment``: when it kills itself with SIGKILL. ``counts``: a file for how many calls each phase took, each time.
    """

    def __init__(self, *words: object, said: Path, moment: Moment | None = None, counts: Path | None = None) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.said = said
        arguments = ([str(word) for word in words], said, moment, counts)
        self.process: BaseProcess = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()

    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.process.exitcode is not None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def finish(self) -> tuple[int, str]:
        """Exit code (minus the signal, where one ended it) and stderr; a run that hangs is an error, and is ended."""
        self.process.join(PATIENCE)
        code, said = self.process.exitcode, self.said.read_text(errors="replace") if self.said.is_file() else ""
        if code is None:
            self.process.kill()
            raise AssertionError(f"it hangs: {said}")
        return code, said


def _serve(words: Sequence[str], said: Path, moment: Moment | None, counts: Path | None) -> None:
    with said.open("w") as file:
        os.dup2(file.fileno(), 2)
    from revelm.cli.main import main

    found: dict[str, list[int]] = {phase: [] for phase in PHASES}
    if moment is not None:
        sys.setprofile(_killer(moment))
    elif counts is not None:
        sys.setprofile(_counter(found))
    code = main(words)
    sys.setprofile(None)
    if counts is not None:
        counts.write_text(json.dumps(found))
    sys.stderr.flush()
    sys.exit(code)


def _counter(found: dict[str, list[int]]) -> Watch:
    """Counts the calls inside each phase, one number for each time."""
    codes, under_way = _codes(), []

    def watch(frame: FrameType, kind: str, _: Any) -> None:
        phase = codes.get(frame.f_code)
        if phase is not None and kind == "call":
            under_way.append(phase)
            found[phase].append(0)
        elif phase is not None and kind == "return":
            under_way.pop()
        for name in under_way:
            found[name][-1] += 1

    return watch


def _killer(moment: Moment) -> Watch:
    """Kills the process when its moment has come."""
    (code,) = (code for code, phase in _codes().items() if phase == moment.phase)
    entries, events, is_inside = 0, 0, False

    def watch(frame: FrameType, kind: str, _: Any) -> None:
        nonlocal entries, events, is_inside
        if frame.f_code is code and kind == "call":
            entries += 1
            is_inside = entries == moment.entry
        if is_inside:
            events += 1
            if events == moment.event or (frame.f_code is code and kind == "return"):
                os.kill(os.getpid(), signal.SIGKILL)

    return watch


def _codes() -> dict[CodeType, str]:
    """What is being done while a function runs."""
    from revelm.trainers import learning, rl, rollouts, run_log, session
    from revelm.trajectories import store

    functions = (
        session.open_session,
        rollouts.Asker.draw,
        store.write_trajectories,
        learning.learn,
        run_log.RunLog.write,
        session.Session.save,
    )
    assert rl.learn is learning.learn
    return {function.__code__: phase for phase, function in zip(PHASES, functions, strict=True)}
