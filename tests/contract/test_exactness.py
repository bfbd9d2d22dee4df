"""What the engine promises for the models it was made for, whatever runs beside a request and wherever its cache lies.

Every diffusion family in the registry, as a tiny float64 model of its official layout: experts, shifted rows, partial
rotary positions and all. Each way of running must give the tokens, steps and log-probabilities of the oracle.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from revelm.core.registry import build
from revelm.decoding.dynamic import Dynamic
from revelm.decoding.joint import Joint
from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.engine.reference import decode_naively
from revelm.engine.settings import Approximate, Exact
from revelm.models.language_model import LanguageModel
from revelm.objectives.batch import Episode
from revelm.objectives.episode_rows import episode_rows
from revelm.objectives.policy import token_weights
from revelm.objectives.rows import collate
from revelm.objectives.score import score
from revelm.trajectories.record import Trajectory
from revelm.trajectories.replay import contexts, copies
from tests.families import diffusion_families, tiny
from tests.models import assert_same, prompt_of, sharpened

ANYWHERE: dict[str, dict[str, Any]] = {
    "no cache": {"cache": "none"},
    "one after another": {"num_slots": 1},
    "all at once": {"num_slots": 64},
}
BLOCKS: dict[str, dict[str, Any]] = ANYWHERE | {
    "separate commits": {"commit": "separate"},
    "prompts in pieces of a block": {"cache": Exact(prefill_rows=1)},
    "pages": {"cache": Exact(page_size=8)},
    "hardly any pages": {"cache": Exact(page_size=4, num_pages=8)},
    "reused prompts": {"cache": Exact(page_size=8, num_pages=9, reuses_prefixes=True)},
    "steps of fixed shapes": {"cache": Exact(steps_per_contact=3)},
}
CANVASES: dict[str, dict[str, Any]] = ANYWHERE | {
    f"{mode}, refreshed always": {"cache": Approximate(mode=mode, refresh_every=1)}
    for mode in ("prefix", "dual", "horizon", "vicinity")
}
WAYS = [
    (name, way)
    for name in diffusion_families()
    for way in (BLOCKS if build("models", name).attention == "block" else CANVASES)
]


@lru_cache(maxsize=8)
def model_of(name: str) -> LanguageModel:
    """A float64 model of the family whose distributions are far from flat. Shared: do not change it."""
    return sharpened(tiny(name).double(), 4.0)


@lru_cache(maxsize=8)
def asked(name: str) -> tuple[list[list[int]], list[Sampling], list[Trajectory]]:
    """Prompts of every remainder, some of them twice; and what the oracle answers."""
    rules = (Dynamic(0.3), Static(3), Joint(threshold=0.3, editing_threshold=0.0, max_post_steps=2))
    is_full = model_of(name).family.attention == "full"
    prompts, settings = [], []
    for seed in range(12):
        prompts.append(prompt_of(1 + (seed - seed % 2) * 5 // 6, seed - seed % 2))
        settings.append(
            Sampling(
                rule=rules[seed % 3],
                temperature=(1.0, 0.7, 0.0)[seed // 3 % 3],
                max_new_tokens=4 + seed * 5 % 13,
                block_size=(None, 3, 5)[seed % 3] if is_full else None,
                stop_ids=tuple(range(seed % 3, 44, 6)) if seed % 4 else (),
                seed=seed,
            )
        )
    answers = [decode_naively(model_of(name), p, s) for p, s in zip(prompts, settings, strict=True)]
    return prompts, settings, answers


@pytest.mark.parametrize(("name", "way"), WAYS, ids=lambda value: str(value))
def test_every_way_gives_the_answers_of_the_oracle(name: str, way: str) -> None:
    """Catches a cache, a layout, a schedule or a piece of a prompt that changes what a model says, for any family."""
    prompts, settings, expected = asked(name)
    options = (BLOCKS | CANVASES)[way]
    engine = Engine(model_of(name), **({"num_slots": 5} | options))
    order = np.random.default_rng(3).permutation(len(prompts)).tolist()
    if way == "steps of fixed shapes":  # rules that edit would make all requests go the other way
        order = [i for i in order if not settings[i].rule.is_editing]
    records = engine.generate([prompts[i] for i in order], [settings[i] for i in order])
    for i, record in zip(order, records, strict=True):
        assert_same(record, expected[i], forward=way != "separate commits")
        assert not record.approximate_cache


@pytest.mark.parametrize("name", diffusion_families())
def test_the_requests_are_worth_asking(name: str) -> None:
    """Catches comparisons of requests that all end alike, in their first block, without edits."""
    answers = asked(name)[2]
    assert {t.finish_reason for t in answers} == {"stop", "length"}
    assert len({len(t.prompt_ids) % 4 for t in answers}) == 4
    assert len({t.num_steps for t in answers}) > 3
    assert any(t.edits for t in answers)


@pytest.mark.parametrize("name", diffusion_families())
def test_replay_reproduces_what_every_family_recorded(name: str) -> None:
    """Catches a trainer that sees something else than the engine saw: experts, shifted rows, edited tokens."""
    model = model_of(name)
    replay = copies if model.family.attention == "block" else contexts
    rows = []
    for i, record in enumerate(asked(name)[2]):
        seen = replay(record, beyond_stop=True)
        rows += episode_rows(Episode(record, 1.0, 0, i), seen, model.family, token_weights(seen.target, "token"))
    batch = collate(rows, model.family)
    with torch.no_grad():
        assert (score(model, batch).logprob - batch.columns["behaviour"]).abs().max() < 1e-10


@pytest.mark.parametrize("name", diffusion_families())
def test_new_weights_are_used_at_once(name: str) -> None:
    """Catches keys, values, prompts or shapes kept from the weights of the step before."""
    prompts, settings, _ = asked(name)
    model = sharpened(tiny(name).double(), 4.0)
    cache = Exact(reuses_prefixes=True) if model.family.attention == "block" else "dual"
    engine = Engine(model, cache=cache)
    before = engine.generate(prompts, settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    engine.weights_version = 1
    after = engine.generate(prompts, settings)
    fresh = Engine(model, cache=cache).generate(prompts, settings)
    for record, expected in zip(after, fresh, strict=True):
        assert_same(record, replace(expected, weights_version=1))
        assert record.weights_version == 1
    assert any(a.completion_ids.tolist() != b.completion_ids.tolist() for a, b in zip(before, after, strict=True))
