"""The asynchronous engine: many tasks share one batch, and what happens to one of them happens to no other."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import torch

from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.async_engine import AsyncEngine
from revelm.engine.engine import Engine
from revelm.engine.settings import Exact, Limits, QueueFullError
from revelm.models.load import new_model
from revelm.trajectories.record import Trajectory
from tests.models import assert_same, prompt_of, sharp_model, sharpened, tiny_config
from tests.scripts import assert_answer, assert_same_events, case, shifted

T = TypeVar("T")
LONG = Sampling(rule=Static(1), max_new_tokens=200, ignore_eos=True)
SHORT = replace(LONG, max_new_tokens=6)
PAGED = Exact(page_size=8, num_pages=80, reuses_prefixes=True)


def served(work: Callable[[AsyncEngine], Awaitable[T]], **settings: Any) -> T:
    """What ``work`` returns, with an engine of 256 positions that is closed behind it; no thread is left."""

    async def main() -> T:
        limits = settings.pop("limits", Limits(max_length=256))
        model = settings.pop("model", sharp_model())
        async with AsyncEngine(Engine(model, num_slots=4, limits=limits, **settings)) as engine:
            return await work(engine)

    result = asyncio.run(asyncio.wait_for(main(), timeout=600))
    assert all(thread.name != "revelm-engine" for thread in threading.enumerate())
    return result


async def under_way(engine: AsyncEngine) -> int:
    """Requests that run or wait, as the engine itself sees it."""
    return await engine.run(lambda inner: 0 if inner._run is None else inner._run.slots.count + inner.num_waiting)


async def begun(engine: AsyncEngine, count: int, *tasks: asyncio.Task[Any]) -> None:
    """Return when ``count`` requests run or wait; the tasks that asked for them still wait then."""
    while await under_way(engine) < count:
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)


def pages_in_use(inner: Engine) -> int:
    assert inner._run is not None
    inner._run.forwards.prefixes.clear()
    return sum(inner._run.forwards.cache.pages.uses)


def test_many_callers_get_their_own_answers() -> None:
    """Catches answers that go to another caller, in another order, or are computed one after another: callers together
    take fewer steps than one by one."""

    async def work(engine: AsyncEngine) -> tuple[list[list[Trajectory]], int]:
        asked = [[case(n) for n in range(i, 48, 12)] for i in range(12)]
        calls = [engine.generate([c.prompt for c in some], [c.sampling for c in some]) for some in asked]
        found = await asyncio.gather(*calls)
        return found, await engine.run(lambda inner: inner.stats.forwards)

    found, forwards = served(work, model=shifted(is_shifted=False), cache=PAGED)
    for i, records in enumerate(found):
        for n, record in zip(range(i, 48, 12), records, strict=True):
            assert_answer(record, case(n).answer)
    assert forwards < sum(case(n).answer.num_steps for n in range(48)) / 2


def test_streams_tell_every_reveal_once() -> None:
    """Catches updates that are lost or doubled on their way to the event loop, and a stream that gets another's."""

    async def one(engine: AsyncEngine, numbers: list[int]) -> list[int]:
        events: list[list[Any]] = [[] for _ in numbers]
        records: dict[int, Trajectory] = {}
        cases = [case(n) for n in numbers]
        async for update in engine.stream([c.prompt for c in cases], [c.sampling for c in cases]):
            assert update.index not in records
            events[update.index] += update.events
            if update.trajectory is not None:
                records[update.index] = update.trajectory
        for place, asked in enumerate(cases):
            assert_answer(records[place], asked.answer)
            assert_same_events(events[place], asked.answer.events)
        return sorted(records)

    async def work(engine: AsyncEngine) -> list[list[int]]:
        return await asyncio.gather(*(one(engine, [i, i + 6, i + 12]) for i in range(6)))

    assert served(work, model=shifted(is_shifted=False)) == [[0, 1, 2]] * 6


def test_a_cancelled_task_takes_its_requests_with_it() -> None:
    """Catches requests that go on for nobody, and a cancellation that ends those of others."""

    async def work(engine: AsyncEngine) -> tuple[Trajectory, int, int]:
        gone = asyncio.create_task(engine.generate([prompt_of(5, i) for i in range(6)], LONG))
        stays = asyncio.create_task(engine.generate([prompt_of(7, 1)], SHORT))
        await begun(engine, 7, gone, stays)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        found = (await stays)[0]
        steps = await engine.run(lambda inner: inner.stats.forwards)
        return found, steps, await under_way(engine)

    found, forwards, left = served(work)
    assert_same(found, Engine(sharp_model()).generate([prompt_of(7, 1)], SHORT)[0])
    assert left == 0
    assert forwards < 190


