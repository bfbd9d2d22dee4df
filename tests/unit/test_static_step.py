"""Steps of fixed shapes: the same answers as the loop's own, whatever stands beside a request, without the host."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from revelm.decoding.credit import Credit
from revelm.decoding.dynamic import Dynamic
from revelm.decoding.entropy_bounded import EntropyBounded
from revelm.decoding.factor import Factor
from revelm.decoding.hierarchical import Hierarchical
from revelm.decoding.random import Random
from revelm.decoding.rule import Rule
from revelm.decoding.sampling import Sampling
from revelm.decoding.sequential import Sequential
from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.engine.reference import decode_naively
from revelm.engine.run import Run
from revelm.engine.settings import Exact, Limits
from revelm.engine.static_step import StaticSteps, bucket, has_fixed_shapes
from revelm.engine.uniform_rows import uniform_rows
from revelm.models.load import new_model
from revelm.trajectories.record import Trajectory
from tests.editing import Editor
from tests.families import tiny
from tests.models import (
    EOS,
    assert_same,
    declared_model,
    mixed_requests,
    prompt_of,
    sharp_model,
    sharpened,
    started,
    tiny_config,
)
from tests.no_host import NoHost
from tests.oracle import oracles

MANY_RULES: tuple[Rule, ...] = (
    *(Static(1), Static(3), Dynamic(0.3), Random(2), Random(1), Factor(1.5)),
    *(EntropyBounded(0.5), Hierarchical(0.7, 0.2), Sequential(2), Dynamic(0.9), Credit(0.3)),
)
DRAWS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"min_p": 0.2, "confidence": "max", "repetition_penalty": 1.5},
    {"temperature": 0.6, "banned_ids": (3, 5, 8)},
    {"temperature": 1.4, "top_k": 7, "confidence": "margin"},
    {"top_p": 0.7},
    {},
    {"temperature": 0.7, "top_k": 9, "top_p": 0.9, "min_p": 0.05},
)


def steps_of(count: int, **options: Any) -> Exact:
    return Exact(steps_per_contact=count, **options)


def all_kinds(count: int) -> tuple[list[list[int]], list[Sampling]]:
    """Every rule beside every kind of draw, in one batch."""
    prompts, settings = [], []
    for i in range(count):
        rule, draw = MANY_RULES[i % len(MANY_RULES)], DRAWS[i % len(DRAWS)]
        fixed: dict[str, Any] = {"max_new_tokens": 3 + i * 5 % 19, "seed": i, "stop_ids": (i % 11, 20 + i % 13)}
        settings.append(Sampling(rule=rule, **fixed, **draw))
        prompts.append(prompt_of(1 + i * 3 % 14, i))
    return prompts, settings


def levelled(engine: Engine, prompts: list[list[int]], settings: Any) -> tuple[Run, StaticSteps]:
    """A run behind its first step, which read the prompts, and the static steps that come next."""
    run = started(engine, prompts, settings)
    run.step()
    static = run.forwards.static_steps()
    assert static is not None
    return run, static


def tables(run: Run) -> dict[str, Tensor]:
    return {name: table.clone() for name, table in (run.slots.position | run.slots.slot).items()}


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    """Not inference mode: models are shared with other tests."""
    with torch.no_grad():
        yield


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize(
    ("rule", "block_size"), [(Static(1), 4), (Static(3), 4), (Dynamic(0.3), 3), (Static(1), 1), (Dynamic(0.3), 8)]
)
def test_static_steps_equal_the_oracle(rule: Rule, block_size: int, is_shifted: bool) -> None:
    """Catches a block that is committed late, twice or never, a shifted row that forgets, a limit or cap that is off by
    one, ends in the middle of a row of steps, and slots, which are never as many as a bucket holds, that mix."""
    model = declared_model("block", is_shifted=is_shifted, block_size=block_size)
    prompts, settings = mixed_requests(rule, range(1, 2 * block_size + 2))
    expected = oracles(model, prompts, settings)
    for steps in (2, 5):
        engine = Engine(model, num_slots=5, cache=steps_of(steps))
        for record, other in zip(engine.generate(prompts, settings), expected, strict=True):
            assert_same(record, other)
        assert engine.stats.static_forwards > 0
    ends = {(t.stop_length + len(t.prompt_ids) - 1) // block_size for t in expected if t.finish_reason == "stop"}
    assert len(ends) > 2
    assert {t.finish_reason for t in expected} == {"stop", "length"}


@pytest.mark.parametrize("num_slots", [3, 7, 40])
def test_a_batch_may_mix_rules_and_draws(num_slots: int) -> None:
    """Catches a row that is decided by its neighbour's rule, settings that stay with the slot when its request goes,
    and an answer that depends on how many steps lie between two looks of the host."""
    prompts, settings = all_kinds(40)
    expected = oracles(sharp_model(), prompts, settings)
    for steps in (2, 3, 8):
        engine = Engine(sharp_model(), num_slots=num_slots, cache=steps_of(steps))
        for record, other in zip(engine.generate(prompts, settings), expected, strict=True):
            assert_same(record, other)
        assert engine.stats.static_forwards > engine.stats.forwards / 3
        assert engine.stats.prefills == 40


def test_logits_in_pieces_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches pieces of a large batch whose numbers, settings or rules are those of the first piece."""
    prompts, settings = all_kinds(24)
    whole = Engine(sharp_model(), num_slots=11, cache=steps_of(4)).generate(prompts, settings)
    monkeypatch.setattr("revelm.engine.decide.MAX_LOGITS", 3 * 4 * 50)
    pieces = Engine(sharp_model(), num_slots=11, cache=steps_of(4)).generate(prompts, settings)
    for one, other in zip(whole, pieces, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(("num_pages", "preempts"), [(None, False), (40, False), (20, True), (9, True)])
def test_pages_are_taken_ahead_or_the_loop_goes_its_way(num_pages: int | None, preempts: bool) -> None:
    """Catches rows written to pages that nobody has yet, or that another request has, a pool that leaks what was taken
    ahead, and one that is full of what nobody needs yet."""
    model = sharp_model()
    prompts, settings = mixed_requests(Static(1), range(1, 10))
    expected = oracles(model, prompts, settings)
    engine = Engine(model, num_slots=6, cache=steps_of(5, page_size=4, num_pages=num_pages))
    run = started(engine, prompts, settings)
    run.forwards.cache.store.fill_(1e4)
    pages, found = run.forwards.cache.pages, {}
    while engine.is_busy:
        found |= {u.index: u.trajectory for u in engine.step()}
        for slot, end in enumerate(run.slots.window_ends().tolist()):
            assert len(pages.held[slot]) <= pages.layout.pages_for(end)
    for i, other in enumerate(expected):
        assert_same(found[i], other)
    assert pages.num_idle == pages.layout.num_pages
    assert engine.stats.static_forwards > 0
    assert (engine.stats.preemptions > 0) == preempts


@pytest.mark.parametrize("page_size", [None, 8])
@pytest.mark.parametrize("reuses_prefixes", [False, True])
def test_groups_and_known_prompts_go_on_by_static_steps(page_size: int | None, reuses_prefixes: bool) -> None:
    """Catches members of a group that write into the prompt they share, or begin before it was read."""
    model, prompt = sharp_model(), prompt_of(22, 3)
    settings = [Sampling(rule=Static(1), max_new_tokens=5 + i % 7, seed=i) for i in range(12)]
    expected = oracles(model, [prompt] * 12, settings)
    cache = steps_of(3, page_size=page_size, reuses_prefixes=reuses_prefixes)
    engine = Engine(model, num_slots=5, cache=cache)
    for repeat in range(2):
        for record, other in zip(engine.generate([prompt] * 12, settings), expected, strict=True):
            assert_same(record, other)
        assert engine.stats.prefills == (1 if reuses_prefixes else repeat + 1)
    assert engine.stats.static_forwards > engine.stats.forwards / 2


@pytest.mark.parametrize("page_size", [None, 4])
@pytest.mark.parametrize("is_shifted", [False, True])
def test_dead_rows_write_only_to_scratch(is_shifted: bool, page_size: int | None) -> None:
    """Catches keys and values of slots that are done, idle or have nothing to commit, which overwrite what others, or
    they themselves, still need; and anybody who reads the scratch page."""
    model = declared_model("block", is_shifted=is_shifted)
    prompts = [prompt_of(n, n) for n in (5, 8, 14, 3, 9, 7, 7)]
    lengths = (4, 40, 40, 12, 40, 1, 40)  # the first step ends one: the last slot is idle
    settings = [Sampling(rule=Static(2), max_new_tokens=n, seed=n, ignore_eos=True) for n in lengths]
    run, static = levelled(Engine(model, num_slots=7, cache=steps_of(12, page_size=page_size)), prompts, settings)
    cache, slots, size = run.forwards.cache, run.slots, 4
    layout, kinds = cache.layout, set()
    scratch = layout.num_pages * layout.page_size
    arguments = static.begin()
    for _ in range(9):
        cache.store[:, :, layout.num_pages] = torch.nan
        cache.boundary[layout.num_slots] = torch.nan
        is_live = static.live.tolist()
        start, pending = slots.slot["start"].tolist(), (slots.slot["cached"] < slots.slot["start"]).tolist()
        used = [
            int(cache.pages.where(torch.tensor(slot), torch.tensor(position)))
            for slot in range(7)
            if is_live[slot]
            for position in range(start[slot] - size * pending[slot], start[slot] + size)
        ]
        kinds |= {(is_live[slot], pending[slot]) for slot in range(7)}
        places = uniform_rows(slots, cache, static.live[: arguments[0]], num_keys=arguments[1]).places.tolist()
        assert sorted(place for place in places if place != scratch) == sorted(used)
        before, remembered = cache.store.clone(), cache.boundary.clone()
        static.step(*arguments)
        is_same = (cache.store == before).flatten(2, 3).all(-1).all(-1)[..., :scratch].flatten(0, 1)
        assert set((~is_same).any(0).nonzero()[:, 0].tolist()) <= set(used)
        kept = [slot for slot in range(7) if not (is_live[slot] and pending[slot] and is_shifted)]
        assert torch.equal(cache.boundary[kept], remembered[kept])
        assert bool(static.is_finite)
        assert cache.store[:, :, : layout.num_pages].isfinite().all()
    assert kinds == {(True, True), (True, False), (False, True), (False, False)}
    assert (run.slots.count, len(is_live), sum(is_live)) == (6, 7, 4)


def test_who_has_ended_stays_as_it_is() -> None:
    """Catches tokens, steps or counts that change between a request's end and the next look of the host."""
    prompts, settings = mixed_requests(Dynamic(0.3), range(1, 9))
    run, static = levelled(Engine(sharp_model(), num_slots=20, cache=steps_of(50)), prompts, settings)
    arguments, frozen = static.begin(), {}
    for _ in range(30):
        static.step(*arguments)
        now = tables(run)
        for slot, (end, is_stop) in enumerate(zip(static.end.tolist(), static.is_stop.tolist(), strict=True)):
            if end < 0:
                continue
            rows = {name: table[slot] for name, table in now.items()}
            first_end, first_stop, first_rows = frozen.setdefault(slot, (end, is_stop, rows))
            assert (end, is_stop) == (first_end, first_stop)
            assert all(torch.equal(rows[name], first_rows[name]) for name in rows)
    assert len(frozen) > 10
    assert not static.live[list(frozen)].any()


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("page_size", [None, 4])
def test_a_static_step_never_asks_the_host(page_size: int | None, is_shifted: bool) -> None:
    """Catches a wait for the device, a copy from the host and a shape that depends on contents: each of them stops a
    CUDA graph from being captured, or makes it repeat what is no longer true."""
    prompts, settings = all_kinds(13)
    engine = Engine(declared_model("block", is_shifted=is_shifted), cache=steps_of(6, page_size=page_size))
    _, static = levelled(engine, prompts, settings)
    arguments, calls = static.begin(), []
    static.step(*arguments)
    for _ in range(6):
        with NoHost() as guard:
            static.step(*arguments)
        calls.append(guard.calls)
    assert len(calls[0]) > 100
    assert all(other == calls[0] for other in calls)
    assert 0 < int(static.live.sum()) < 13


def test_the_guard_sees_what_it_guards_against() -> None:
    """Catches a guard that lets everything pass; the loop's own step must not."""
    numbers = torch.arange(4)
    waits = [
        lambda: numbers.sum().item(),
        lambda: numbers.tolist(),
        lambda: bool(numbers.any()),
        lambda: numbers[numbers > 1],
        lambda: numbers.clone().masked_fill_(numbers > 1, 0).nonzero(),
        lambda: numbers.clone().__setitem__(numbers > 1, 0),
        lambda: torch.tensor([1, 2]),
        lambda: numbers.clone().index_put_((numbers > 1,), numbers[0]),
        lambda: numbers[[0, 1]],
        lambda: torch.repeat_interleave(numbers),
    ]
    run = started(Engine(sharp_model(), cache=steps_of(1)), *all_kinds(4))
    run.step()
    for wait in (*waits, run.step):
        with pytest.raises(AssertionError), NoHost():
            wait()


@pytest.mark.parametrize(
    "changes",
    [{"rule": Editor(2)}, {"is_streamed": True}],
    ids=str,
)
def test_what_needs_the_host_gets_it_and_the_rest_goes_on(changes: dict[str, Any]) -> None:
    """Catches a feature that static steps silently leave out, and one such request that slows down all later ones."""
    prompts, settings = mixed_requests(Static(1), range(1, 6))
    is_streamed = changes.pop("is_streamed", False)
    special = [Sampling(**{"rule": Static(1), "max_new_tokens": 9, "seed": 50} | changes)]
    engine = Engine(sharp_model(), num_slots=4, cache=steps_of(3))
    first = engine.submit([prompt_of(6, 50)], special, is_streamed=is_streamed)[0]
    rest = engine.submit(prompts, settings)
    found: dict[int, Trajectory] = {}
    told = 0
    while engine.is_busy:
        for update in engine.step():
            told += len(update.events)
            if update.trajectory is not None:
                found[update.index] = update.trajectory
        assert first in found or engine.stats.static_forwards == 0
    assert engine.stats.static_forwards > 0
    assert told == ((found[first].step > 0).sum() if is_streamed else 0)
    expected = oracles(sharp_model(), [prompt_of(6, 50), *prompts], [*special, *settings])
    for index, other in zip((first, *rest), expected, strict=True):
        assert_same(found[index], other)


def test_cancelled_and_preempted_neighbours_change_nothing() -> None:
    """Catches a slot that moves into the place of one that left, and goes on with its keys, settings or flags."""
    model = declared_model("block", is_shifted=True)
    prompts, settings = mixed_requests(Static(1), range(1, 10))
    expected = oracles(model, prompts, settings)
    for page_size in (None, 4):
        engine, rng = Engine(model, num_slots=6, cache=steps_of(2, page_size=page_size)), np.random.default_rng(0)
        waiting = set(engine.submit(prompts, settings))
        found: dict[int, Trajectory | None] = {}
        while engine.is_busy:
            found |= {u.index: u.trajectory for u in engine.step()}
            waiting -= found.keys()
            if waiting and rng.random() < 0.4:
                index = int(rng.choice(sorted(waiting)))
                found[index] = engine.cancel(index)
                waiting.discard(index)
        finished = {i: t for i, t in found.items() if t is not None and t.finish_reason != "cancelled"}
        assert 8 < len(finished) < len(prompts)
        for index, record in finished.items():
            assert_same(record, expected[index])


def test_new_weights_are_read_and_their_keys_made_again() -> None:
    """Catches static steps over keys and values of weights that are gone."""
    model = sharpened(new_model(tiny_config(), seed=0).double())
    prompts, settings = mixed_requests(Static(1), range(1, 4))
    engine = Engine(model, num_slots=4, cache=steps_of(2), limits=Limits(mixes_weights=True))
    engine.submit(prompts, settings)
    records = {u.index: u.trajectory for _ in range(3) for u in engine.step()}
    early = len(records)
    for parameter in model.parameters():
        parameter.mul_(1.5)
    engine.weights_version = 1
    while engine.is_busy:
        records |= {u.index: u.trajectory for u in engine.step()}
    mixed = [t for t in records.values() if t.versions is not None and len(set(t.versions.tolist())) == 2]
    fresh = [i for i, t in records.items() if t.versions is None and t.weights_version == 1]
    assert early < len(records)
    assert mixed
    assert len(fresh) > 4
    for index in fresh:
        assert_same(records[index], decode_naively(model, prompts[index], settings[index]))


def test_keys_of_old_weights_are_never_seen() -> None:
    """Catches static steps that go on over what was computed before the weights were counted up."""
    prompts, settings = mixed_requests(Static(1), range(1, 8))
    engine = Engine(sharp_model(), num_slots=6, cache=steps_of(3), limits=Limits(mixes_weights=True))
    run, found = started(engine, prompts, settings), {}
    for count in range(200):
        found |= {u.index: u.trajectory for u in engine.step()}
        if count % 3 == 2 and engine.is_busy:
            engine.weights_version += 1
            run.forwards.cache.store.fill_(1e4)
    for index, other in enumerate(oracles(sharp_model(), prompts, settings)):
        assert_same(found[index], other)
    assert engine.stats.static_forwards > 0
    assert engine.weights_version > 8


def test_logits_that_are_not_finite_are_told_at_the_next_look() -> None:
    """Catches garbage that is recorded as an answer because nobody waited to see it."""
    model = sharpened(new_model(tiny_config(), seed=0).double())
    engine = Engine(model, cache=steps_of(3))
    run, _ = levelled(engine, [prompt_of(5, 0)], Sampling(max_new_tokens=20, ignore_eos=True))
    model.lm_head.weight[7] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        run.step()


@pytest.mark.parametrize("name", ["sdar_moe", "llada2_moe"])
def test_experts_take_dead_rows(name: str) -> None:
    """Catches rows nobody reads that change where others go; and a model taken for one whose shapes are fixed."""
    model = sharpened(tiny(name).double())
    size = model.family.block_size
    prompts, settings = mixed_requests(Static(2), range(1, size + 1))
    prompts = [[min(i, EOS - 1) for i in p] for p in prompts]
    records = Engine(model, num_slots=3, cache=steps_of(4)).generate(prompts, settings)
    for record, other in zip(records, oracles(model, prompts, settings), strict=True):
        assert_same(record, other)
    assert not has_fixed_shapes(model)
    assert has_fixed_shapes(sharp_model())


def test_settings_say_what_is_wrong() -> None:
    """Catches steps that cannot be, and a separate commit that would silently be a fused one."""
    with pytest.raises(ValueError, match=r"engine\.cache\.steps_per_contact is 0, must be at least 1"):
        steps_of(0)
    with pytest.raises(ValueError, match=r"steps_per_contact is 2, which needs engine\.commit 'fused'"):
        Engine(sharp_model(), commit="separate", cache=steps_of(2))
    assert Exact().steps_on(torch.device("cpu")) == 1
    assert Exact().steps_on(torch.device("cuda")) > 1
    assert replace(Exact(), commit="separate").steps_on(torch.device("cuda")) == 1
    assert [bucket(n, 12) for n in (1, 2, 3, 4, 5, 8, 9, 12)] == [1, 2, 4, 4, 8, 8, 12, 12]
