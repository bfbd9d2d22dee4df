"""What a run leaves behind while it runs: metrics.jsonl, a progress line, and a polite way to stop it."""

import json
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from revelm.core.atomic import append_text, finite, write_text_atomic
from revelm.trainers.trackers import Trackers

METRICS = "metrics.jsonl"
STOPPING = b"\nstopping when this step is done; once more stops at once\n"


class RunLog:
    """Appends metric rows to ``metrics.jsonl`` (one whole line at a time) and shows progress. A context manager.

    ``start``: the step the run begins or goes on at; rows of this phase behind it are dropped. ``trackers`` get every
    row as well. Of several processes only the main one (``is_main``) writes and shows; in the others all this is still.
    """

    def __init__(
        self,
        run: Path,
        *,
        phase: str,
        total: int,
        start: int,
        trackers: Trackers | None = None,
        is_main: bool = True,
    ) -> None:
        self.run, self.phase, self.is_main, self.file = run, phase, is_main, run / METRICS
        self.trackers = trackers or Trackers({})
        if is_main:
            run.mkdir(parents=True, exist_ok=True)
            _forget_after(self.file, phase, start)
        columns = (TextColumn(f"[bold]{phase}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, *times, console=Console(stderr=True), disable=not is_main)
        self.task = self.progress.add_task(phase, total=total, completed=start, note="")

    def __enter__(self) -> "RunLog":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell(self.trackers.close())
        self.progress.stop()

    def write(self, step: int, metrics: Mapping[str, Any], *, phase: str | None = None) -> None:
        """Append one row; numbers that are not finite are written as null.

        OSError when it cannot be written (disk full); rows written before are whole then, and this one is not there.
        """
        if not self.is_main:
            return
        row = {"phase": phase or self.phase, "step": step, **metrics}
        append_text(self.file, json.dumps(finite(row), allow_nan=False) + "\n")
        self._tell(self.trackers.log(row))

    def show(self, step: int, note: str) -> None:
        """Move the progress bar to ``step``."""
        self.progress.update(self.task, completed=step, note=note)

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        if self.is_main:
            self.progress.console.print(message, style="yellow", markup=False)

    def _tell(self, messages: Iterable[str]) -> None:
        for message in messages:
            self.say(message)


def read_rows(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, in order; without a last line that was cut short."""
    file = run / METRICS
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    return [row for line in lines if (row := _row(line)) is not None]


def _forget_after(file: Path, phase: str, step: int) -> None:
    """Drop rows of this phase, and of its evaluations, behind ``step``: a resumed run writes them again.

    Also a last line cut short. Rows of other phases stay, whatever their steps.
    """
    if not file.is_file():
        return
    kept = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        row = _row(line)
        if row is None:
            continue
        owner = row.get("at", phase) if row.get("phase") == "eval" else row.get("phase")
        if owner != phase or row.get("step", 0) <= step:
            kept.append(line)
    write_text_atomic(file, "".join(f"{line}\n" for line in kept))


def _row(line: str) -> dict[str, Any] | None:
    """The row in ``line``; None when it holds none."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


class Interrupt:
    """Set by the first Ctrl-C or SIGTERM: the loop ends its step, saves and stops. A second one stops at once."""

    def __init__(self) -> None:
        self.is_requested = False

    def request(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        del number, frame
        if self.is_requested:
            raise KeyboardInterrupt
        self.is_requested = True
        if os.environ.get("RANK", "0") == "0":  # past buffers, which the interrupted code may be writing to
            os.write(2, STOPPING)


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Handle SIGINT and SIGTERM politely inside the block (in the main thread; elsewhere nothing is changed)."""
    interrupt = Interrupt()
    try:
        before = {s: signal.signal(s, interrupt.request) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        before = {}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
