"""Pages of the cache: the same answers in any layout, no page seen that is not one's own, none lost."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.budget import Size, cache_bytes, layout_of
from revelm.engine.cached import CachedBlocks
from revelm.engine.engine import Engine
from revelm.engine.pages import Layout, Pages
from revelm.engine.settings import Exact, Limits
from revelm.trajectories.record import Trajectory
from tests.models import assert_same, mixed_requests, prompt_of, sharp_model
from tests.scripts import LONGEST, STOCK, Watched, assert_answer, case, check_idle, check_pages, shifted

CPU = torch.device("cpu")


@cache
def in_slots(*, is_shifted: bool) -> list[Trajectory]:
    """What an engine without pages makes of the stock."""
    cases = [case(number, is_shifted=is_shifted) for number in range(STOCK)]
    engine = Engine(shifted(is_shifted=is_shifted), num_slots=5)
    return engine.generate([c.prompt for c in cases], [c.sampling for c in cases])


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("page_size", [4, 8, 12, 36, 64])
def test_paged_equals_slots(page_size: int, is_shifted: bool) -> None:
    """Catches positions that are looked up in the wrong page, written to another's, or forgotten when a slot moves."""
    cases = [case(number, is_shifted=is_shifted) for number in range(STOCK)]
    asked = [c.prompt for c in cases], [c.sampling for c in cases]
    paged = Watched(shifted(is_shifted=is_shifted), num_slots=5, cache=Exact(page_size=page_size))
    paged.steps_left = 10_000
    for found, expected, known in zip(paged.generate(*asked), in_slots(is_shifted=is_shifted), cases, strict=True):
        assert_same(found, expected)
        assert_answer(found, known.answer)


@pytest.mark.parametrize("reuses", [False, True])
@pytest.mark.parametrize("poison", [1e4, -1e4])
def test_freed_pages_are_poison(poison: float, reuses: bool) -> None:
    """Catches a row that sees a page before it is written, after it was given back, or that is another's.

    Finite poison, not NaN: attention adds the product of a weight of exactly zero and the value, and 0 times NaN is
    NaN, so a correct engine would fail as well; 1e4 changes every token if it has any weight at all.
    """
    model = sharp_model()
    prompts, settings = mixed_requests(Static(3), range(1, 13))
    clean = Engine(model, cache=Exact(page_size=8)).generate(prompts, settings)
    tight = Exact(page_size=4, num_pages=12, reuses_prefixes=reuses)
    engine = Watched(model, num_slots=5, cache=tight, limits=Limits(max_length=48))
    engine.steps_left = 10_000
    engine.submit(prompts, settings)
    found: dict[int, Trajectory] = {}
    num_poisoned = 0
    while engine.is_busy:
        run = engine._run
        assert run is not None
        assert isinstance(run.forwards, CachedBlocks)
        cache = run.forwards.cache
        cache.store[:, :, cache.pages.free] = poison
        for slot, pages in enumerate(cache.pages.held[: run.slots.count]):
            first = int(run.slots.slot["cached"][slot])
            for place in range(first // 4, len(pages)):
                if cache.pages.uses[pages[place]] == 1:
                    cache.store[:, :, pages[place], max(0, first - 4 * place) :] = poison
        num_poisoned += len(cache.pages.free)
        found |= {u.index: u.trajectory for u in engine.step() if u.trajectory is not None}
    assert num_poisoned > 100
    assert engine.stats.preemptions > 0
    for i, expected in enumerate(clean):
        assert_same(found[i], expected)


def test_a_request_takes_pages_as_it_grows() -> None:
    """Catches memory that is reserved for the longest answer, which is what pages are there to avoid."""
    engine = Engine(sharp_model(), cache=Exact(page_size=4), limits=Limits(max_length=64))
    engine.submit([prompt_of(6, 0)], Sampling(rule=Static(1), max_new_tokens=42, ignore_eos=True))
    held = []
    while engine.is_busy:
        engine.step()
        run = engine._run
        assert run is not None
        held.append(len(run.forwards.cache.pages.held[0]))
        check_pages(run)
    assert held[:-1] == [2 + (step + 1) // 4 for step in range(1, 42)]
    assert held[-1] == 0
    check_idle(run)


def test_pages_are_given_back_once_per_user() -> None:
    """Catches a shared page that is freed with its first user, one freed twice, and a half-done allocation."""
    pages = Pages(Layout.paged(3, 24, page_size=8, num_pages=4), CPU)
    assert pages.reach(0, 17)
    assert not pages.reach(1, 9)
    assert (pages.held[1], pages.num_idle) == ([], 1)
    shared = tuple(pages.held[0][:2])
    pages.share(shared)
    for page in shared:
        pages.append(1, page)
    pages.leave(0)
    assert pages.num_idle == 2
    assert pages.reach(2, 16)
    assert not set(pages.held[2]) & set(shared)
    pages.move(1, 0)
    assert (pages.held[0], pages.held[1]) == ([*shared], [])
    assert pages.where(torch.tensor([0, 0, 0]), torch.tensor([0, 7, 8])).tolist() == [
        8 * shared[0],
        8 * shared[0] + 7,
        8 * shared[1],
    ]
    pages.leave(0)
    pages.leave(2)
    assert sorted(pages.free) == [0, 1, 2, 3]
    with pytest.raises(AssertionError, match="given back once"):
        pages.give((0,))
    with pytest.raises(AssertionError, match="only a page in use"):
        pages.share((0,))


def test_the_size_of_a_pool_is_known_before_it_is_made() -> None:
    """Catches a bound on memory that does not count what is then allocated."""
    model = sharp_model()
    for spec in (Exact(), Exact(page_size=8), Exact(page_size=8, num_pages=11), Exact(reuses_prefixes=True)):
        layout = layout_of(spec, Size(3, LONGEST, 4, is_crowded=True))
        engine = Engine(model, num_slots=3, cache=spec, limits=Limits(max_length=LONGEST))
        engine.generate([[1]], Sampling(max_new_tokens=4))
        assert engine._run is not None
        cache = engine._run.forwards.cache
        assert cache_bytes(model, layout) == cache.store.nbytes + cache.boundary.nbytes


def test_one_page_for_everything_is_the_slot_layout() -> None:
    """Catches pages as long as a whole sequence that are shared out by the paged way, or slots that own none."""
    layout = layout_of(Exact(page_size=64), Size(3, 50, 4))
    assert (layout.is_slotted, layout.capacity) == (True, 64)
    assert Pages(layout, CPU).held == [[0], [1], [2]]
    few = replace(layout, num_pages=2)
    assert not few.is_slotted
    assert Pages(few, CPU).held == [[], [], []]
