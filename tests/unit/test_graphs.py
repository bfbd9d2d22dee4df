"""Replayed steps on a CPU: graphs that repeat recorded calls on recorded tensors, as CUDA graphs repeat kernels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from revelm.decoding.credit import Credit
from revelm.decoding.dynamic import Dynamic
from revelm.decoding.random import Random
from revelm.decoding.rule import Rule
from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.cached import CachedBlocks
from revelm.engine.engine import Engine
from revelm.engine.settings import Exact, Limits
from revelm.models.language_model import LanguageModel
from revelm.models.load import new_model
from revelm.trajectories.record import Trajectory
from tests.models import assert_same, declared_model, mixed_requests, prompt_of, sharp_model, sharpened, tiny_config
from tests.recorded_graph import RecordedGraphs

KEPT = Limits(max_length=48, mixes_weights=True)


def replaying(model: LanguageModel, *, num_slots: int = 5, **options: Any) -> tuple[Engine, RecordedGraphs]:
    """An engine that keeps its run, and replays its static steps."""
    engine = Engine(model, num_slots=num_slots, cache=Exact(**{"steps_per_contact": 4, **options}), limits=KEPT)
    engine.discard(engine.submit([[1, 2]], Sampling(max_new_tokens=4)))
    assert engine._run is not None
    forwards = engine._run.forwards
    assert isinstance(forwards, CachedBlocks)
    assert forwards._static is not None
    forwards._static.graphs = graphs = RecordedGraphs(torch.device("cpu"))
    return engine, graphs


def assert_all_same(found: Sequence[Trajectory], expected: Sequence[Trajectory]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


def changing_model() -> LanguageModel:
    return sharpened(new_model(tiny_config(), seed=0).double())


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("page_size", [None, 8])
def test_replayed_steps_give_what_the_loop_gives(page_size: int | None, is_shifted: bool) -> None:
    """Catches what a graph bakes in: a length, an address, a number of slots, settings of an earlier batch."""
    model = declared_model("block", is_shifted=is_shifted)
    prompts, settings = mixed_requests(Static(1), range(1, 9))
    engine, graphs = replaying(model, page_size=page_size)
    assert_all_same(engine.generate(prompts, settings), Engine(model, num_slots=5).generate(prompts, settings))
    assert engine.stats.static_forwards > 2 * graphs.num_captured


def test_other_rules_draws_and_stops_are_captured_anew() -> None:
    """Catches a graph of one rule, draw or table replayed for another."""
    model, prompts = sharp_model(), [prompt_of(n, n) for n in (3, 9, 6)]
    engine, graphs = replaying(model, num_slots=3)
    plain = Engine(model)
    rules: tuple[Rule, ...] = (Dynamic(0.2), Dynamic(0.95), Static(4), Random(1), Credit(0.3))
    draws: tuple[dict[str, Any], ...] = (
        *({}, {"temperature": 0.0}, {"top_k": 3}, {"banned_ids": (1, 2)}, {"banned_ids": (7, 9)}),
        *({"repetition_penalty": 1.6}, {"stop_ids": (4, 9, 20)}, {"stop_ids": tuple(range(0, 40, 3))}),
    )
    for i in range(2 * len(draws)):
        one = Sampling(rule=rules[i % len(rules)], max_new_tokens=18, **draws[i % len(draws)])
        assert_all_same(engine.generate(prompts, one), plain.generate(prompts, one))
    one = Sampling(rule=Static(4), max_new_tokens=18, ignore_eos=True)  # who ends when does not depend on draws
    engine.generate(prompts, one)
    before = graphs.num_captured
    one = replace(one, seed=8)
    assert_all_same(engine.generate(prompts, one), plain.generate(prompts, one))
    assert graphs.num_captured == before > len(rules)


def test_more_slots_and_longer_contexts_are_captured_anew() -> None:
    """Catches a graph of few slots or positions replayed for many: some wait for the others, or see too little."""
    model = sharp_model()
    engine, _ = replaying(model, num_slots=6)
    one = Sampling(rule=Static(1), max_new_tokens=12, ignore_eos=True)
    for lengths in ((3,), (3, 5, 4), (5, 3, 4, 6, 3, 5), (33,), (30, 36, 33), (36, 3, 28, 33, 4, 30)):
        prompts, before = [prompt_of(length, length) for length in lengths], engine.stats.forwards
        assert_all_same(engine.generate(prompts, one), Engine(model).generate(prompts, one))
        assert engine.stats.forwards - before < 2 * 12


def test_weights_changed_in_place_are_read() -> None:
    """Catches old weights, keys of old weights, and a capture for every update."""
    model, prompts = changing_model(), [prompt_of(n, n) for n in range(3, 15)]
    settings = Sampling(rule=Static(1), max_new_tokens=18, ignore_eos=True)  # who ends when does not depend on weights
    engine, graphs = replaying(model, reuses_prefixes=True)
    engine.generate(prompts, settings)
    before = graphs.num_captured
    for version, factor in enumerate((1.3, 0.6), start=1):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)
        engine.weights_version = version
        assert_all_same(engine.generate(prompts, settings), Engine(model, num_slots=5).generate(prompts, settings))
    assert graphs.num_captured == before


def test_weights_that_moved_are_captured_anew() -> None:
    """Catches graphs that read memory which the weights have left."""
    model = changing_model()
    prompts, settings = mixed_requests(Static(1), range(1, 5))
    engine, graphs = replaying(model)
    engine.generate(prompts, settings)
    before = graphs.num_captured
    kept = [parameter.data for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.data = parameter.data * 0.8
    engine.weights_version = 1
    assert_all_same(engine.generate(prompts, settings), Engine(model, num_slots=5).generate(prompts, settings))
    assert graphs.num_captured > before
    del kept


def test_the_least_recently_used_graph_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a graph in use being captured again and again, and a capture that is not counted as the step it was."""
    monkeypatch.setattr("revelm.engine.graphs.MAX_GRAPHS", 2)
    graphs, count = RecordedGraphs(torch.device("cpu")), torch.zeros(1)
    for number, key in enumerate("abaca", start=1):
        graphs.run(key, lambda: count.add_(1), 3)
        assert count == 3 * number
    assert graphs.num_captured == 3


def test_few_graphs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches memory that grows with every setting ever used, and the graph in use being the one that goes."""
    monkeypatch.setattr("revelm.engine.graphs.MAX_GRAPHS", 2)
    model, prompts = sharp_model(), [prompt_of(n, n) for n in (3, 9, 6)]
    engine, graphs = replaying(model, num_slots=3)
    plain = Engine(model)
    for count in (1, 2, 3, 1, 4):
        one = Sampling(rule=Static(count), max_new_tokens=12, ignore_eos=True)
        assert_all_same(engine.generate(prompts, one), plain.generate(prompts, one))
        assert 0 < len(graphs._kept) <= 2