def test_leaving_a_stream_early_gives_everything_back() -> None:
    """Catches a left stream whose requests run to their end, and pages that stay with them."""

    async def work(engine: AsyncEngine) -> tuple[int, int]:
        async with aclosing(engine.stream([prompt_of(9, i) for i in range(9)], LONG)) as updates:
            async for update in updates:
                assert update.events
                break
        left = await under_way(engine)
        return left, await engine.run(pages_in_use)

    assert served(work, cache=PAGED) == (0, 0)


def test_bad_requests_are_their_callers_own() -> None:
    """Catches an error that ends the thread, or reaches those who asked for something else."""

    async def work(engine: AsyncEngine) -> None:
        good = asyncio.create_task(engine.generate([prompt_of(5, 0)], SHORT))
        with pytest.raises(ValueError, match="prompt 1 has shape"):
            await engine.generate([[1], []], SHORT)
        with pytest.raises(ValueError, match=r"limits\.max_length is 64"):
            await engine.generate([[1]], LONG)
        with pytest.raises(ValueError, match="expected a list of prompts"):
            async for _ in engine.stream("text", SHORT):  # pragma: no branch
                pass
        assert await engine.generate([], SHORT) == []
        assert_same((await good)[0], Engine(sharp_model()).generate([prompt_of(5, 0)], SHORT)[0])

    served(work, limits=Limits(max_length=64))


def test_a_full_queue_is_told_to_whoever_comes_next() -> None:
    """Catches a bound that is not held, that drops those who wait already, or that stays full for ever."""

    async def work(engine: AsyncEngine) -> int:
        first = asyncio.create_task(engine.generate([prompt_of(5, i) for i in range(6)], LONG))
        while await engine.run(lambda inner: inner.num_waiting if inner._run is not None else 0) != 2:
            assert not first.done()
        with pytest.raises(QueueFullError, match=r"2 requests wait, 5 came, limits\.max_waiting is 6"):
            await engine.generate([prompt_of(5, i) for i in range(5)], SHORT)
        second = await engine.generate([prompt_of(5, i) for i in range(4)], SHORT)
        return len(second) + len(await first)

    assert served(work, limits=Limits(max_length=256, max_waiting=6)) == 10


def test_a_failing_model_fails_those_who_wait_and_nobody_else() -> None:
    """Catches a thread that dies with the model's failure and leaves everyone waiting, or serves the rest of a step
    that was half done."""
    model = sharpened(new_model(tiny_config(), seed=0).double())
    expected = Engine(model).generate([prompt_of(5, 0)], SHORT)[0]

    async def work(engine: AsyncEngine) -> Trajectory:
        def scale(factor: float) -> None:
            with torch.no_grad():
                model.lm_head.weight.mul_(factor)

        good = model.lm_head.weight.detach().clone()
        calls = [asyncio.create_task(engine.generate([prompt_of(5, i)] * 3, LONG)) for i in range(3)]

        async def stream() -> None:
            async for _ in engine.stream([prompt_of(3, 0)], LONG):
                pass

        calls.append(asyncio.create_task(stream()))
        await begun(engine, 10, *calls)
        await engine.run(lambda inner: scale(float("nan")))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [FloatingPointError] * 4
        assert await under_way(engine) == 0
        with torch.no_grad():
            await engine.run(lambda inner: model.lm_head.weight.data.copy_(good))
        return (await engine.generate([prompt_of(5, 0)], SHORT))[0]

    assert_same(served(work, model=model), expected)


