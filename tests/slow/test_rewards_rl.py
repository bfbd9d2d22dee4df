"""Reinforcement learning on worksheets whose answers are judged as text, as mathematics and as programs."""

from pathlib import Path

import pytest

from benchmarks.rewards_rl import VERDICTS, table, timed_rl, tuned_model
from revelm.trainers.quickstart import quickstart_config


@pytest.mark.slow
@pytest.mark.xdist_group("sandbox")
def test_the_quickstart_learns_the_same_whichever_way_answers_are_judged(tmp_path: Path) -> None:
    """W65: verdicts that depend on how many answers wait. W60: programs that time out while others start. Every way
    has to reach the same verdicts on all answers of a run, and so the same weights; none may hang."""
    config = quickstart_config("chain", 0, smoke=True)
    config = config.model_copy(update={"rl": {**config.rl, "train": {**config.rl["train"], "steps": 3}}})
    tuned = tuned_model(config, tmp_path)
    found = [timed_rl(config, tuned, tmp_path / verdict, verdict) for verdict in VERDICTS]
    assert len({one.weights for one in found}) == 1, table(found)
    assert len({(one.answers, one.accuracy) for one in found}) == 1, table(found)
    assert all(one.seconds < 900 for one in found), table(found)
