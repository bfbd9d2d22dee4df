"""What processes use, and how to end all of them."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from revelm.rewards.sandbox.confine import Place

_TICKS = os.sysconf("SC_CLK_TCK")
_ROUNDS = 5000
_LONGEST = 0.002  # seconds between two rounds
_BLOCK = 512  # bytes, whatever the file system
_DEEPEST = 100
_SLOW = 8  # of so many rounds, one looks through all processes


@dataclass(frozen=True)
class Use:
    """CPU seconds, bytes of memory, and threads: a process has one at least, until its end has been noted."""

    seconds: float
    memory: int
    threads: int


@dataclass(frozen=True)
class _Process:
    """``seconds``: of CPU, with ``waited``: those of its children that have ended and that it has waited for."""

    pid: int
    parent: int
    seconds: float
    waited: float
    threads: int


@dataclass
class Tally:
    """CPU seconds of processes that come and go: those that nobody waits for are in no account when they have ended.

    ``balance``: seconds of what was found once and is gone, less what was waited for.
    """

    balance: float = 0.0
    last: dict[int, _Process] = field(default_factory=dict)

    def count(self, found: Mapping[int, _Process]) -> float:
        """All seconds so far, of what is ``found`` and what was found before, as of the last look at it."""
        gone = sum(process.seconds for pid, process in self.last.items() if pid not in found)
        waited = sum(found[pid].waited - process.waited for pid, process in self.last.items() if pid in found)
        self.balance += gone - waited
        self.last = dict(found)
        return max(0.0, self.balance) + sum(process.seconds for process in found.values())


def process_seconds(pid: int) -> float:
    """CPU seconds of one process so far, all its threads; 0 when it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def tree_use(place: Place, spared: int, tally: Tally) -> Use:
    """What all that descends from this process uses, but for its child ``spared``.

    Seconds are also those of what has ended, which ``tally`` keeps from look to look. Memory is what a process holds of
    its own or shares with others, but not of files.
    """
    processes = {found.pid: found for found in _processes(place.proc)}
    members = _family({found.pid: found.parent for found in processes.values()}, {os.getpid()}) - {os.getpid(), spared}
    counted = [processes[pid] for pid in members if pid in processes]
    return Use(
        tally.count({found.pid: found for found in counted}),
        sum(_memory(place.proc, found.pid) for found in counted),
        sum(found.threads for found in counted),
    )


def folder_use(folder: str, most: int) -> tuple[int, int]:
    """Bytes and number of the files in ``folder``; a number above ``most`` where it is, or where it cannot be told."""
    size = number = 0
    folders = [(folder, 0)]
    while folders and number <= most:
        path, depth = folders.pop()
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    number += 1
                    if number > most or depth > _DEEPEST:
                        return size, most + 1
                    with suppress(FileNotFoundError):
                        size += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, depth + 1))
        except (FileNotFoundError, NotADirectoryError):  # it has just been removed
            continue
        except OSError:
            return size, most + 1
    return size, number


def kill_others(place: Place, spared: int) -> None:
    """End all that descends from this process, but for its child ``spared``; returns when they are gone.

    With namespaces orphans come to ``spared``, and siblings that a program makes itself (``CLONE_PARENT``) to this
    process: there is no need to look for them among all processes, which takes the longer the more there are.
    """
    has_namespace = place.isolation == "namespaces"
    for number in range(_ROUNDS):
        if has_namespace:
            found = [*_children(place.proc, spared), *_children(place.proc, os.getpid())]
        else:
            found = _found(place.proc, number)
        others = [pid for pid in found if pid != spared]
        if not others and (has_namespace or number % _SLOW == 0):
            return
        for pid in others:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
            except (ProcessLookupError, ChildProcessError):
                continue
        if others:
            time.sleep(_pause(number))


def kill_tree(place: Place, init: int) -> None:
    """End ``init`` and all that a job has started; returns when they are gone.

    With namespaces the kernel ends them all when ``init`` ends. Without, this process is the one that orphans come to.
    Where it is shut in with them, all are killed in one go; otherwise those that are found, until there are none.
    """
    if init:
        os.kill(init, signal.SIGKILL)
    for number in range(_ROUNDS):
        if place.isolation == "weak":
            for pid in [-1] if place.is_shut_in else _found(place.proc, number):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if not _reap():
            return
        time.sleep(_pause(number))


def _pause(number: int) -> float:
    """Seconds to the next round: most processes end at once."""
    return min(_LONGEST, 0.0001 * 2 ** min(number, 10))


def _found(proc: int, number: int) -> list[int]:
    """Descendants of this process; but in most rounds only children, for some may be gone before all are looked up."""
    if number % _SLOW == 0:
        return sorted(_family({found.pid: found.parent for found in _processes(proc)}, {os.getpid()}) - {os.getpid()})
    return _children(proc, os.getpid())


def _reap() -> bool:
    """Collect children that have ended; whether there are others."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def _children(proc: int, pid: int) -> list[int]:
    try:
        return [int(word) for word in _content(proc, f"{pid}/task/{pid}/children").split()]
    except OSError:  # not every kernel has that list; or the process is gone
        return [found.pid for found in _processes(proc) if found.parent == pid]


def _family(parents: Mapping[int, int], roots: set[int]) -> set[int]:
    """``roots`` and what descends from them."""
    members, is_growing = set(roots), True
    while is_growing:
        found = {pid for pid, parent in parents.items() if parent in members} - members
        members |= found
        is_growing = bool(found)
    return members


def _memory(proc: int, pid: int) -> int:
    """Bytes that a process holds, files apart; 0 when it is gone."""
    try:
        lines = _content(proc, f"{pid}/status").splitlines()
    except OSError:
        return 0
    return sum(
        int(line.split()[1]) * 1024 for line in lines if line.startswith((b"RssAnon:", b"RssShmem:", b"VmSwap:"))
    )


def _processes(proc: int) -> Iterator[_Process]:
    """Every process there is."""
    for name in os.listdir(proc):
        if not name.isdecimal():
            continue
        try:
            stat = _content(proc, f"{name}/stat").rpartition(b")")[2].split()
        except OSError:  # it has just ended
            continue
        if len(stat) > 17:
            own, waited = (sum(map(int, stat[first : first + 2])) / _TICKS for first in (11, 13))
            yield _Process(int(name), int(stat[1]), own + waited, waited, max(1, int(stat[17])))


def _content(proc: int, path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY, dir_fd=proc)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