def test_work_runs_between_steps_and_returns_or_raises() -> None:
    """Catches weights that change in the middle of a step, and errors of such work that end the thread."""
    seen: list[str] = []

    async def work(engine: AsyncEngine) -> None:
        running = asyncio.create_task(engine.generate([prompt_of(5, 0)], LONG))
        await begun(engine, 1, running)

        def look(inner: Engine) -> int:
            seen.append(threading.current_thread().name)
            assert inner._run is not None
            return int(inner._run.slots.slot["steps"][0])

        steps = [await engine.run(look) for _ in range(5)]
        assert steps == sorted(steps)
        with pytest.raises(RuntimeError, match="weights_version 3 comes while requests run with 0"):
            await engine.run(lambda inner: setattr(inner, "weights_version", 3))
        with pytest.raises(SystemExit):
            await engine.run(lambda inner: exec("raise SystemExit"))
        await running
        await engine.run(lambda inner: setattr(inner, "weights_version", 3))
        assert (await engine.generate([prompt_of(5, 0)], SHORT))[0].weights_version == 3

    served(work)
    assert seen == ["revelm-engine"] * 5


def test_requests_that_someone_else_ended_do_not_hang() -> None:
    """Catches a caller that waits for ever for a request that is not in the engine any more."""

    async def work(engine: AsyncEngine) -> None:
        call = asyncio.create_task(engine.generate([prompt_of(5, 0)], LONG))
        await begun(engine, 1, call)
        await engine.run(lambda inner: inner.cancel(inner._next - 1))
        with pytest.raises(RuntimeError, match="ended by someone else"):
            await call

    served(work)


def test_closing_answers_everyone() -> None:
    """Catches a close that leaves tasks waiting or the thread running, and calls after it that wait for ever."""

    async def main() -> None:
        engine = AsyncEngine(Engine(sharp_model(), num_slots=2))
        calls = [asyncio.create_task(engine.generate([prompt_of(5, i)], LONG)) for i in range(5)]
        await begun(engine, 5, *calls)
        await engine.aclose()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(result) for result in results] == ["the engine is closed"] * 5
        for call in (engine.generate([[1]], SHORT), engine.run(lambda inner: inner)):
            with pytest.raises(RuntimeError, match="the engine is closed"):
                await call
        await engine.aclose()

    asyncio.run(asyncio.wait_for(main(), timeout=600))
    assert all(thread.name != "revelm-engine" for thread in threading.enumerate())


def test_one_engine_serves_several_event_loops_and_outlives_them() -> None:
    """Catches news that are put on the loop of another caller, and a loop that ended taking the engine with it."""
    model = shifted(is_shifted=False)
    engine = AsyncEngine(Engine(model, num_slots=4, limits=Limits(max_length=256)))
    found: dict[int, Trajectory] = {}

    def thread(number: int) -> None:
        asked = case(number)
        found[number] = asyncio.run(engine.generate([asked.prompt], [asked.sampling]))[0]

    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(engine.generate([prompt_of(5, 0)], LONG))
    loop.run_until_complete(asyncio.sleep(0))
    threads = [threading.Thread(target=thread, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(timeout=600)
    abandoned.cancel()
    loop.run_until_complete(asyncio.gather(abandoned, return_exceptions=True))
    loop.close()
    for number in range(8):
        assert_answer(found[number], case(number).answer)
    asyncio.run(engine.aclose())


class Leaving(asyncio.SelectorEventLoop):
    """A loop that can be closed for other threads while its tasks are still there to be cleaned up."""

    is_gone = False

    def call_soon_threadsafe(self, *arguments: Any, **options: Any) -> asyncio.Handle:
        if self.is_gone:
            raise RuntimeError("Event loop is closed")
        return super().call_soon_threadsafe(*arguments, **options)


def test_a_loop_that_is_gone_does_not_stop_the_engine() -> None:
    """Catches a thread that dies when it has news for an event loop that was closed, and its requests that stay."""
    engine = AsyncEngine(Engine(sharp_model(), num_slots=4, limits=Limits(max_length=256)))
    loop = Leaving()
    call = loop.create_task(engine.generate([prompt_of(5, 0)], replace(LONG, max_new_tokens=20)))
    while not loop.run_until_complete(under_way(engine)):
        assert not call.done()
    loop.is_gone = True

    async def afterwards() -> tuple[Trajectory, int]:
        found = await engine.generate([prompt_of(5, 0)], LONG)
        left = await under_way(engine)
        await engine.aclose()
        return found[0], left

    found, left = asyncio.run(asyncio.wait_for(afterwards(), timeout=600))
    assert (found.stop_length, left) == (200, 0)
    loop.is_gone = False
    call.cancel()
    loop.run_until_complete(asyncio.gather(call, return_exceptions=True))
    loop.close()
