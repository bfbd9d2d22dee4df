"""Any requests in any order, any interleaving of calls, any pool: every answer is the oracle's and nothing is left."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revelm.decoding.sampling import Sampling
from revelm.engine.settings import Exact, Limits
from revelm.trajectories.record import Event, Trajectory
from tests.scripts import (
    LONGEST,
    STOCK,
    Case,
    Watched,
    assert_answer,
    assert_beginning,
    assert_same_events,
    case,
    check_idle,
    shifted,
)

NUMBERS = st.lists(st.integers(0, STOCK - 1), min_size=1, max_size=7)
ACTIONS = st.one_of(
    st.tuples(st.just("submit"), NUMBERS, st.booleans()),
    st.tuples(st.just("step"), st.integers(1, 9)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("generate"), NUMBERS),
    st.tuples(st.just("stream"), NUMBERS, st.integers(0, 25)),
)


@st.composite
def engines(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of an engine: any layout, with a pool that holds the longest request and little more, or all; one step
    or several between two looks of the host."""
    page_size = draw(st.sampled_from((None, 4, 8, 12)))
    is_tight = page_size is not None and draw(st.booleans())
    commit, steps = draw(st.sampled_from((("fused", 1), ("fused", 1), ("fused", 3), ("fused", 7), ("separate", 1))))
    cache = Exact(
        commit=commit,
        page_size=page_size,
        num_pages=-(-LONGEST // (page_size or 1)) + draw(st.integers(0, 3)) if is_tight else None,
        reuses_prefixes=draw(st.booleans()),
        num_prefixes=draw(st.integers(0, 2)),
        prefill_rows=draw(st.sampled_from((1, 9, 8192))),
        steps_per_contact=steps,
    )
    length = draw(st.sampled_from((None, LONGEST)))
    return {"num_slots": draw(st.integers(1, 5)), "cache": cache, "limits": Limits(max_length=length)}


class Caller:
    """Plays a script against an engine and keeps the books of what was asked and what came back."""

    def __init__(self, how: dict[str, Any], *, is_shifted: bool) -> None:
        self.engine, self.is_shifted = Watched(shifted(is_shifted=is_shifted), **how), is_shifted
        self.is_fused = how["cache"].commit == "fused"
        self.open: dict[int, Case] = {}
        self.streamed: dict[int, list[Event]] = {}
        self.tokens, self.left_streams = 0, 0

    def arguments(self, numbers: list[int]) -> tuple[list[Case], list[list[int]], list[Sampling]]:
        cases = [case(number, is_shifted=self.is_shifted) for number in numbers]
        self.engine.steps_left += sum(c.answer.num_steps for c in cases)
        return cases, [c.prompt for c in cases], [c.sampling for c in cases]

    def submit(self, numbers: list[int], is_streamed: bool) -> None:
        cases, prompts, samplings = self.arguments(numbers)
        indices = self.engine.submit(prompts, samplings, is_streamed=is_streamed)
        assert len(set(indices)) == len(cases)
        assert not set(indices) & set(self.open)
        self.open |= dict(zip(indices, cases, strict=True))
        self.streamed |= {index: [] for index in indices if is_streamed}

    def step(self, count: int) -> None:
        for _ in range(count):
            for update in self.engine.step():
                assert update.index in self.open, "news of a request that is over, or was never there"
                self.streamed.get(update.index, []).extend(update.events)
                assert update.index in self.streamed or not update.events
                if update.trajectory is not None:
                    self.finish(self.open.pop(update.index), update.trajectory, self.streamed.pop(update.index, None))

    def finish(self, asked: Case, found: Trajectory, events: list[Event] | None = None) -> None:
        assert_answer(found, asked.answer, forward=self.is_fused)
        if events is not None:
            assert_same_events(events, found.events)
        self.tokens += found.num_tokens

    def cancel(self, place: int) -> None:
        self.step(0 if not self.engine._news else 1)
        if place >= len(self.open):
            with pytest.raises(KeyError, match="neither running nor waiting"):
                self.engine.cancel(1_000_000)
            return
        index = sorted(self.open)[place]
        is_new = index not in self.engine.admitted
        found, asked, events = self.engine.cancel(index), self.open.pop(index), self.streamed.pop(index, None)
        assert (found is None) == is_new
        if found is not None:
            assert_beginning(found, asked.answer)
            if events is not None:
                assert_same_events(events, found.events)

    def generate(self, numbers: list[int]) -> None:
        cases, prompts, samplings = self.arguments(numbers)
        for asked, found in zip(cases, self.engine.generate(prompts, samplings), strict=True):
            self.finish(asked, found)

    def stream(self, numbers: list[int], most: int) -> None:
        """Leaves after ``most`` updates."""
        cases, prompts, samplings = self.arguments(numbers)
        events: list[list[Event]] = [[] for _ in cases]
        ended = set()
        updates = self.engine.stream(prompts, samplings)
        for _, update in zip(range(most), updates, strict=False):
            events[update.index].extend(update.events)
            if update.trajectory is not None:
                assert update.index not in ended
                ended.add(update.index)
                self.finish(cases[update.index], update.trajectory, events[update.index])
        updates.close()
        self.left_streams += len(ended) < len(cases)
        for asked, seen in zip(cases, events, strict=True):
            assert_same_events(seen, asked.answer.events[: len(seen)])

    def drain(self) -> None:
        while self.engine.is_busy:
            self.step(1)
        assert not self.open
        assert self.left_streams or self.engine.stats.tokens == self.tokens
        run = self.engine._run
        if run is not None:
            check_idle(run)


@settings(max_examples=50)
@given(st.data())
def test_any_script(data: st.DataObject) -> None:
    """Catches whatever depends on what came before: a page lost or freed twice, a prompt's keys and values that are
    not those of the prompt, a slot that inherits something, a request that is forgotten, told twice or never served,
    and one that overtakes another."""
    caller = Caller(data.draw(engines()), is_shifted=data.draw(st.booleans()))
    for name, *arguments in data.draw(st.lists(ACTIONS, min_size=1, max_size=8)):
        vars(Caller)[name](caller, *arguments)
    caller.drain()
