"""The pool of worker processes that reach the verdicts of guarded tasks, which can take long, or crash.

A verdict depends on the answer alone, not on how busy the machine is: what is limited is the CPU time of a worker
since the verdict began. Whatever happens in a worker, the pool goes on and none outlives its parent.
"""

import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from multiprocessing.connection import wait
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from revelm.core.cores import usable_cores
from revelm.core.errors import RunError
from revelm.core.types import Completion, Problem, Score
from revelm.rollout.judging import Judging
from revelm.rollout.score_process import ScoreProcess, end_all
from revelm.rollout.score_round import ScoreRound
from revelm.tasks.task import GuardedTask

MAX_WORKERS = 32
MEMORY_MB = 4096
_STOP_GRACE = 0.3  # seconds that a stopped worker has to close what it opened
_START_SECONDS = 300.0
_PATIENCE = 1.0  # seconds between looks at whether a pool that starts a worker was closed

Requests = SimpleQueue["tuple[Future[ScoreProcess], int] | None"]


class ScorePool:
    """Worker processes that judge answers. A context manager; started when first needed, ended with this process.

    ``num_workers``: default one per core that this process may use, shared with the other processes of a distributed
    run. ``memory_mb``: address space of each worker, 0 for no limit. Used by one call at a time, of the process that
    made it. Raises ValueError for less than one worker.
    """

    def __init__(self, num_workers: int | None = None, *, memory_mb: int = MEMORY_MB) -> None:
        if num_workers is not None and num_workers < 1:
            raise ValueError(f"num_workers={num_workers}: expected at least 1, or None for one per core")
        self.num_workers = num_workers or default_workers()
        self._memory_mb = memory_mb
        self._workers: list[ScoreProcess] = []
        self._requests: Requests = SimpleQueue()
        self._lock = threading.Lock()
        self._user: int | None = None  # the thread whose call it is
        self._work: ScoreRound | None = None  # of that call
        self._thread: threading.Thread | None = None
        self._owner = os.getpid()
        self._ending = weakref.finalize(self, _end, self._workers, self._requests, self._owner)

    def __enter__(self) -> "ScorePool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def score(
        self,
        task: GuardedTask,
        items: Sequence[tuple[Problem, Completion]],
        progress: Callable[[int], None] | None = None,
    ) -> list[Score]:
        """The verdict of ``task`` on each item, in order. ``progress`` is called with the number of verdicts so far.

        Verdicts and errors are those of ``stream``.
        """
        found: dict[int, Score] = {}
        with closing(self.stream(task, items)) as stream:
            for place, score in stream:
                found[place] = score
                if progress is not None:
                    progress(len(found))
        return [found[place] for place in range(len(items))]

    def stream(
        self, task: GuardedTask, items: Sequence[tuple[Problem, Completion]]
    ) -> Generator[tuple[int, Score], None, None]:
        """The verdict of ``task`` on each item, with its place among them, as they are reached.

        An answer that takes more than ``task.score_seconds`` of CPU scores 0, "timed out". ``breakdown["error"]`` is 1
        for one that takes ten times as long by the wall clock, or that ends its worker twice. ValueError, naming the
        problem, for a verdict that raises or is no score, and for a task or problem that workers cannot unpickle;
        RunError when workers do not start. Workers that are busy when the iterator is closed are ended.
        """
        with self.judging(task) as judging:
            judging.add(items)
            yield from judging.rest()

    @contextmanager
    def judging(self, task: GuardedTask) -> Iterator[Judging]:
        """For answers that are not all there yet: they are judged while others are still being made.

        Workers that are busy when the context is left are ended. Errors are those of ``stream``, from any call.
        """
        self._check_open()
        with self._turn():
            self._abandon()  # what an interrupt has left when the last call was about to end
            self._work = ScoreRound(task)
            try:
                yield Judging(self._work, self._advance)
            except (OSError, ValueError):
                self._check_open()  # closed meanwhile: its workers are gone
                raise
            finally:
                self._work = None
                self._abandon()

    def close(self) -> None:
        """End all workers. A pool may be closed again, but not used."""
        self._ending()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One call at a time: those of other threads wait. RuntimeError where this thread would wait for itself."""
        me = threading.get_ident()
        if self._user == me:
            raise RuntimeError("this pool is at work for an iterator that is not finished; close it first")
        with self._lock:
            self._check_open()
            self._user = me
            try:
                yield
            finally:
                self._user = None

    def _check_open(self) -> None:
        if os.getpid() != self._owner:
            raise RuntimeError("this pool belongs to the process that made it; after a fork use shared_pool()")
        if not self._ending.alive:
            raise RuntimeError("this pool is closed")

    def _advance(self, work: ScoreRound, seconds: float) -> None:
        """Give out what is waiting, and take what has come, or comes within ``seconds``."""
        self._check_open()
        if work is not self._work:
            raise RuntimeError("the context of this judge has been left")
        self._deal(work)
        self._listen(work, seconds)

    def _deal(self, work: ScoreRound) -> None:
        """Give waiting items to idle workers, and to new ones while there may be more."""
        idle = [worker for worker in self._workers if not worker.places]
        while work.num_waiting:
            if not idle:
                if len(self._workers) >= self.num_workers:
                    return
                idle = [self._start()]
            worker = idle.pop()
            try:
                worker.give(work.task, work.is_warmed, work.next_items(self.num_workers))
            except OSError:
                self._lose(work, worker)

    def _listen(self, work: ScoreRound, seconds: float) -> None:
        """Hear what workers say within ``seconds``, and look after those that say nothing."""
        busy = [worker for worker in self._workers if worker.places]
        ready = wait([worker.connection for worker in busy], seconds)
        for worker in busy:
            if worker.connection in ready:
                self._hear(work, worker)
            else:
                self._watch(work, worker)

    def _hear(self, work: ScoreRound, worker: ScoreProcess) -> None:
        try:
            while worker.places and worker.connection.poll():
                _take(work, worker, worker.receive())
        except (EOFError, OSError):
            self._lose(work, worker)

    def _watch(self, work: ScoreRound, worker: ScoreProcess) -> None:
        """End a worker whose time is up; its item is judged, those behind it wait again."""
        with suppress(OSError):  # it is gone, see below
            worker.send()
        now, has_ended, wall = worker.cpu_now(), worker.has_ended(), time.monotonic() - worker.since
        if worker.connection.poll():  # after the clocks: what they say is about the item they are held against
            return
        if has_ended:
            self._lose(work, worker)
        elif worker.cpu is None:
            if wall > _START_SECONDS:
                raise RunError(f"a reward worker was not ready after {_START_SECONDS:g} s; is the machine overloaded?")
        elif (is_wall := wall > work.wall_seconds) or (now - worker.cpu) / 1e9 > work.cpu_seconds:
            worker.ask_to_end()
            self._remove(worker)
            work.stop(worker.places.popleft(), is_wall=is_wall)
            work.put_back(worker.places)

    def _lose(self, work: ScoreRound, worker: ScoreProcess) -> None:
        """Go on without a worker that has ended by itself."""
        how = self._remove(worker)
        if worker.cpu is None:
            work.count_failed_start(how)
            work.put_back(worker.places)
            return
        first = worker.places.popleft()
        work.put_back(worker.places)
        work.lose(first, how)

    def _start(self) -> ScoreProcess:
        """A new worker, from a thread that lives as long as the pool: workers die with the thread that started them."""
        if self._thread is None:
            arguments = (self._requests, self._workers)
            self._thread = threading.Thread(target=_start_workers, args=arguments, daemon=True, name="score workers")
            self._thread.start()
        started: Future[ScoreProcess] = Future()
        self._requests.put((started, self._memory_mb))
        while True:
            with suppress(TimeoutError):
                return started.result(_PATIENCE)
            self._check_open()

    def _remove(self, worker: ScoreProcess) -> str:
        how = worker.end(time.monotonic() + _STOP_GRACE)
        self._workers.remove(worker)
        return how

    def _abandon(self) -> None:
        """End the workers that are busy: what they would still say belongs to no call."""
        is_mine = os.getpid() == self._owner  # a fork may leave its parent's call
        busy = [worker for worker in self._workers if worker.places and is_mine]
        for worker in busy:
            worker.ask_to_end()
        end_all(busy)
        for worker in busy:  # not before they have ended: this may be interrupted
            with suppress(ValueError):  # closed by another thread
                self._workers.remove(worker)


def shared_pool() -> ScorePool:
    """The pool of this process: the same one at every call."""
    return _pool_of(os.getpid())


@functools.cache
def _pool_of(_: int) -> ScorePool:
    return ScorePool()


def default_workers() -> int:
    """One per core that this process may use, at most ``MAX_WORKERS``; processes on one machine share its cores."""
    together = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MAX_WORKERS, usable_cores() // together))


def _take(work: ScoreRound, worker: ScoreProcess, message: dict[str, Any]) -> None:
    if "unusable" in message:
        raise work.unusable(message["unusable"])
    (before, began), worker.cpu, worker.since = (worker.cpu, worker.since), message["cpu"], message["now"]
    if before is not None:
        cpu, wall = (worker.cpu - before) / 1e9, worker.since - began
        work.settle(worker.places.popleft(), message, cpu=cpu, wall=wall)


def _start_workers(requests: Requests, workers: list[ScoreProcess]) -> None:
    while (request := requests.get()) is not None:
        started, memory_mb = request
        try:
            workers.append(ScoreProcess(memory_mb))
            started.set_result(workers[-1])
        except OSError as error:
            started.set_exception(error)


def _end(workers: list[ScoreProcess], requests: Requests, owner: int) -> None:
    if os.getpid() == owner:  # a fork has copies of the objects, not the processes
        end_all(workers)
        workers.clear()
        requests.put(None)
