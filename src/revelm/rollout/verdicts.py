"""The scores of answers, wherever they are reached: in this process, or for a guarded task in worker processes."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from revelm.core.types import Completion, Problem, Score
from revelm.rollout.score_round import no_score
from revelm.rollout.workers import ScorePool, shared_pool
from revelm.tasks.task import GuardedTask, Task


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
    if isinstance(task, GuardedTask) and task.score_seconds > 0:
        yield from (pool or shared_pool()).stream(task, items)
        return
    for place, (problem, completion) in enumerate(items):
        score = task.score(problem, completion)
        if not isinstance(score, Score) or "correct" not in score.breakdown:
            raise ValueError(no_score(task.name, problem.id, repr(score)))
        yield place, score
