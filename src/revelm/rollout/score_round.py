"""Answers to judge by one task: which are waiting, how each is decided, and what the end of a worker means.

What a verdict may use is CPU time of its process since it began, which no load on the machine adds to. Wall clock time
only ends verdicts that wait for something, and says so: "error", not "wrong".
"""

import pickle
from collections import deque
from collections.abc import Iterable
from typing import Any

from revelm.core.errors import RunError
from revelm.core.types import Completion, Problem, Score
from revelm.tasks.task import GuardedTask, WarmedTask

WALL_FACTOR = 10
MAX_CHUNK = 64
_CHUNK_SECONDS = 0.05
_MAX_FAILED_STARTS = 5


class ScoreRound:
    """Items to be judged by ``task``, numbered in the order in which they are added.

    ``task``, ``is_warmed``: what workers need to know of the task. ``cpu_seconds``, ``wall_seconds``: limits of one
    verdict. Answers to one problem object that are equal in every field are judged once: of a model that has learnt its
    problem, most are. ValueError for a task that cannot be sent, or whose limit is none.
    """

    def __init__(self, task: GuardedTask) -> None:
        self.cpu_seconds = float(task.score_seconds)
        if not self.cpu_seconds > 0:
            raise ValueError(f"task {task.name!r}: score_seconds is {task.score_seconds}; expected CPU seconds above 0")
        self.wall_seconds = WALL_FACTOR * self.cpu_seconds
        self.is_warmed = isinstance(task, WarmedTask)
        self._name, self._items = task.name, list[tuple[Problem, Completion]]()
        self.task = self._packed(task, "it")
        self._firsts: dict[tuple[int, Completion], int] = {}
        self._equals: dict[int, list[int]] = {}  # the places of equal answers, by the first of them
        self._settled: dict[int, Score] = {}  # by the same
        self._waiting = deque[int]()
        self._found: list[tuple[int, Score]] = []
        self._num_left = 0
        self._retried: set[int] = set()
        self._failed_starts = 0
        self._mean_seconds = _CHUNK_SECONDS

    def add(self, items: Iterable[tuple[Problem, Completion]]) -> None:
        """More items."""
        for problem, completion in items:
            place = len(self._items)
            self._items.append((problem, completion))  # which keeps the problem, and with it the meaning of its id
            first = self._firsts.setdefault((id(problem), completion), place)
            if first in self._settled:
                self._found.append((place, self._settled[first]))
                continue
            self._num_left += 1
            self._equals.setdefault(first, []).append(place)
            if first == place:
                self._waiting.append(place)

    @property
    def num_waiting(self) -> int:
        """How many items no worker has."""
        return len(self._waiting)

    @property
    def is_done(self) -> bool:
        """Whether all that were added are judged."""
        return self._num_left == 0

    def found(self) -> list[tuple[int, Score]]:
        """The scores since the last call, each with the place of its item."""
        found, self._found = self._found, []
        return found

    def next_items(self, num_workers: int) -> list[tuple[int, bytes]]:
        """Places and pickles of the next items for one worker: one at a time, or some where verdicts are quick."""
        fair = len(self._waiting) // (2 * num_workers)
        size = max(1, min(MAX_CHUNK, fair, int(_CHUNK_SECONDS / self._mean_seconds)))
        places = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
        return [(i, self._packed(self._items[i], f"problem {self._items[i][0].id!r}")) for i in places]

    def put_back(self, places: Iterable[int]) -> None:
        """Items that a worker had and did not begin, to be given to another."""
        self._waiting.extendleft(reversed(list(places)))

    def settle(self, place: int, message: dict[str, Any], *, cpu: float, wall: float) -> None:
        """What a worker said about an item, and the seconds it took. ValueError when it is no score."""
        self._mean_seconds += 0.1 * (max(wall, 1e-6) - self._mean_seconds)
        self._failed_starts = 0
        where = f"task {self._name!r}, problem {self._items[place][0].id!r}"
        if "raised" in message:
            raise ValueError(f"{where}: its verdict raised {message['raised']}; verdicts never raise")
        if "other" in message:
            raise ValueError(no_score(self._name, self._items[place][0].id, message["other"]))
        if cpu > self.cpu_seconds:  # it ended just before it was stopped: the clock decides, not who came first
            return self.stop(place, is_wall=False)
        score = Score(message["value"], message["breakdown"], message["scope"], message["reason"])
        if "correct" not in score.breakdown:
            raise ValueError(no_score(self._name, self._items[place][0].id, repr(score)))
        return self._keep(place, score)

    def stop(self, place: int, *, is_wall: bool) -> None:
        """An item whose time is up."""
        if is_wall:
            self._keep(place, _error(f"no verdict after {self.wall_seconds:g} s"))
        else:
            reason = f"timed out after {self.cpu_seconds:g} s of CPU"
            self._keep(place, Score(0.0, {"correct": 0.0}, reason=reason))

    def lose(self, place: int, how: str) -> None:
        """An item whose worker ended, ``how``: tried once more, as the reason may lie elsewhere, but not again."""
        if place in self._retried:
            self._keep(place, _error(f"the verdict ended its process, twice ({how})"))
        else:
            self._retried.add(place)
            self._waiting.appendleft(place)

    def count_failed_start(self, how: str) -> None:
        """A worker ended before it began. RunError when that happens too often with nothing judged in between."""
        self._failed_starts += 1
        if self._failed_starts >= _MAX_FAILED_STARTS:
            raise RunError(f"task {self._name!r}: its reward workers do not start ({how}); see above what they printed")

    def unusable(self, what: str) -> ValueError:
        """The error for a task or problem that workers cannot use, for the reason ``what``."""
        return ValueError(
            f"task {self._name!r}: cannot be used in the worker processes that reach its verdicts ({what}); define its "
            "class, and those of what problems hold, in a module that can be imported, not in a script or notebook"
        )

    def _keep(self, place: int, score: Score) -> None:
        self._settled[place] = score
        self._found += [(one, score) for one in self._equals[place]]
        self._num_left -= len(self._equals[place])

    def _packed(self, value: Any, what: str) -> bytes:
        try:
            return pickle.dumps(value)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise self.unusable(f"{what} cannot be pickled: {error}") from error


def no_score(task: str, problem: str, found: str) -> str:
    """The error message about a task that gave something else than a usable score."""
    return f"task {task!r}, problem {problem!r}: gave {found} for an answer, not a Score whose breakdown has 'correct'"


def _error(what: str) -> Score:
    return Score(0.0, {"correct": 0.0, "error": 1.0}, reason=f"error: {what}")
