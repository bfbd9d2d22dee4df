"""Prompts that several requests share: run once, read by all, changed by none."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from revelm.decoding.dynamic import Dynamic
from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.cached import CachedBlocks
from revelm.engine.engine import Engine
from revelm.engine.kv_cache import KVCache
from revelm.engine.pages import Layout
from revelm.engine.settings import Exact, Limits
from revelm.models.language_model import LanguageModel
from revelm.models.load import new_model
from tests.models import assert_same, prompt_of, sharp_model, sharpened, tiny_config
from tests.oracle import oracle
from tests.scripts import Watched, shifted

SETTING = Sampling(rule=Dynamic(0.3), max_new_tokens=14, ignore_eos=True)
LAYOUTS = [None, 4, 8, 12]


def settings_of(count: int, first: int = 0) -> list[Sampling]:
    return [replace(SETTING, seed=first + i) for i in range(count)]


def watched(model: LanguageModel, **how: Any) -> Watched:
    engine = Watched(model, **how)
    engine.steps_left = 10_000
    return engine


def assert_oracle(model: LanguageModel, found: Sequence[Any], prompt: list[int], settings: Sequence[Sampling]) -> None:
    for record, setting in zip(found, settings, strict=True):
        assert_same(record, oracle(model, prompt, setting))


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("page_size", LAYOUTS)
@pytest.mark.parametrize("length", [1, 3, 4, 21, 24])
def test_a_group_is_as_many_requests_of_their_own(length: int, page_size: int | None, is_shifted: bool) -> None:
    """Catches a fork that begins with other keys and values than a prefill of its own, at any length of the prompt's
    rest, and members that get one answer; the prompt is run once."""
    model, prompt, settings = shifted(is_shifted=is_shifted), prompt_of(length, length), settings_of(5)
    group = watched(model, num_slots=5, cache=Exact(page_size=page_size))
    found = group.generate([prompt] * 5, settings)
    assert_oracle(model, found, prompt, settings)
    assert len({tuple(t.completion_ids) for t in found}) > 2
    assert group.stats.prefills == 1
    separate = Engine(model, num_slots=5, cache=Exact(page_size=page_size))
    for setting, record in zip(settings, found, strict=True):
        assert_same(record, separate.generate([prompt], [setting])[0])
    assert separate.stats.prefills == 5
    assert separate.stats.rows - group.stats.rows == 4 * (length // 4 * 4 + 4)


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("page_size", LAYOUTS)
def test_a_group_may_be_larger_than_the_engine(page_size: int | None, is_shifted: bool) -> None:
    """Catches members that come when a slot is free and prefill again, or find a prompt that has changed meanwhile."""
    model, prompt, settings = shifted(is_shifted=is_shifted), prompt_of(21, 1), settings_of(11)
    engine = watched(model, num_slots=3, cache=Exact(page_size=page_size))
    assert_oracle(model, engine.generate([prompt] * 11, settings), prompt, settings)
    assert engine.stats.prefills == 1
    roomy = Exact(page_size=page_size, num_pages=page_size and 40)
    two = watched(model, num_slots=3, cache=roomy)
    prompts = [prompt_of(17, 8) if i % 2 else prompt for i in range(11)]
    for record, own, setting in zip(two.generate(prompts, settings), prompts, settings, strict=True):
        assert_same(record, oracle(model, own, setting))
    assert page_size is None or two.stats.prefills == 2, "slots with own pages keep one prompt here"


def test_first_logits_are_computed_once_and_drawn_often() -> None:
    """Catches a head that runs for every member on the same rows: at the start of a group that is most of its work."""
    model = sharpened(new_model(tiny_config(), seed=0).double())
    rows: list[int] = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[:-1].numel()))
    prompt = prompt_of(21, 0)
    engine = Engine(model, num_slots=8, cache=Exact(reuses_prefixes=True))
    engine.submit([prompt] * 8, SETTING)
    engine.step()
    assert rows == [3]
    while engine.is_busy:
        engine.step()
    assert max(rows[1:]) > 8
    rows.clear()
    before = replace(engine.stats)
    engine.submit([prompt] * 8, SETTING)
    engine.step()
    assert rows == [3], "the prompt is still known: no forward, and one head for all"
    assert (engine.stats.forwards, engine.stats.prefills) == (before.forwards, before.prefills)


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("page_size", LAYOUTS)
def test_later_requests_may_use_known_prompts(page_size: int | None, is_shifted: bool) -> None:
    """Catches a kept prompt that was overwritten by those who went on from it, or by whoever got its slot."""
    model, prompt = shifted(is_shifted=is_shifted), prompt_of(22, 2)
    engine = watched(model, num_slots=3, cache=Exact(page_size=page_size, reuses_prefixes=True))
    for call in range(3):
        others = [prompt_of(5 + call, i) for i in range(4)]
        settings = settings_of(6, 10 * call)
        found = engine.generate([prompt, *others, prompt], settings)
        assert_oracle(model, [found[0], found[5]], prompt, [settings[0], settings[5]])
        for record, own, setting in zip(found[1:5], others, settings[1:5], strict=True):
            assert_same(record, oracle(model, own, setting))
    assert engine.stats.prefills < 3 * 5 + 1
    alone = watched(model, num_slots=3, cache=Exact(page_size=page_size))
    for _ in range(2):
        alone.generate([prompt], [SETTING])
    assert alone.stats.prefills == 2, "without reuse, calls know nothing of each other"


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("page_size", LAYOUTS)
@pytest.mark.parametrize("common", [3, 4, 7, 8, 13, 20, 22])
def test_prompts_that_begin_alike_share_their_beginning(common: int, page_size: int | None, is_shifted: bool) -> None:
    """Catches a share of too much (blocks that differ) or too little, and the row that must run again because it
    speaks about the first token that differs (shifted models)."""
    model, first = shifted(is_shifted=is_shifted), prompt_of(22, 3)
    second = [*first[:common], *((t + 1) % 40 for t in prompt_of(30, 4)[common:])]
    engine = watched(model, num_slots=2, cache=Exact(page_size=page_size, reuses_prefixes=True))
    plain = Engine(model, num_slots=2, cache=Exact(page_size=page_size))
    limits = Limits(max_length=64)
    engine.limits = plain.limits = limits
    for prompt in (first, second):
        found = engine.generate([prompt], [SETTING])
        assert_oracle(model, found, prompt, [SETTING])
        assert_same(found[0], plain.generate([prompt], [SETTING])[0])
    shared = min(common, 20) // 4 * 4
    if is_shifted and 0 < shared < 20:
        shared -= 4
    assert plain.stats.rows - engine.stats.rows == shared


@pytest.mark.parametrize("page_size", [None, 12])
def test_a_fork_writes_to_its_own_page(page_size: int | None) -> None:
    """Catches a copy on write that does not copy: what one member writes behind the prompt would be seen by all."""
    model, length = sharp_model(), 20
    layout = Layout.slots(3, 36, num_spare=1) if page_size is None else Layout.paged(3, 36, page_size=page_size)
    cache = KVCache(model, layout)
    assert cache.pages.reach(0, length)
    places = cache.pages.where(torch.zeros(length, dtype=torch.int64), torch.arange(length))
    flat = cache.store.flatten(2, 3)
    flat[:, :, places] = torch.randn(flat[:, :, places].shape, dtype=flat.dtype)
    prompt = flat[:, :, places].clone()
    held = cache.hold(cache.prefix(0, length))
    assert held is not None
    for slot in (1, 2):
        assert cache.fork(held, slot)
        assert cache.pages.reach(slot, 24)
        own = cache.pages.where(torch.full((24,), slot), torch.arange(24))
        assert torch.equal(flat[:, :, own[:length]], prompt)
        flat[:, :, own[length:]] = float(slot)
    ends = [cache.pages.where(torch.full((4,), slot), torch.arange(20, 24)) for slot in (1, 2)]
    assert [set(flat[:, :, end].flatten().tolist()) for end in ends] == [{1.0}, {2.0}]
    kept = (torch.tensor(held.pages)[:, None] * layout.page_size + torch.arange(layout.page_size)).flatten()
    assert torch.equal(flat[:, :, kept[:length]], prompt)
    if page_size is not None:
        assert cache.pages.held[1][0] == cache.pages.held[2][0] == held.pages[0]
        assert len({cache.pages.held[1][1], cache.pages.held[2][1], held.pages[1]}) == 3


def test_kept_prompts_make_room_for_running_requests() -> None:
    """Catches prompts that fill the pool for ever, and a known prompt that is dropped to make room for the very request
    that begins with it: three pages hold the prompt, and the fork needs one more."""
    model, settings = sharp_model(), replace(SETTING, max_new_tokens=4)
    engine = watched(model, num_slots=2, cache=Exact(page_size=8, num_pages=3, reuses_prefixes=True))
    for prompt in (prompt_of(20, 0), prompt_of(20, 0), prompt_of(19, 1), prompt_of(20, 0)):
        assert_oracle(model, engine.generate([prompt], [settings]), prompt, [settings])
    assert engine.stats.prefills == 4
    roomy = watched(model, num_slots=2, cache=Exact(page_size=8, num_pages=7, reuses_prefixes=True))
    for prompt in (prompt_of(20, 0), prompt_of(20, 0), prompt_of(19, 1), prompt_of(20, 0)):
        assert_oracle(model, roomy.generate([prompt], [settings]), prompt, [settings])
    assert roomy.stats.prefills == 2


def test_the_least_recently_used_prompt_goes_first() -> None:
    """Catches a store of prompts that forgets the one which is asked for all the time."""
    engine = watched(sharp_model(), num_slots=1, cache=Exact(reuses_prefixes=True, num_prefixes=2))
    limits = Limits(max_length=40)
    engine.limits = limits
    for seed in (0, 1, 0, 2, 0, 3, 0):
        engine.generate([prompt_of(9, seed)], [SETTING])
    assert engine.stats.prefills == 4
    engine.generate([prompt_of(9, 1)], [SETTING])
    assert engine.stats.prefills == 5


@pytest.mark.parametrize("page_size", LAYOUTS)
def test_a_group_whose_members_are_cancelled_leaves_nothing(page_size: int | None) -> None:
    """Catches a prompt that is kept for members who never come."""
    engine = watched(sharp_model(), num_slots=2, cache=Exact(page_size=page_size), limits=Limits(max_length=64))
    long = replace(SETTING, rule=Static(1), max_new_tokens=30)
    numbers = engine.submit([prompt_of(21, 0)] * 8, long)
    engine.step()
    engine.step()
    run = engine._run
    assert run is not None
    assert isinstance(run.forwards, CachedBlocks)
    assert len(run.forwards.prefixes.entries) == 1
    for number in numbers[1:]:
        engine.cancel(number)
    engine.step()
    assert len(run.forwards.prefixes.entries) == 0
    assert not run.forwards.prefixes.waiting
    engine.check(run)
