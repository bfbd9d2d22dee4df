"""The engine with rules that edit, and with given tokens, against the oracle: tokens, steps, edits and forwards."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from revelm.decoding.sampling import Sampling
from revelm.engine.engine import Engine
from revelm.engine.prompts import Infill
from revelm.trajectories.record import GIVEN, Trajectory
from tests.editing import Remembering, given_of, settings_of
from tests.full_attention import full_model
from tests.models import assert_same, prompt_of, sharp_model
from tests.oracle import oracle


def assert_same_edits(one: Trajectory, other: Trajectory) -> None:
    """The same record, edits and counts of forwards included."""
    assert_same(one, other)
    assert [replace(e, logprob=0.0) for e in one.edits] == [replace(e, logprob=0.0) for e in other.edits]
    np.testing.assert_allclose([e.logprob for e in one.edits], [e.logprob for e in other.edits], rtol=0, atol=1e-10)
    assert one.num_forwards == other.num_forwards


@pytest.mark.parametrize("changes", [{}, {"repetition_penalty": 1.8}, {"rule": Remembering(1, 0.0)}], ids=str)
@pytest.mark.parametrize("kind", ["block", "full", "shifted"])
def test_the_engine_edits_as_the_oracle_does(kind: str, changes: dict[str, Any]) -> None:
    """Catches windows settled while something is hidden or a step too late, edits of prompt tokens or of finished
    windows, stale keys and values of a token that was replaced, and memory that outlives its window."""
    model = sharp_model() if kind == "block" else full_model(is_shifted=kind == "shifted")
    windows = (None,) if kind == "block" else (None, 5, 4, 3)
    settings = [settings_of(s, block_size=windows[s % len(windows)], **changes) for s in range(16)]
    prompts = [prompt_of(1 + s % 7, s) for s in range(16)]
    found = Engine(model, num_slots=5).generate(prompts, settings)
    for prompt, sampling, record in zip(prompts, settings, found, strict=True):
        assert_same_edits(record, oracle(model, prompt, sampling))
    assert sum(len(t.edits) for t in found) > 20


@pytest.mark.parametrize("changes", [{}, {"guidance": 1.5}, {"repetition_penalty": 1.8}], ids=str)
@pytest.mark.parametrize("is_shifted", [False, True])
def test_the_engine_fills_holes_as_the_oracle_does(is_shifted: bool, changes: dict[str, Any]) -> None:
    """Catches given tokens that are edited, hidden, recorded as reveals or missing from a penalty."""
    model = full_model(is_shifted=is_shifted)
    prompts: list[Infill] = []
    settings: list[Sampling] = []
    expected: list[Trajectory] = []
    for seed in range(24):
        sampling = settings_of(seed, block_size=(None, 5, 4, 3)[seed % 4], ignore_eos=True, **changes)
        size = sampling.max_new_tokens or 0
        given = {place: token for place, token in given_of(seed, size).items() if place}
        if not given:
            continue
        prompt = prompt_of(1 + seed % 7, seed)
        prompts.append(Infill([*prompt, *(given.get(place) for place in range(size))]))
        settings.append(sampling)
        expected.append(oracle(model, prompt, sampling, given=given))
    for record, true in zip(Engine(model, num_slots=5).generate(prompts, settings), expected, strict=True):
        assert_same_edits(record, true)
    assert sum(int((t.step == GIVEN).sum()) for t in expected) > 20
    assert any(t.edits for t in expected)
