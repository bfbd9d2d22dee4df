"""A limit on the CPU time of what runs in a block, whatever else the machine and other threads are doing."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_AGAIN = 0.05  # seconds of CPU time after which a limit that was swallowed is raised again


class OutOfTime(BaseException):
    """The CPU time of a block is used up."""


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block when this thread has used ``seconds`` of CPU time in it.

    The clock is the thread's own, so load on the machine does not count, nor do other threads. Only the main thread
    can be stopped, between two operations of Python; elsewhere, or within another limit, the block runs without.
    Python drops what is raised in a callback of its collector or a destructor: it is raised again, and not reported.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getitimer(signal.ITIMER_VIRTUAL)[0] > 0:
        yield
        return
    end = time.thread_time() + seconds
    is_running = True

    def check(_signal: int, _frame: FrameType | None) -> None:
        if is_running and time.thread_time() >= end:
            raise OutOfTime

    def report(dropped: "UnraisableHookArgs") -> None:
        if not isinstance(dropped.exc_value, OutOfTime):
            reported(dropped)

    reported, sys.unraisablehook = sys.unraisablehook, report
    before = signal.signal(signal.SIGVTALRM, check)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, _AGAIN)
    try:
        yield
    finally:
        is_running = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        sys.unraisablehook = reported
