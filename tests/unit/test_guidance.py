"""Classifier-free guidance: a second canvas without its prompt beside each guided one."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from revelm.decoding.credit import Credit
from revelm.decoding.dynamic import Dynamic
from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.engine.prompts import Infill
from revelm.engine.reference import decode_naively
from revelm.engine.settings import MODES
from revelm.models.language_model import LanguageModel
from revelm.objectives.batch import Episode
from revelm.objectives.score import score
from revelm.objectives.trace_rl import TraceRL
from revelm.trajectories.record import Trajectory
from tests.editing import EDITORS, Remembering
from tests.full_attention import full_model
from tests.models import EOS, assert_same, declared_model, prompt_of
from tests.oracle import oracles

RULES = (Static(1), Dynamic(0.4), Static(3), Credit(0.5), Remembering(1, 0.2), EDITORS[0])
WEIGHTS = (1.5, 0.0, 4.0, 0.0, 0.3)
KINDS = {"full": False, "shifted": True}


def model_of(kind: str) -> LanguageModel:
    """A model with or without a shift, of either attention."""
    return declared_model("block") if kind == "block" else full_model(is_shifted=KINDS[kind])


def requests(kind: str, count: int = 30, **changes: Any) -> tuple[list[list[int]], list[Sampling]]:
    """Guided and unguided requests of all rules and lengths, in turn."""
    settings = [
        Sampling(
            temperature=(1.0, 0.0, 0.7)[seed // 2 % 3],
            guidance=WEIGHTS[seed % len(WEIGHTS)],
            rule=RULES[seed % len(RULES)],
            max_new_tokens=3 + seed * 5 % 14,
            block_size=None if kind == "block" else (None, 4, 3)[seed % 3],
            confidence=("token", "max", "margin")[seed % 3],
            top_k=7 if seed % 7 == 3 else 0,
            stop_ids=tuple(range(seed % 3, EOS, 15)) if seed % 4 else (),
            seed=seed,
        )
        for seed in range(count)
    ]
    return [prompt_of(1 + seed % 7, seed) for seed in range(count)], [replace(s, **changes) for s in settings]


@pytest.mark.parametrize("kind", ["full", "shifted", "block"])
def test_guided_decoding_equals_the_oracle(kind: str) -> None:
    """Catches a prompt hidden in the wrong rows, features of another request's second canvas, unguided requests that
    are guided by a neighbour, and guidance that changes what is recorded."""
    model, (prompts, settings) = model_of(kind), requests(kind)
    answers = oracles(model, prompts, settings)
    for num_slots in (1, 7):
        records = Engine(model, num_slots=num_slots, cache="none").generate(prompts, settings)
        for record, expected in zip(records, answers, strict=True):
            assert_same(record, expected)
            assert len(record.edits) == len(expected.edits)
    plain = oracles(model, prompts, [replace(s, guidance=0.0) for s in settings])
    changed = [a.completion_ids.tolist() != b.completion_ids.tolist() for a, b in zip(answers, plain, strict=True)]
    guided = [s.guidance > 0 for s in settings]
    assert sum(changed) > sum(guided) // 2
    assert not any(c and not g for c, g in zip(changed, guided, strict=True))


@pytest.mark.parametrize("kind", ["full", "shifted"])
def test_alone_and_among_unguided_others(kind: str) -> None:
    """Catches second canvases that are counted as slots, or that depend on who else is guided."""
    model, (prompts, settings) = model_of(kind), requests(kind)
    alone = oracles(model, prompts, settings)
    for num_slots in (3, 30):
        order = list(range(len(prompts)))[:: -1 if num_slots == 3 else 1]
        engine = Engine(model, num_slots=num_slots)
        records = engine.generate([prompts[i] for i in order], [settings[i] for i in order])
        for i, record in zip(order, records, strict=True):
            assert_same(record, alone[i])


def test_the_price_is_one_more_canvas_per_guided_request() -> None:
    """Catches second canvases of requests that are not guided."""
    engine, rows = Engine(full_model()), []
    settings = [Sampling(rule=Static(8), guidance=w, max_new_tokens=8, ignore_eos=True) for w in (0.0, 2.0, 0.0)]
    for chosen in (settings, settings[::2], settings[1:2]):
        before = engine.stats.rows
        engine.generate([prompt_of(4, i) for i in range(len(chosen))], chosen)
        rows.append(engine.stats.rows - before)
    assert rows == [12 * 4, 12 * 2, 12 * 2]


def log_ratios(model: LanguageModel, records: list[Trajectory]) -> torch.Tensor:
    """What the trainer makes of the records, minus what they say."""
    batch = TraceRL().prepare([Episode(t, 0.0, 0, i, 1.0) for i, t in enumerate(records)], model.family, 0)
    with torch.no_grad():
        return score(model, batch).logprob - batch.columns["behaviour"]


@pytest.mark.parametrize("kind", ["full", "shifted"])
def test_records_hold_the_unguided_log_probabilities(kind: str) -> None:
    """Catches records of the guided distribution: training would compare another policy with itself."""
    model, (prompts, settings) = model_of(kind), requests(kind)
    settings = [replace(s, rule=Static(2)) if isinstance(s.rule, Remembering) else s for s in settings]
    records = Engine(model, num_slots=8).generate(prompts, settings)
    assert log_ratios(model, records).abs().max() < 1e-10
    for record, sampling in zip(records, settings, strict=True):
        assert record.sampling["guidance"] == sampling.guidance
        assert record.is_filtered or not sampling.guidance


def test_guided_holes_keep_what_was_given() -> None:
    """Catches a second canvas in which given tokens are hidden with the prompt."""
    model, tokens = full_model(), [3, 4, 5, None, 6, None, None, 7, None]
    for seed in range(6):
        sampling = Sampling(guidance=2.0, rule=Static(1), seed=seed, block_size=(None, 3)[seed % 2])
        record = Engine(model).generate([Infill(tokens)], [sampling])[0]
        fixed = replace(sampling, max_new_tokens=6, ignore_eos=True)
        assert_same(record, decode_naively(model, [3, 4, 5], fixed, given={1: 6, 4: 7}))


@pytest.mark.parametrize(("attention", "cache"), [("block", "exact"), ("block", "auto"), *(("full", m) for m in MODES)])
def test_caches_refuse_guidance(attention: str, cache: Any) -> None:
    """Catches guidance that is silently left out."""
    engine = Engine(declared_model(attention), cache=cache)
    settings = [Sampling(max_new_tokens=4), Sampling(max_new_tokens=4, guidance=1.5)]
    with pytest.raises(ValueError, match=r"prompt 1: sampling.guidance is 1.5, which needs a second canvas .*'none'"):
        engine.generate([[1, 2], [3]], settings)
    assert engine.stats.forwards == 0
    assert engine.num_waiting == 0
