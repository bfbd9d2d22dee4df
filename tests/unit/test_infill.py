"""Infilling: holes in a text of given tokens, against the oracle; and who may ask for it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import revelm
from revelm.core.types import Family
from revelm.decoding.dynamic import Dynamic
from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.engine.prompts import Infill, Prompt
from revelm.engine.settings import MODES, Approximate, CacheSpec, Uncached
from revelm.objectives.batch import Episode
from revelm.objectives.score import score
from revelm.objectives.trace_rl import TraceRL
from revelm.trajectories.record import GIVEN, NEVER, Trajectory
from revelm.trajectories.replay import canvas
from tests.editing import EDITORS, Remembering
from tests.full_attention import full_model
from tests.models import EOS, MASK, VOCAB, assert_same, declared_model, prompt_of
from tests.oracle import oracle

RULES = (Static(1), Dynamic(0.3), Static(3), *EDITORS[:2], Remembering(2, 0.1))
EXACT: tuple[CacheSpec, ...] = (Uncached(), *(Approximate(mode, refresh_every=1) for mode in MODES))
both_kinds = pytest.mark.parametrize("is_shifted", [False, True])


def text_with_holes(seed: int) -> list[int | None]:
    """Ids with holes: single ones, long ones, whole windows without any, at the end or not; stop ids among the ids."""
    rng = np.random.default_rng(seed)
    tokens: list[int | None] = [int(i) for i in rng.integers(0, EOS + 1, 12 + seed % 13)]
    first = 1 + seed % 5
    tokens[first] = None
    for _ in range(3):
        start, size = int(rng.integers(first, len(tokens))), int(rng.integers(1, 5))
        tokens[start : start + size] = [None] * len(tokens[start : start + size])
    return tokens


def requests(count: int = 24, **changes: Any) -> tuple[list[list[int | None]], list[Sampling]]:
    """Texts and settings of every rule, window and temperature; some explicit stop ids."""
    settings = [
        Sampling(
            temperature=(1.0, 0.0, 0.8)[seed // 2 % 3],
            rule=RULES[seed % len(RULES)],
            block_size=(None, 3, 5, 2)[seed % 4],
            stop_ids=tuple(range(seed % 3, EOS, 5)) if seed % 5 == 4 else (),
            seed=seed,
        )
        for seed in range(count)
    ]
    return [text_with_holes(seed) for seed in range(count)], [replace(s, **changes) for s in settings]


def expected(model: Any, tokens: list[int | None], sampling: Sampling) -> Trajectory:
    """What the oracle makes of it."""
    first = tokens.index(None)
    rest = tokens[first:]
    given = {place: token for place, token in enumerate(rest) if token is not None}
    settings = replace(sampling, max_new_tokens=len(rest), ignore_eos=True)
    return oracle(model, [t for t in tokens[:first] if t is not None], settings, given=given)


@both_kinds
def test_infilling_equals_the_oracle(is_shifted: bool) -> None:
    """Catches given tokens that are hidden, revealed, edited or taken for a stop, windows without a hole that are never
    left or that cost a step, and an end that does not wait for the last hole."""
    model = full_model(is_shifted=is_shifted)
    texts, settings = requests()
    answers = [expected(model, t, s) for t, s in zip(texts, settings, strict=True)]
    for num_slots, cache in ((1, EXACT[0]), (7, EXACT[0]), *((5, cache) for cache in EXACT[1:])):
        records = Engine(model, num_slots=num_slots, cache=cache).generate([Infill(t) for t in texts], settings)
        for record, true in zip(records, answers, strict=True):
            assert_same(record, true)
            assert [(e.step, e.position, e.token) for e in record.edits] == [
                (e.step, e.position, e.token) for e in true.edits
            ]
    assert {t.finish_reason for t in answers} == {"stop", "length"}
    assert sum(len(t.edits) for t in answers) > 5


@both_kinds
def test_the_record_holds_the_whole_text(is_shifted: bool) -> None:
    """Catches given tokens that are moved, changed or counted as decoded, and holes that are left."""
    texts, settings = requests(stop_ids=())
    records = Engine(full_model(is_shifted=is_shifted), num_slots=9).generate([Infill(t) for t in texts], settings)
    skipped = 0
    for tokens, sampling, record in zip(texts, settings, records, strict=True):
        assert len(record.prompt_ids) == tokens.index(None)
        found = canvas(record).tolist()
        assert len(found) == len(tokens)
        assert all(token in (None, new) for token, new in zip(tokens, found, strict=True))
        is_given = np.array([t is not None for t in tokens[tokens.index(None) :]])
        assert ((record.step == GIVEN) == is_given).all()
        assert ((record.forward == GIVEN) == is_given).all()
        assert (record.step != NEVER).all()
        assert (record.stop_length, record.finish_reason) == (len(is_given), "length")
        assert record.num_tokens == (~is_given).sum()
        assert sorted(e.position for e in record.events if e.kind == "reveal") == np.flatnonzero(~is_given).tolist()
        window = np.arange(len(is_given)) // record.block_size
        open_windows = len({int(w) for w in window[~is_given]})
        skipped += open_windows < window[-1] + 1
        if sampling.rule == Static(1):
            assert record.num_steps == (~is_given).sum()
    assert skipped > 3


def test_the_family_does_not_stop_an_infill() -> None:
    """Catches a text that is cut where the model happens to write its end token, or at one that was given."""
    model = declared_model("full")
    tokens: list[int | None] = [1, 2, None, EOS, None, None, 3, None]
    eager = replace(model.family, stop_ids=tuple(range(EOS + 1)))
    assert_ends(eager, tokens, Sampling(rule=Static(1)), "length", 6)
    assert_ends(eager, tokens, Sampling(rule=Static(1), stop_ids=(EOS, 3)), "length", 6)
    assert_ends(eager, tokens, Sampling(rule=Static(1), stop_ids=tuple(range(EOS + 1))), "stop", 1)


def assert_ends(family: Family, tokens: list[int | None], sampling: Sampling, reason: str, length: int) -> None:
    """Decode with another family's facts and look at the end."""
    model = declared_model("full")
    before = model.family
    try:
        model.family = family
        record = Engine(model).generate([Infill(tokens)], replace(sampling, banned_ids=(EOS, 3), block_size=1))[0]
    finally:
        model.family = before
    assert (record.finish_reason, record.stop_length) == (reason, length)


