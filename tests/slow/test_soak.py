"""Thousands of requests, with groups, known prompts, preemption and cancels: nothing grows, nothing is lost."""

import gc
import multiprocessing
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from revelm.decoding.dynamic import Dynamic
from revelm.decoding.sampling import Sampling
from revelm.engine.engine import Engine
from revelm.engine.settings import Exact, Limits, QueueFullError
from revelm.models.load import new_model
from revelm.trajectories.record import NEVER, Trajectory
from tests.models import prompt_of, sharpened, tiny_config
from tests.scripts import EVERY_RULE, check_idle, check_pages

NUM_REQUESTS = 4_000
WARM_UP = 1_000
PYTHON_ALLOWANCE = 96 * 1024
"""Bytes of Python objects that the engine may hold more at the end than after the warm-up: 32 for each request."""
RESIDENT_ALLOWANCE = 8 * 1024 * 1024
"""The same of the process: the allocator's own slack included, which moves by some megabytes."""


def resident_bytes() -> int:
    """Memory of this process, where the system tells; else 0."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.exists() else 0


def held_bytes() -> tuple[int, int]:
    """Bytes of Python objects, and of the process."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0], resident_bytes()


def groups(rng: np.random.Generator) -> Iterator[tuple[list[list[int]], list[Sampling]]]:
    """Calls of 1 to 8 requests for one prompt: half of the prompts come again and again, others begin like those."""
    known = [prompt_of(int(rng.integers(1, 40)), seed) for seed in range(12)]
    count = 0
    while True:
        prompt = known[int(rng.integers(len(known)))]
        if rng.random() < 0.5:
            kept, more = int(rng.integers(1, len(prompt) + 1)), int(rng.integers(1, 8))
            prompt = [*prompt[:kept], *prompt_of(more, 100 + count)]
        settings = []
        for _ in range(int(rng.integers(1, 9))):
            rules = (*EVERY_RULE, *[Dynamic(float(rng.random()))] * 3)
            rule = rules[int(rng.integers(len(rules)))]
            stops = tuple(rng.integers(0, 45, int(rng.integers(0, 4))).tolist())
            length = int(rng.integers(1, 13)) if rng.random() < 0.8 else 40
            settings.append(Sampling(rule=rule, max_new_tokens=length, stop_ids=stops, seed=count))
            count += 1
        yield [prompt] * len(settings), settings


class Client:
    """Keeps about a hundred requests in the engine, cancels one in ten, and counts what comes back."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.rng = engine, np.random.default_rng(seed)
        self.calls = groups(self.rng)
        self.open: dict[int, tuple[int, int]] = {}
        self.asked = self.answered = self.cancelled = self.refused = self.streamed = 0

    def ask(self) -> None:
        prompts, settings = next(self.calls)
        try:
            numbers = self.engine.submit(prompts, settings, is_streamed=bool(self.rng.random() < 0.2))
        except QueueFullError:
            self.refused += 1
            return
        self.asked += len(numbers)
        shapes = [(len(p), s.max_new_tokens or 0) for p, s in zip(prompts, settings, strict=True)]
        self.open |= dict(zip(numbers, shapes, strict=True))

    def cancel(self) -> None:
        number = list(self.open)[int(self.rng.integers(len(self.open)))]
        found = self.engine.cancel(number)
        length, _ = self.open.pop(number)
        assert found is None or (found.finish_reason, len(found.prompt_ids)) == ("cancelled", length)
        self.cancelled += 1

    def step(self) -> None:
        for update in self.engine.step():
            assert update.index in self.open, "news of what is over"
            self.streamed += len(update.events)
            if update.trajectory is not None:
                self.check(update.trajectory, *self.open.pop(update.index))

    def check(self, found: Trajectory, length: int, most: int) -> None:
        assert found.finish_reason in ("stop", "length")
        assert len(found.prompt_ids) == length
        assert 0 < found.stop_length <= most
        assert not (found.step[: found.stop_length] == NEVER).any()
        self.answered += 1

    def play(self, total: int) -> None:
        while self.asked < total:
            self.ask()
            if self.open and self.rng.random() < 0.45:
                self.cancel()
            self.step()
            while len(self.open) > 100:
                self.step()


@pytest.mark.slow
def test_thousands_of_requests() -> None:
    """Catches a page, a rule, a prompt or a queue entry that is kept per request: each would be invisible in a small
    test and fill the memory of a server. In a process of its own: what other tests left running is not counted."""
    process = multiprocessing.get_context("spawn").Process(target=soak)
    process.start()
    process.join()
    assert process.exitcode == 0


def soak() -> None:
    """Thousands of requests, and what is left of them."""
    torch.set_num_threads(1)
    cache = Exact(page_size=4, num_pages=60, reuses_prefixes=True, prefill_rows=64)
    limits = Limits(max_length=96, max_waiting=70)
    engine = Engine(sharpened(new_model(tiny_config(), seed=0)), num_slots=24, cache=cache, limits=limits)
    client = Client(engine, 0)
    tracemalloc.start()
    client.play(WARM_UP)
    run = engine._run
    assert run is not None
    python, resident = held_bytes()
    while client.asked < NUM_REQUESTS:
        client.play(min(client.asked + 500, NUM_REQUESTS))
        check_pages(run)
    more = [now - before for now, before in zip(held_bytes(), (python, resident), strict=True)]
    tracemalloc.stop()
    while engine.is_busy:
        client.step()
    assert not client.open
    assert client.answered + client.cancelled == client.asked >= NUM_REQUESTS
    assert client.cancelled > NUM_REQUESTS / 20
    assert min(client.refused, client.streamed, engine.stats.preemptions) > 0
    assert engine.stats.prefills < client.asked - client.cancelled
    assert engine._run is run
    check_idle(run)
    assert more[0] < PYTHON_ALLOWANCE
    assert more[1] < RESIDENT_ALLOWANCE
    print(f"{client.asked} asked, {client.cancelled} cancelled, {engine.stats.preemptions} gave way, {more} bytes more")
