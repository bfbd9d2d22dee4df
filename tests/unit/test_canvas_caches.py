"""Approximate caches of full-attention models: against a slow telling of each mode, and against the exact oracle."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.compared import Compared
from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.assemble import assemble
from revelm.engine.budget import size_of
from revelm.engine.canvases import CanvasCache
from revelm.engine.engine import Engine
from revelm.engine.prompts import make_requests
from revelm.engine.reference import decode_naively
from revelm.engine.run import Run
from revelm.engine.settings import MODES, Approximate
from revelm.engine.stats import EngineStats
from revelm.models.language_model import LanguageModel
from revelm.trajectories.record import Trajectory
from tests.canvas_cases import FREE, Case, asked, assert_alike, cases, rows_per_step
from tests.canvas_reference import RememberingModel
from tests.full_attention import full_model
from tests.models import prompt_of, started
from tests.oracle import oracle

POLICIES: tuple[Approximate, ...] = (
    *(Approximate(mode, horizon=4, before=2, after=3) for mode in MODES),
    *(Approximate(mode, horizon=1, before=4, after=1, refresh_every=3, warmup_steps=2) for mode in MODES),
    *(Approximate("horizon", horizon=h) for h in (0, 100)),
    Approximate("vicinity", before=0, after=0, refresh_every=2),
    Approximate("vicinity", before=100, after=100),
    Approximate("dual", warmup_steps=3),
)
both_kinds = pytest.mark.parametrize("is_shifted", [False, True])


@cache
def exact(is_shifted: bool) -> tuple[Trajectory, ...]:
    """What the oracle makes of the same requests."""
    model = full_model(is_shifted=is_shifted)
    return tuple(oracle(model, p, s, given=given) for p, given, s in cases())


def told(model: LanguageModel, how: Approximate, case: Case, fault: str = "") -> Trajectory:
    """The slow telling of one request."""
    prompt, given, sampling = case
    slow: Any = RememberingModel(model, how, fault)
    with torch.inference_mode():
        return decode_naively(slow, prompt, sampling, given=given)


@both_kinds
@pytest.mark.parametrize("how", POLICIES, ids=str)
def test_every_mode_is_what_it_says(how: Approximate, is_shifted: bool) -> None:
    """Catches rows too few or too many, keys seen that should not be, refreshes that come late or not at all,
    the missing row before the window of shifted models, and slots that move without theirs."""
    model, found = full_model(is_shifted=is_shifted), cases()
    records = Engine(model, num_slots=5, cache=how).generate(*asked(found))
    for case, record in zip(found, records, strict=True):
        assert_alike(record, told(model, how, case))
        assert record.approximate_cache
    pairs = zip(records, exact(is_shifted), strict=True)
    assert sum(a.logprob.tolist() != b.logprob.tolist() for a, b in pairs) > 6
    assert sum(len(t.edits) for t in records) > 10
    assert {t.finish_reason for t in records} == {"stop", "length"}


@pytest.mark.parametrize(
    ("fault", "modes"),
    [("entry", MODES), ("limit", ("dual", "horizon", "vicinity")), ("shift", ("prefix", "dual", "horizon"))],
)
def test_the_slow_telling_notices_mistakes(fault: str, modes: Sequence[Any]) -> None:
    """Catches a comparison that would pass with stale windows, wrong limits or a lost row."""
    model = full_model(is_shifted=True)
    found = [(prompt, given, replace(s, stop_ids=())) for prompt, given, s in cases() if s.block_size]
    for mode in modes:
        how = Approximate(mode, horizon=2, before=0 if fault == "shift" else 2, after=1)
        right = [told(model, how, case) for case in found]
        wrong = [told(model, how, case, fault) for case in found]
        pairs = zip(right, wrong, strict=True)
        assert sum(a.logprob.tolist() != b.logprob.tolist() for a, b in pairs) >= len(found) // 3, mode


@both_kinds
@pytest.mark.parametrize("mode", MODES)
def test_a_refresh_in_every_step_is_exact(mode: Any, is_shifted: bool) -> None:
    """Catches full recomputes that are not: wrong limits, a wrong first row of shifted models, windows off by one."""
    model, found = full_model(is_shifted=is_shifted), cases()
    how = Approximate(mode, horizon=1, before=1, after=1, refresh_every=1)
    records = Engine(model, num_slots=6, cache=how).generate(*asked(found))
    for record, expected in zip(records, exact(is_shifted), strict=True):
        assert_alike(record, expected)
        assert not record.approximate_cache
    assert sum(len(t.edits) for t in records) > 10


def compared(model: LanguageModel, how: Approximate, found: Sequence[Case], num_slots: int) -> tuple[Compared, Run]:
    """A run whose every forward is compared with a full recompute of the same canvases."""
    prompts, settings = asked(found)
    requests = make_requests(prompts, settings, model.family, None)
    inner = assemble(model, how, size=size_of(requests, num_slots), stats=EngineStats())
    assert isinstance(inner, CanvasCache)
    forwards = Compared(inner)
    run = Run(forwards, None)
    for request in requests:
        run.scheduler.add(request)
    return forwards, run


@both_kinds
@pytest.mark.parametrize("how", POLICIES[:8], ids=str)
def test_a_refreshed_step_is_the_exact_one_and_others_are_not(how: Approximate, is_shifted: bool) -> None:
    """Catches a refresh that leaves stale rows, and a comparison that never leaves the refreshes."""
    forwards, run = compared(full_model(is_shifted=is_shifted), how, cases(), 5)
    assert all(rows_per_step(run))
    refreshed = torch.cat([s.divergence[s.is_refreshed] for s in forwards.steps])
    cached = torch.cat([s.divergence[~s.is_refreshed] for s in forwards.steps])
    assert len(refreshed) > 100
    assert len(cached) > 100
    assert refreshed.abs().max() < 1e-12
    assert cached.min() > -1e-12
    assert (cached > 1e-8).sum() > 5


@both_kinds
@pytest.mark.parametrize("mode", MODES)
def test_alone_and_among_others(mode: Any, is_shifted: bool) -> None:
    """Catches a neighbour's refresh, window or canvas, K/V left by the last one in the slot, and ages that stay behind
    when slots move."""
    model, how = full_model(is_shifted=is_shifted), Approximate(mode, horizon=3, before=3, after=2, refresh_every=5)
    prompts, settings = asked(cases(16))
    one = Engine(model, num_slots=1, cache=how)
    alone = [one.generate([p], [s])[0] for p, s in zip(prompts, settings, strict=True)]
    paged = replace(how, page_size=6, num_pages=11)
    for num_slots, spec in ((3, how), (64, how), (9, paged)):
        order = np.random.default_rng(num_slots).permutation(len(prompts)).tolist()
        engine = Engine(model, num_slots=num_slots, cache=spec)
        records = engine.generate([prompts[i] for i in order], [settings[i] for i in order])
        for i, record in zip(order, records, strict=True):
            assert_alike(record, alone[i])
    assert len({t.num_steps for t in alone}) > 6


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Approximate("prefix"), [20, 14, 14, 20, 9, 9, 20, 4]),
        (Approximate("dual"), [20, 5, 5, 20, 5, 5, 20, 4]),
        (Approximate("horizon", horizon=3), [20, 8, 8, 20, 8, 8, 20, 4]),
        (Approximate("horizon", horizon=7), [20, 12, 12, 20, 9, 9, 20, 4]),
        (Approximate("vicinity", before=2, after=5), [20, 12, 12, 20, 11, 11, 20, 6]),
        (Approximate("vicinity", before=9, after=0), [20, 11, 11, 20, 14, 14, 20, 13]),
        (Approximate("dual", refresh_every=2), [20, 5, 20, 20, 5, 20, 20, 4]),
        (Approximate("dual", warmup_steps=2), [20, 20, 5, 20, 20, 5, 20, 20]),
        (Approximate("dual", refresh_every=1), [20] * 8),
    ],
    ids=str,
)
@both_kinds
def test_rows_of_every_step(how: Approximate, expected: list[int], is_shifted: bool) -> None:
    """Catches a mode that runs more than it says, and so is no faster, or less; the last window is a shorter one."""
    case = (prompt_of(6, 0), {}, Sampling(rule=Static(2), max_new_tokens=14, block_size=5, **FREE))
    run = started(Engine(full_model(is_shifted=is_shifted), cache=how), *asked([case]))
    rows = list(rows_per_step(run))
    extra = int(is_shifted and how.reach[0] == 0)
    assert rows == [n + extra * (n < 20) for n in expected]
    slow: Any = RememberingModel(full_model(is_shifted=is_shifted), how)
    with torch.inference_mode():
        decode_naively(slow, case[0], case[2])
    assert slow.num_rows == rows


@both_kinds
@pytest.mark.parametrize("mode", MODES)
def test_what_is_not_to_be_seen_never_is(mode: Any, is_shifted: bool) -> None:
    """Catches keys behind a canvas or a horizon that are seen, and a remembered feature that is taken for the row in
    front of a span: everything of that kind is spoilt before every step."""
    model, how = full_model(is_shifted=is_shifted), Approximate(mode, horizon=2, before=2, after=1, refresh_every=4)
    clean = Engine(model, num_slots=4, cache=how).generate(*asked(cases()))
    run = started(Engine(model, num_slots=4, cache=how), *asked(cases()))
    forwards = run.forwards
    assert isinstance(forwards, CanvasCache)
    results: dict[int, Trajectory] = {}
    with torch.inference_mode():
        while run.is_busy:
            run.scheduler.fill(run.version)
            forwards.cache.boundary.fill_(torch.nan)
            limits = forwards._spans()[1].tolist()
            for slot, limit in enumerate(limits):
                forwards.cache.store[:, :, slot, limit:] = 1e3
            forwards.cache.store[:, :, len(limits) :] = 1e3
            results |= {u.index: u.trajectory for u in run.step() if u.trajectory is not None}
    for i, expected in enumerate(clean):
        assert_alike(results[i], expected)
