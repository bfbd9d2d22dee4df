"""The verdicts of ``math``, each with the CPU time it took: what ``benchmarks.rewards_pool`` has workers do."""

import time
from dataclasses import dataclass, replace

from revelm.core.types import Completion, Problem, Score
from revelm.rollout.pair_rows import MathRows


@dataclass(frozen=True)
class TimedMath(MathRows):
    """``MathRows`` whose breakdown has ``cpu_seconds``."""

    def score(self, problem: Problem, completion: Completion) -> Score:
        """The verdict."""
        began = time.process_time()
        score = super().score(problem, completion)
        return replace(score, breakdown={**score.breakdown, "cpu_seconds": time.process_time() - began})
