"""Several processes in a test: started once, then given one function after another to run together."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from tests.killable import PRELOADED

PATIENCE = 600.0


class Processes:
    """``size`` processes that are one ``World``, started when they are first needed. A context manager; a hang or an
    error ends them, and the next work starts others."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.ends: list[Connection] = []
        self.processes: list[BaseProcess] = []
        self.store: Any = None

    def start(self) -> None:
        """Start them. They meet at a store of this process, so nobody can take their port before they are there."""
        from torch.distributed import TCPStore

        context, size = multiprocessing.get_context("forkserver"), self.size
        context.set_forkserver_preload(PRELOADED)
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        pipes = [context.Pipe() for _ in range(size)]
        self.ends = [mine for mine, _ in pipes]
        self.processes = [
            context.Process(target=_serve, args=(rank, size, self.store.port, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pipes)
        ]
        for process in self.processes:
            process.start()

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.terminate()
            process.join()
        for end in self.ends:
            end.close()
        self.processes, self.ends, self.store = [], [], None

    def run(self, work: Callable[..., Any], *args: Any) -> list[Any]:
        """What ``work(world, *args)`` returns in each, by rank; an AssertionError with the first traceback."""
        if not self.processes:
            self.start()
        for end in self.ends:
            end.send((work, args))
        found: dict[int, Any] = {}
        while len(found) < len(self.ends):
            waiting = [end for rank, end in enumerate(self.ends) if rank not in found]
            ready = wait(waiting, PATIENCE)
            for end in ready:
                rank = self.ends.index(end)
                try:
                    is_good, result = end.recv()
                except EOFError:
                    is_good, result = False, "it is gone"
                found[rank] = result
                if not is_good:
                    self.__exit__(None, None, None)
                    raise AssertionError(f"process {rank}:\n{result}")
            if not ready:
                self.__exit__(None, None, None)
                raise AssertionError(f"{work.__name__}{args} hangs; only {sorted(found)} came back")
        return [found[rank] for rank in range(len(self.ends))]


def _serve(rank: int, size: int, port: int, end: Connection) -> None:
    """What a process does: join the others, then work."""
    os.environ |= {
        "WORLD_SIZE": str(size),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    import torch

    from revelm.parallel.world import start

    torch.set_num_threads(1)
    world = start("cpu")
    while True:
        try:
            work, args = end.recv()
            torch.default_generator.manual_seed(0)  # whichever tests have run before
            end.send((True, work(world, *args)))
        except BaseException:  # noqa: BLE001 - whatever it is, the test has to hear of it
            end.send((False, traceback.format_exc()))
