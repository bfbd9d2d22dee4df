"""Many correct programs at once."""

import pytest

from benchmarks.rewards_pool import load
from benchmarks.rewards_sandbox import PROGRAMS, accepted, answers
from revelm.rollout.workers import ScorePool
from revelm.tasks.code import Code

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sandbox")]


def test_128_correct_programs_at_once_are_all_accepted() -> None:
    """W60: catches deadlines that count start-up or waiting, under which most correct programs fail on two cores."""
    with ScorePool(2) as pool, load(4):
        for _, code, tests in PROGRAMS:
            assert accepted(pool.score(Code(), answers(code, tests, 128))) == 128
