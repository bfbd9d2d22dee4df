"""A request's answer is its own: it depends on neither its neighbours, nor the slot, nor the order of arrival."""

from dataclasses import replace

import numpy as np
import pytest

from revelm.decoding.sampling import Sampling
from revelm.engine.engine import Engine
from revelm.trajectories.record import Trajectory
from tests.models import RULES, assert_same, mixed_requests, sharp_model

NUM = 64


@pytest.fixture(scope="module")
def requests() -> tuple[list[list[int]], list[Sampling]]:
    """64 requests that differ in everything: rules, lengths, temperatures, filters, stops."""
    pool = [mixed_requests(rule, range(1, 20)) for rule in RULES]
    prompts = [p for part, _ in pool for p in part]
    settings = [replace(s, seed=1000 + i) for i, s in enumerate(s for _, part in pool for s in part)]
    chosen = np.random.default_rng(0).permutation(len(prompts))[:NUM]
    return [prompts[i] for i in chosen], [settings[i] for i in chosen]


@pytest.fixture(scope="module")
def alone(requests: tuple[list[list[int]], list[Sampling]]) -> list[Trajectory]:
    """Each of them decoded by an engine that has nothing else to do."""
    engine = Engine(sharp_model(), num_slots=1)
    return [engine.generate([p], [s])[0] for p, s in zip(*requests, strict=True)]


@pytest.mark.parametrize(
    ("num_slots", "order"),
    [(1, "shuffled"), (7, "given"), (7, "reversed"), (7, "shuffled"), (64, "reversed"), (64, "shuffled")],
)
def test_alone_and_among_63_others(
    requests: tuple[list[list[int]], list[Sampling]], alone: list[Trajectory], num_slots: int, order: str
) -> None:
    """Catches draws by slot, a rule or temperature of a neighbour, keys and values left behind when slots are moved,
    and masks as wide as the longest neighbour."""
    places = {"given": np.arange(NUM), "reversed": np.arange(NUM)[::-1]}
    places["shuffled"] = np.random.default_rng(num_slots).permutation(NUM)
    arrival = places[order].tolist()
    records = Engine(sharp_model(), num_slots=num_slots).generate(
        [requests[0][i] for i in arrival], [requests[1][i] for i in arrival]
    )
    for place, record in zip(arrival, records, strict=True):
        assert_same(record, alone[place])


def test_the_requests_end_at_different_times(alone: list[Trajectory]) -> None:
    """Catches a comparison that never moves a slot nor admits in mid-flight."""
    assert len({t.num_steps for t in alone}) > 10
    assert {t.finish_reason for t in alone} == {"stop", "length"}
    assert len({len(t.prompt_ids) % 4 for t in alone}) == 4
