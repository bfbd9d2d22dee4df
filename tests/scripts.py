"""What an engine is asked for in tests of scheduling: a stock of requests with known answers, and a watched engine."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from revelm.decoding.credit import Credit
from revelm.decoding.entropy_bounded import EntropyBounded
from revelm.decoding.factor import Factor
from revelm.decoding.hierarchical import Hierarchical
from revelm.decoding.joint import Joint
from revelm.decoding.random import Random
from revelm.decoding.rule import Rule
from revelm.decoding.sampling import Sampling
from revelm.decoding.sequential import Sequential
from revelm.engine.cached import CachedBlocks
from revelm.engine.engine import Engine
from revelm.engine.request import Request
from revelm.engine.run import Run, Update
from revelm.engine.slots import Paused
from revelm.models.language_model import LanguageModel
from revelm.trajectories.record import NEVER, Event, Trajectory
from tests.models import EOS, RULES, SETTINGS, assert_same, declared_model, prompt_of
from tests.oracle import oracle

EVERY_RULE: tuple[Rule, ...] = (
    *RULES,
    *(EntropyBounded(0.5), Factor(0.9), Sequential(2), Random(2), Hierarchical(0.7, 0.2), Credit(0.5)),
    *(Joint(0.5, 0.1, 3), Joint(0.3, 0.0, 1)),
)
FILTERS: tuple[dict[str, Any], ...] = (
    *SETTINGS,
    *({"min_p": 0.1}, {"repetition_penalty": 1.5}, {"banned_ids": (1, 2, 3)}, {"confidence": "margin"}),
)
LENGTHS = (1, 3, 4, 9, 14, 16, 21)
STOCK = 48
"""Requests there are. Prompts are beginnings of two texts, so many are equal and many more begin alike."""
LONGEST = 36
"""Positions, in whole blocks of four, of the longest of them."""


@dataclass(frozen=True)
class Case:
    """A request and the answer that the oracle gives."""

    prompt: list[int]
    sampling: Sampling
    answer: Trajectory


def shifted(*, is_shifted: bool) -> LanguageModel:
    """The two kinds of block models. Shared: do not change them."""
    return declared_model("block", is_shifted=is_shifted)


@lru_cache(maxsize=2 * STOCK)
def case(number: int, *, is_shifted: bool = False) -> Case:
    """Request ``number`` of the stock."""
    rng = np.random.default_rng(number)
    prompt = prompt_of(max(LENGTHS), int(rng.integers(2)))[: int(rng.choice(LENGTHS))]
    stops = tuple(range(number % 3, EOS, 11)) if number % 3 else ()
    fixed = {"rule": EVERY_RULE[number % len(EVERY_RULE)], "max_new_tokens": int(rng.integers(1, 16))}
    sampling = Sampling(**fixed, seed=number, stop_ids=stops, **FILTERS[int(rng.integers(len(FILTERS)))])
    return Case(prompt, sampling, oracle(shifted(is_shifted=is_shifted), prompt, sampling))


def assert_same_events(found: Sequence[Event], expected: Sequence[Event]) -> None:
    """Reveals and edits in the same order; log-probabilities to 1e-10."""
    assert [replace(e, logprob=0.0) for e in found] == [replace(e, logprob=0.0) for e in expected]
    np.testing.assert_allclose([e.logprob for e in found], [e.logprob for e in expected], rtol=0, atol=1e-10)


def assert_answer(found: Trajectory, expected: Trajectory, *, forward: bool = True) -> None:
    """A finished record is the oracle's, edits included."""
    assert_same(found, expected, forward=forward)
    assert_same_events(found.events, expected.events)


def assert_beginning(found: Trajectory, expected: Trajectory) -> None:
    """A cancelled record is what the oracle had after as many steps."""
    assert found.finish_reason == "cancelled"
    assert 0 < found.num_steps < expected.num_steps
    assert_same_events(found.events, [e for e in expected.events if e.step <= found.num_steps])
    gaps = [*np.flatnonzero(found.step == NEVER).tolist(), len(found.step)]
    assert found.stop_length == min(gaps[0], found.sampling["max_new_tokens"])


class Watched(Engine):
    """An engine that is checked after every step: pages, order of admission, and that somebody always goes on."""

    def __init__(self, model: LanguageModel, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.steps_left = 0
        self.admitted: set[int] = set()

    def step(self) -> list[Update]:
        if self._has_work:
            self.steps_left -= 1
        assert self.steps_left >= 0, "every step takes the oldest request a step further"
        updates = super().step()
        self.admitted |= {u.index for u in updates}
        if self._run is not None:
            self.check(self._run)
        return updates

    def check(self, run: Run) -> None:
        """Requests are admitted in order of arrival, and the pool's books are right."""
        waiting = run.scheduler._waiting
        self.admitted |= {r.index for r in run.slots.requests}
        self.admitted |= {i for i, what in waiting.items() if isinstance(what, Paused)}
        fresh = [i for i, what in waiting.items() if isinstance(what, Request)] + [r.index for r in self._later]
        assert not fresh or not self.admitted or min(fresh) > max(self.admitted)
        check_pages(run)


def check_pages(run: Run) -> None:
    """Every page has as many users as there are slots and kept prompts that hold it; the others are free, once."""
    forwards = run.forwards
    if not isinstance(forwards, CachedBlocks):
        return
    pages, is_slotted = forwards.cache.pages, forwards.cache.layout.is_slotted
    running = pages.held if is_slotted else pages.held[: run.slots.count]
    users = Counter(page for held in running for page in held)
    users += Counter(page for entry in forwards.prefixes.entries.values() for page in entry.prefix.pages)
    assert pages.uses == [users[page] for page in range(len(pages.uses))]
    assert sorted(pages.free) == [page for page, count in enumerate(pages.uses) if not count]
    assert is_slotted or not any(pages.held[run.slots.count :])


def check_idle(run: Run) -> None:
    """Nothing runs or waits, and without kept prompts every page is free."""
    assert not run.is_busy
    check_pages(run)
    if isinstance(run.forwards, CachedBlocks):
        prefixes, pages = run.forwards.prefixes, run.forwards.cache.pages
        assert not prefixes.waiting
        prefixes.clear()
        own = run.slots.num_slots if run.forwards.cache.layout.is_slotted else 0
        assert len(pages.free) == len(pages.uses) - own
        check_pages(run)
