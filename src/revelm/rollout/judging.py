"""Answers that are judged while more of them are being made."""

import time
from collections.abc import Callable, Iterable, Iterator

from revelm.core.types import Completion, Problem, Score
from revelm.rollout.score_round import ScoreRound

_TICK = 0.05  # seconds between looks at the clocks of busy workers


class Judging:
    """From ``ScorePool.judging``; used by its thread. ``advance(work, seconds)``: of the pool, deals and listens."""

    def __init__(self, work: ScoreRound, advance: Callable[[ScoreRound, float], None]) -> None:
        self._work, self._advance = work, advance
        self._looked = 0.0

    def add(self, items: Iterable[tuple[Problem, Completion]]) -> None:
        """More answers; does not wait for verdicts."""
        self._work.add(items)
        self._looked = 0.0
        self.look()

    def look(self) -> None:
        """Give out answers that still wait, and end workers that use too much. To be called now and then: in between no
        worker gets another answer. At most every 50 ms it does anything."""
        if (now := time.monotonic()) - self._looked > _TICK:
            self._looked = now
            self._advance(self._work, 0.0)

    def rest(self) -> Iterator[tuple[int, Score]]:
        """The scores that were not given yet, each with the place of its answer in the order of adding, as they are
        reached."""
        yield from self._work.found()
        while not self._work.is_done:
            self._advance(self._work, _TICK)
            yield from self._work.found()
