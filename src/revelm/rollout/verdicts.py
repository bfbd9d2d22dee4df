"""The scores of answers, wherever they are reached: in this process, or for a guarded task in worker processes."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Protocol

from revelm.core.types import Completion, Problem, Score
from revelm.rollout.score_round import no_score
from revelm.rollout.workers import ScorePool, shared_pool
from revelm.tasks.task import GuardedTask, Task


class Judge(Protocol):
    """What judges answers that come one after the other."""

    def add(self, items: Iterable[tuple[Problem, Completion]]) -> None:
        """More answers; workers begin with them at once. Does not wait."""
        ...

    def look(self) -> None:
        """To be called now and then: workers are given answers, and ended where they use too much. Does not wait."""
        ...

    def rest(self) -> Iterator[tuple[int, Score]]:
        """The scores that were not given yet, as they are reached, each with the place of its answer in the order of
        adding. ValueError names the task and the problem whose answer got none."""
        ...


@contextmanager
def judging(task: Task, *, pool: ScorePool | None = None) -> Iterator[Judge]:
    """The judge of a task's answers. ``pool``: other workers than the shared ones."""
    if isinstance(task, GuardedTask) and task.score_seconds > 0:
        with (pool or shared_pool()).judging(task) as judge:
            yield judge
    else:
        yield _Here(task)


def verdicts(
    task: Task, items: Sequence[tuple[Problem, Completion]], *, progress: Callable[[int], None] | None = None
) -> list[Score]:
    """The task's scores of answers, in order. ``progress`` is called with the number of scores so far.

    ValueError names the task and the problem whose answer got none.
    """
    found: dict[int, Score] = {}
    with closing(verdict_stream(task, items)) as stream:
        for place, score in stream:
            found[place] = score
            if progress is not None:
                progress(len(found))
    return [found[place] for place in range(len(items))]


def verdict_stream(
    task: Task, items: Sequence[tuple[Problem, Completion]], *, pool: ScorePool | None = None
) -> Generator[tuple[int, Score], None, None]:
    """The same scores as they are reached, each with the place of its item. ``pool``: other workers than the shared."""
    with judging(task, pool=pool) as judge:
        judge.add(items)
        yield from judge.rest()


class _Here:
    """Verdicts of this process, reached when they are asked for."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._items: list[tuple[Problem, Completion]] = []
        self._num_judged = 0

    def add(self, items: Iterable[tuple[Problem, Completion]]) -> None:
        self._items += items

    def look(self) -> None:
        pass

    def rest(self) -> Iterator[tuple[int, Score]]:
        while (place := self._num_judged) < len(self._items):
            problem, completion = self._items[place]
            score = self._task.score(problem, completion)
            if not isinstance(score, Score) or "correct" not in score.breakdown:
                raise ValueError(no_score(self._task.name, problem.id, repr(score)))
            self._num_judged += 1
            yield place, score
