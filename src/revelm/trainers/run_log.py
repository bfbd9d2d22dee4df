"""What a run leaves behind while it runs: metrics.jsonl, a progress line, and a polite way to stop it."""

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from revelm.core.atomic import finite, write_text_atomic

METRICS = "metrics.jsonl"


class RunLog:
    """Appends metric rows to ``metrics.jsonl`` (flushed line by line) and shows progress. A context manager."""

    def __init__(self, run: Path, *, phase: str, total: int, start: int) -> None:
        self.phase, self.file = phase, run / METRICS
        run.mkdir(parents=True, exist_ok=True)
        _forget_after(self.file, phase, start)
        columns = (TextColumn(f"[bold]{phase}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        console = Console(stderr=True)
        self.progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
        self.task = self.progress.add_task(phase, total=total, completed=start, note="")

    def __enter__(self) -> "RunLog":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def write(self, step: int, metrics: Mapping[str, Any], *, phase: str | None = None) -> None:
        """Append one row; numbers that are not finite are written as null."""
        row = {"phase": phase or self.phase, "step": step, **metrics}
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(finite(row)) + "\n")

    def show(self, step: int, note: str) -> None:
        """Move the progress bar to ``step``."""
        self.progress.update(self.task, completed=step, note=note)

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        self.progress.console.print(message, style="yellow", markup=False)


def read_rows(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl."""
    file = run / METRICS
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def _forget_after(file: Path, phase: str, step: int) -> None:
    """Drop rows of this phase behind ``step`` (and a last line cut short): a resumed run writes them again."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row.get("step", 0) <= step or row.get("phase") not in (phase, "eval"):
            kept.append(line)
    write_text_atomic(file, "".join(f"{line}\n" for line in kept))


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
