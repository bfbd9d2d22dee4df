"""Verdicts about mathematics on an overloaded machine."""

import pytest

from benchmarks.rewards_pool import DATA, load, pairs, timed, verdict
from benchmarks.timed_math import TimedMath
from revelm.core.cores import usable_cores


@pytest.mark.slow
@pytest.mark.xdist_group("sandbox")
@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_w65_two_thousand_pairs_under_load() -> None:
    """W65: limits that run from the submission of all pairs judge 63 % of 2,048 right answers wrong. Here none changes,
    but for those whose CPU time is about the limit."""
    items, limit = pairs(2000), TimedMath().score_seconds
    quiet, _ = timed(items, usable_cores())
    with load(4 * usable_cores()):
        busy, _ = timed(items, usable_cores())
    took = [score.breakdown.get("cpu_seconds", limit) for score in quiet]
    clear = [place for place, seconds in enumerate(took) if not limit / 2 <= seconds < 2 * limit]
    assert len(clear) > 0.99 * len(items)
    changed = [items[place][0].id for place in clear if verdict(quiet[place]) != verdict(busy[place])]
    assert changed == []
    assert not any(score.breakdown.get("error") for score in quiet)
    same = [score.value for item, score in zip(items, quiet, strict=True) if item[0].id.endswith(":same")]
    assert sum(same) >= 0.995 * len(same)
