"""What processes use, and how to end all of them."""

import os
import resource
import signal
import time
from collections.abc import Iterator, Sequence

from revelm.rewards.sandbox.confine import Place

_TICKS = os.sysconf("SC_CLK_TCK")
_ROUNDS = 5000


def process_seconds(pid: int) -> float:
    """CPU seconds of one process so far, all its threads; 0 when it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def tree_use(place: Place, roots: Sequence[int]) -> tuple[float, int]:
    """CPU seconds and bytes of memory of ``roots[1:]`` and of what descends from any of ``roots``.

    The first root adopts orphans and is not counted itself. Memory is what processes hold beyond what all began with.
    """
    processes = {pid: (parent, seconds, size) for pid, parent, seconds, size in _processes(place.proc)}
    members = set(roots)
    is_growing = True
    while is_growing:
        found = {pid for pid, (parent, _, _) in processes.items() if parent in members} - members
        members |= found
        is_growing = bool(found)
    counted = [processes[pid] for pid in members - {roots[0]} if pid in processes]
    return sum(seconds for _, seconds, _ in counted), sum(size for _, _, size in counted)


def kill_tree(place: Place, init: int) -> None:
    """End ``init`` and all that a job has started; returns when they are gone.

    With namespaces the kernel ends them all when ``init`` ends. Without, this process is the one that orphans come to:
    its descendants are killed until there are none.
    """
    if init:
        os.kill(init, signal.SIGKILL)
    for _ in range(_ROUNDS):
        if place.isolation == "weak":
            for pid in _descendants(place.proc, os.getpid()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        if not _reap():
            return
        time.sleep(0.002)


def _reap() -> bool:
    """Collect children that have ended; whether there are others."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def _descendants(proc: int, root: int) -> list[int]:
    parents = {pid: parent for pid, parent, _, _ in _processes(proc)}
    members, is_growing = {root}, True
    while is_growing:
        found = {pid for pid, parent in parents.items() if parent in members} - members
        members |= found
        is_growing = bool(found)
    return sorted(members - {root})


def _processes(proc: int) -> Iterator[tuple[int, int, float, int]]:
    """Number, parent, CPU seconds and private bytes of every process there is."""
    page = resource.getpagesize()
    for name in os.listdir(proc):
        if not name.isdecimal():
            continue
        try:
            stat = _content(proc, f"{name}/stat").rpartition(b")")[2].split()
            memory = _content(proc, f"{name}/statm").split()
        except OSError:  # it has just ended
            continue
        if len(stat) > 14 and len(memory) > 2:
            seconds = (int(stat[11]) + int(stat[12])) / _TICKS
            yield int(name), int(stat[1]), seconds, (int(memory[1]) - int(memory[2])) * page


def _content(proc: int, path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY, dir_fd=proc)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