@both_kinds
def test_replay_reproduces_what_was_filled_in(is_shifted: bool) -> None:
    """Catches given tokens that training hides or predicts."""
    model = full_model(is_shifted=is_shifted)
    texts, settings = requests(40, stop_ids=())
    settings = [replace(s, rule=Static(2)) if s.rule.memory_size(VOCAB) else s for s in settings]
    records = Engine(model, num_slots=9).generate([Infill(t) for t in texts], settings)
    batch = TraceRL().prepare([Episode(t, 0.0, 0, i, 1.0) for i, t in enumerate(records)], model.family, 0)
    assert len(batch.targets) == sum(len(t.events) for t in records)
    with torch.no_grad():
        assert (score(model, batch).logprob - batch.columns["behaviour"]).abs().max() < 1e-10


def test_holes_and_answers_run_side_by_side() -> None:
    """Catches given tokens of one request that are seen in another one's slot."""
    model = full_model()
    texts, settings = requests()
    prompts: list[Prompt] = [Infill(t) if i % 2 else prompt_of(3 + i % 4, i) for i, t in enumerate(texts)]
    settings = [s if i % 2 else replace(s, max_new_tokens=4 + i % 9) for i, s in enumerate(settings)]
    for cache in (Uncached(), Approximate("dual"), Approximate("horizon", horizon=2)):
        single = Engine(model, num_slots=1, cache=cache)
        own = [single.generate([p], [s])[0] for p, s in zip(prompts, settings, strict=True)]
        for record, true in zip(Engine(model, num_slots=6, cache=cache).generate(prompts, settings), own, strict=True):
            assert_same(record, true)
    assert any((t.step == GIVEN).any() for t in own)
    assert any((t.step != GIVEN).all() for t in own)


def test_streams_tell_of_holes_only() -> None:
    """Catches news of tokens that were given."""
    tokens: list[int | None] = [1, None, 5, 6, None, None]
    news = list(Engine(full_model()).stream([Infill(tokens)], Sampling(rule=Static(1))))
    assert sorted(e.position for u in news for e in u.events) == [0, 3, 4]


@pytest.mark.parametrize(
    ("tokens", "settings", "message"),
    [
        ([1, 2, 3], {}, r"prompt 0: the Infill has no hole; give token ids first, then None"),
        ([], {}, r"prompt 0: the Infill has no hole"),
        ([None, 2], {}, r"prompt 0: the Infill begins with a hole"),
        ([1, None, 3], {"max_new_tokens": 1}, r"max_new_tokens is 1, but the Infill has 2 positions from its first"),
        ([1, None, MASK], {}, r"prompt 0: the Infill holds the mask token \(id 48\); a hole is None"),
        ([1, None, VOCAB], {}, r"prompt 0 holds ids outside the model's vocabulary of 50"),
        ([1, None, -1], {}, r"prompt 0 holds ids outside the model's vocabulary of 50"),
        ([1] * 256 + [None], {}, r"prompt 0 has 256 tokens, which leaves no room"),
        ([1] * 200 + [None] * 57, {}, r"200 tokens plus max_new_tokens=57 needs 257 positions; the model has 256"),
    ],
)
def test_texts_that_cannot_be_filled_are_refused(tokens: Any, settings: Any, message: str) -> None:
    """Catches holes written as mask tokens, lengths that contradict the text, and texts that do not fit."""
    engine = Engine(full_model())
    with pytest.raises(ValueError, match=message):
        engine.generate([Infill(tokens)], Sampling(**settings))
    assert engine.stats.forwards == 0


def test_block_models_and_bare_infills_are_refused() -> None:
    """Catches a block model that ignores what stands behind a hole, and one Infill read as a list of prompts."""
    with pytest.raises(ValueError, match=r"an Infill needs full attention, but tiny-block writes block after block"):
        Engine(declared_model("block")).generate([Infill([1, None, 2])])
    with pytest.raises(ValueError, match=r"expected a list of prompts, got a single one; write \[prompt\]"):
        Engine(full_model()).generate(Infill([1, None]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"prompt 0: sampling.stop_strings cannot be searched in an Infill"):
        Engine(full_model(), object()).generate([Infill([1, None])], Sampling(stop_strings=("x",)))
    fixed = Sampling(max_new_tokens=2, rule=Static(1))
    assert len(Engine(full_model()).generate([revelm.Infill([1, None, 4])], fixed)[0].step) == 2
