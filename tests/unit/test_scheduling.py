"""Who runs when: arrival, chunked prefill, preemption, cancellation, and what is refused before anything begins."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from revelm.decoding.credit import Credit
from revelm.decoding.dynamic import Dynamic
from revelm.decoding.rule import Rule
from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine import budget
from revelm.engine.cached import CachedBlocks
from revelm.engine.engine import Engine
from revelm.engine.pages import Layout
from revelm.engine.settings import Exact, Limits, QueueFullError
from revelm.engine.slots import Paused
from revelm.models.load import new_model
from revelm.objectives.batch import Episode
from revelm.objectives.episode_rows import episode_rows
from revelm.objectives.policy import token_weights
from revelm.objectives.rows import collate
from revelm.objectives.score import score
from revelm.trajectories.record import Trajectory
from revelm.trajectories.replay import copies
from tests.models import assert_same, prompt_of, sharp_model, sharpened, tiny_config
from tests.oracle import oracle, oracles
from tests.scripts import (
    EVERY_RULE,
    STOCK,
    Watched,
    assert_answer,
    assert_beginning,
    case,
    check_idle,
    shifted,
)

LONG = Sampling(rule=Static(1), max_new_tokens=30, ignore_eos=True)


@pytest.mark.parametrize("num_slots", [1, 3, 64])
@pytest.mark.parametrize("order", [1, -1, 5])
def test_requests_may_arrive_at_any_time(num_slots: int, order: int) -> None:
    """Catches an answer that depends on who runs beside it, on the number of slots, or on when it came: one request
    arrives per step, while others begin, end and move."""
    engine = Watched(shifted(is_shifted=False), num_slots=num_slots)
    arrival = [i * order % STOCK for i in range(STOCK)]
    numbers, found = {}, {}
    while arrival or engine.is_busy:
        if arrival:
            asked = case(arrival.pop())
            engine.steps_left += asked.answer.num_steps
            numbers[engine.submit([asked.prompt], [asked.sampling])[0]] = asked
        found |= {u.index: u.trajectory for u in engine.step()}
    assert sorted(found) == sorted(numbers)
    for index, asked in numbers.items():
        assert_answer(found[index], asked.answer)


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("page_size", [None, 8])
@pytest.mark.parametrize("rows", [1, 4, 5, 8, 12, 19])
def test_prompts_may_be_cut_at_any_block(rows: int, page_size: int | None, is_shifted: bool) -> None:
    """Catches a piece of a prompt that does not see what came before it, sees behind its own block, or is run twice."""
    model, settings = shifted(is_shifted=is_shifted), replace(LONG, max_new_tokens=6, rule=Dynamic(0.3))
    prompts = [prompt_of(length, length) for length in (37, 3, 26, 40, 8)]
    engine = Engine(model, cache=Exact(page_size=page_size, prefill_rows=rows))
    whole = Engine(model, cache=Exact(page_size=page_size))
    for prompt, found, expected in zip(
        prompts, engine.generate(prompts, settings), whole.generate(prompts, settings), strict=True
    ):
        seed = int(found.sampling["seed"])
        assert_answer(found, oracle(model, prompt, replace(settings, seed=seed)))
        assert_same(found, expected)
    assert engine.stats.rows == whole.stats.rows
    assert engine.stats.prefill_forwards == engine.stats.forwards - whole.stats.forwards > 0


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_a_request_that_gives_way_goes_on_as_if_nothing_had_happened(rule: Rule) -> None:
    """Catches a preempted request that loses its steps, its edits, its rule's memory or its forwards, and one that
    takes the pages of another."""
    model = shifted(is_shifted=rule == EVERY_RULE[0])
    prompts = [prompt_of(length, length) for length in (5, 9, 2, 12, 7)]
    settings = [replace(LONG, rule=rule, seed=i, max_new_tokens=20) for i in range(5)]
    answers = oracles(model, prompts, settings)
    engine = Watched(model, num_slots=4, cache=Exact(page_size=4, num_pages=12))
    engine.steps_left = sum(t.num_steps for t in answers)
    for found, expected in zip(engine.generate(prompts, settings), answers, strict=True):
        assert_answer(found, expected)
    assert engine.stats.preemptions > 0
    assert engine.steps_left > 0, "some of them did run side by side"


def test_the_youngest_gives_way_and_is_counted() -> None:
    """Catches an old request that waits for a young one, for ever if both do, and preemptions nobody hears of."""
    prompts = [prompt_of(6, i) for i in range(4)]
    engine = Watched(sharp_model(), num_slots=4, cache=Exact(page_size=4, num_pages=14))
    engine.steps_left = 200
    engine.submit(prompts, LONG)
    paused: list[set[int]] = [set()]
    ended: list[int] = []
    while engine.is_busy:
        ended += [u.index for u in engine.step()]
        if engine._run is None:
            break
        waiting = engine._run.scheduler._waiting
        running = [r.index for r in engine._run.slots.requests]
        paused.append({i for i, what in waiting.items() if isinstance(what, Paused)})
        assert not running or min([*waiting, 99]) > max(running), "whoever runs came before all who wait"
    assert ended == sorted(ended)
    assert engine.stats.preemptions == sum(len(now - before) for before, now in pairwise(paused)) > 3
    assert 0 not in set().union(*paused)


def test_a_pool_for_one_serves_all() -> None:
    """Catches the deadlock of requests that each hold a part of the pool and wait for the rest."""
    settings = [replace(LONG, seed=i) for i in range(6)]
    prompts = [prompt_of(2 + i, i) for i in range(6)]
    engine = Watched(sharp_model(), num_slots=6, cache=Exact(page_size=4, num_pages=10))
    engine.steps_left = 6 * 30
    found = engine.generate(prompts, settings)
    for record, prompt, setting in zip(found, prompts, settings, strict=True):
        assert_same(record, oracle(sharp_model(), prompt, setting))


def test_a_queue_has_a_bound() -> None:
    """Catches a bound that counts those who run, lets some of a call in, or drops those who waited."""
    engine = Engine(sharp_model(), num_slots=2, limits=Limits(max_waiting=4))
    first = engine.submit([prompt_of(5, i) for i in range(4)], LONG)
    with pytest.raises(QueueFullError, match=r"4 requests wait, 1 came, limits\.max_waiting is 4"):
        engine.submit([[1]], LONG)
    engine.step()
    assert engine.num_waiting == 2
    with pytest.raises(QueueFullError, match="2 requests wait, 3 came"):
        engine.submit([[1]] * 3, LONG)
    second = engine.submit([[1]] * 2, LONG)
    ended = []
    while engine.is_busy:
        ended += [u.index for u in engine.step()]
    assert sorted(ended) == [*first, *second]


def test_what_does_not_fit_is_refused_before_anything_is_taken() -> None:
    """Catches memory that runs out in the middle of a batch, and an error that says neither how much nor what to do."""
    model = sharp_model()
    huge = Engine(model, num_slots=10**9, limits=Limits(max_length=256))
    with pytest.raises(ValueError, match=r"1000000000 slots with 256 positions.*needs .*lower num_slots.*num_pages"):
        huge.submit([[1]], LONG)
    assert (huge.is_busy, huge.stats.forwards) == (False, 0)
    small = Engine(model, cache=Exact(page_size=8, num_pages=4))
    with pytest.raises(
        ValueError, match=r"num_pages is 4, but a request of 36 positions needs 5 pages of 8; give more"
    ):
        small.submit([[1], prompt_of(6, 0)], LONG)
    assert not small.is_busy
    assert len(small.generate([[1]], replace(LONG, max_new_tokens=31))) == 1
    bounded = Engine(model, limits=Limits(max_length=32))
    with pytest.raises(ValueError, match=r"prompt 1 needs 36 positions, limits\.max_length is 32"):
        bounded.submit([[1], prompt_of(3, 0)], LONG)
    assert not bounded.is_busy
    assert len(bounded.generate([prompt_of(2, 0)], LONG)) == 1


def test_a_longer_request_waits_for_a_larger_pool() -> None:
    """Catches a request that is squeezed into slots too short for it, never served, or overtaken for ever."""
    model = sharp_model()
    engine = Watched(model, num_slots=3)
    engine.steps_left = 1000
    short, long = replace(LONG, max_new_tokens=8), replace(LONG, max_new_tokens=90)
    numbers = engine.submit([prompt_of(5, i) for i in range(3)], short)
    engine.step()
    numbers += engine.submit([prompt_of(20, 3)], long)
    numbers += engine.submit([prompt_of(5, 4)], short)
    assert engine.num_waiting == 2
    found: dict[int, Trajectory] = {}
    while engine.is_busy:
        found |= {u.index: u.trajectory for u in engine.step() if u.trajectory is not None}
    assert sorted(found) == numbers
    for index, record in found.items():
        setting = replace(long if index == 3 else short, seed=int(record.sampling["seed"]))
        assert_same(record, oracle(model, record.prompt_ids.tolist(), setting))


def test_memory_is_taken_once_when_a_length_is_given() -> None:
    """Catches a pool that is made anew for every burst of requests, or is given back while it is meant to stay."""
    engine = Engine(sharp_model(), num_slots=3, limits=Limits(max_length=64))
    engine.generate([[1]], LONG)
    run = engine._run
    assert run is not None
    engine.generate([prompt_of(20, i) for i in range(9)], LONG)
    assert engine._run is run
    check_idle(run)
    free = Engine(sharp_model(), num_slots=3)
    free.generate([[1]], LONG)
    assert free._run is None


def replay_gap(records: Sequence[Trajectory]) -> float:
    """The largest difference of the trainer's log-probabilities from the recorded ones."""
    model, rows = sharp_model(), []
    for i, record in enumerate(records):
        seen = copies(record, beyond_stop=True)
        weight = token_weights(seen.target, "token")
        rows.extend(episode_rows(Episode(record, 1.0, 0, i, 1.0), seen, model.family, weight))
    batch = collate(rows, model.family)
    with torch.no_grad():
        return float((score(model, batch).logprob - batch.columns["behaviour"]).abs().max())


@pytest.mark.parametrize("steps", [1, 2, 7, 22])
def test_anything_under_way_can_be_cancelled(steps: int) -> None:
    """Catches a cancellation that touches others, keeps pages, forgets what was decided, or works twice."""
    model = sharp_model()
    prompts = [prompt_of(6, i) for i in range(6)]
    settings = [replace(LONG, seed=i, stop_ids=(1, 2, 3), banned_ids=(1, 2, 3)) for i in range(6)]
    answers = oracles(model, prompts, settings)
    engine = Watched(model, num_slots=4, cache=Exact(page_size=4, num_pages=14), limits=Limits(max_length=36))
    engine.steps_left = 1000
    numbers = engine.submit(prompts, settings)
    found: dict[int, Trajectory] = {}
    for _ in range(steps):
        found |= {u.index: u.trajectory for u in engine.step() if u.trajectory is not None}
    run = engine._run
    assert run is not None
    waiting = run.scheduler._waiting
    kinds = {"running": [r.index for r in run.slots.requests]}
    kinds["paused"] = [i for i, what in waiting.items() if isinstance(what, Paused)]
    kinds["fresh"] = [i for i, what in waiting.items() if not isinstance(what, Paused)]
    assert steps < 22 or kinds["paused"]
    gone = [members[0] for members in kinds.values() if members]
    records = []
    for index in gone:
        record = engine.cancel(index)
        assert (record is None) == (index in kinds["fresh"])
        if record is not None:
            records.append(record)
            assert_beginning(record, answers[index])
        with pytest.raises(KeyError, match=f"request {index} is neither running nor waiting"):
            engine.cancel(index)
        engine.check(run)
    assert replay_gap(records) < 1e-10
    while engine.is_busy:
        found |= {u.index: u.trajectory for u in engine.step() if u.trajectory is not None}
    assert sorted(found) == [i for i in numbers if i not in gone]
    for index, record in found.items():
        assert_answer(record, answers[index])
    check_idle(run)
    for index in (*gone, *found, 99, -1):
        with pytest.raises(KeyError):
            engine.cancel(index)


def test_what_comes_later_than_a_pool_can_be_cancelled() -> None:
    """Catches requests that wait for a larger pool and cannot be taken back."""
    engine = Engine(sharp_model(), num_slots=2)
    numbers = engine.submit([[1]], LONG)
    engine.step()
    numbers += engine.submit([prompt_of(40, 0), [1]], LONG)
    assert engine.cancel(numbers[1]) is None
    assert engine.num_waiting == 1
    ended = []
    while engine.is_busy:
        ended += [u.index for u in engine.step()]
    assert ended == [numbers[0], numbers[2]]


def test_callers_hear_of_every_step() -> None:
    """Catches a caller that looks after something else, and is not called while no answer ends."""
    engine, told = Engine(sharp_model(), num_slots=2), list[str]()
    prompts = [prompt_of(5, i) for i in range(3)]
    found = engine.generate(
        prompts, LONG, on_finish=lambda index, _: told.append(str(index)), on_step=lambda: told.append("step")
    )
    assert told[-1] == "step"
    assert sorted(word for word in told if word != "step") == ["0", "1", "2"]
    assert told.index("step") < min(told.index(word) for word in "012")
    assert told.count("step") >= max(one.num_forwards for one in found)


def test_an_error_of_the_caller_leaves_nothing_behind() -> None:
    """Catches requests of a call that has failed, which go on beside those of the next call and are told to nobody."""
    engine = Engine(sharp_model(), num_slots=2, limits=Limits(max_length=64))

    def fail(index: int, trajectory: Trajectory) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        engine.generate([prompt_of(5, i) for i in range(6)], LONG, on_finish=fail)
    assert not engine.is_busy
    assert engine.num_waiting == 0


def test_a_failing_model_is_reported_as_that_and_loses_requests_loudly() -> None:
    """Catches an error that hides the model's failure, and a loop that waits for ever for requests the failure took."""
    model = sharpened(new_model(tiny_config(), seed=0).double())
    engine = Engine(model, num_slots=4)
    expected = engine.generate([prompt_of(5, 0)], LONG)[0]
    good = model.lm_head.weight.detach().clone()
    left = engine.stream([prompt_of(5, 0)], LONG)
    next(left)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    for call in (engine.generate, lambda *asked: list(engine.stream(*asked))):
        with pytest.raises(FloatingPointError, match="not finite"):
            call([prompt_of(5, i) for i in range(6)], LONG)
    assert not engine.is_busy
    with pytest.raises(RuntimeError, match=r"requests \[1\] were ended by someone else"):
        next(left)
    with torch.no_grad():
        model.lm_head.weight.copy_(good)
    assert_same(engine.generate([prompt_of(5, 0)], LONG)[0], expected)


def test_rules_that_nobody_uses_any_more_are_forgotten() -> None:
    """Catches an engine that is never idle and keeps every rule it has ever seen."""
    engine = Engine(sharp_model(), num_slots=4, limits=Limits(max_length=64))
    numbers = []
    for i in range(40):
        numbers += engine.submit([prompt_of(5, i)], [replace(LONG, rule=Dynamic(i / 64), max_new_tokens=8)])
        engine.step()
    run = engine._run
    assert run is not None
    assert isinstance(run.forwards, CachedBlocks)
    assert len(run.slots.rules) <= 5
    ended = {u.index for _ in range(99) for u in engine.step()}
    assert max(ended) == numbers[-1]


def test_what_turns_out_not_to_fit_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an engine that fails in every step from then on, over a request that nobody can take back."""
    engine = Engine(sharp_model(), num_slots=2)
    first = engine.submit([prompt_of(5, 0)], replace(LONG, max_new_tokens=8))
    ended = [u.index for u in engine.step()]
    engine.submit([prompt_of(20, 1)], replace(LONG, max_new_tokens=90))
    monkeypatch.setattr(budget, "available_bytes", lambda: 0)
    while not ended:
        ended += [u.index for u in engine.step()]
    with pytest.raises(ValueError, match=r"needs .*, and 0 B are free; lower num_slots"):
        engine.step()
    assert (ended, engine.is_busy, engine.step()) == (first, False, [])
    monkeypatch.undo()
    assert len(engine.generate([prompt_of(20, 1)], replace(LONG, max_new_tokens=90))) == 1


@pytest.mark.parametrize("cache", [Exact(), Exact(page_size=8), "none"], ids=str)
def test_requests_that_come_one_by_one_run_side_by_side(cache: Any) -> None:
    """Catches an engine that stays as small as the first request found it: the others would run one after another."""
    together = Engine(sharp_model(), num_slots=16, cache=cache)
    expected = together.generate([prompt_of(5, i) for i in range(16)], LONG)
    engine = Engine(sharp_model(), num_slots=16, cache=cache)
    numbers, found = [], {}
    for i in range(16):
        numbers += engine.submit([prompt_of(5, i)], replace(LONG, seed=LONG.seed + i))
        if i == 7:
            found |= {u.index: u.trajectory for u in engine.step()}
    while engine.is_busy:
        found |= {u.index: u.trajectory for u in engine.step()}
    assert engine.stats.forwards <= together.stats.forwards + 1
    for number, record in zip(numbers, expected, strict=True):
        assert_same(found[number], record)


def test_one_that_does_not_fit_takes_nobody_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an error about one request that makes those behind it vanish."""
    engine = Engine(sharp_model(), num_slots=2)
    first = engine.submit([prompt_of(5, 0)], replace(LONG, max_new_tokens=8))
    engine.step()
    big = engine.submit([prompt_of(20, 1)], replace(LONG, max_new_tokens=90))
    behind = engine.submit([prompt_of(5, 2)], replace(LONG, max_new_tokens=8))
    room = budget.cache_bytes(sharp_model(), Layout.slots(1, 96))
    monkeypatch.setattr(budget, "available_bytes", lambda: room)
    found: list[int] = []
    while not found:
        found += [u.index for u in engine.step()]
    with pytest.raises(ValueError, match=rf"requests \[{big[0]}\] are not waited for any more: .*lower num_slots"):
        engine.step()
    while engine.is_busy:
        found += [u.index for u in engine.step()]
    assert found == first + behind
    with pytest.raises(ValueError, match=r"the cache of 1 slots with 128 positions.*lower num_slots"):
        engine.submit([prompt_of(20, 1)], replace(LONG, max_new_tokens=90))


def test_what_nobody_waits_for_is_forgotten() -> None:
    """Catches news of a stream that was left, told to somebody else for ever, and memory kept for nothing."""
    engine = Engine(sharp_model(), num_slots=4)
    stream = engine.stream([prompt_of(6, 1)], replace(LONG, max_new_tokens=8))
    next(stream)
    engine.generate([prompt_of(5, 0)], LONG)
    stream.close()
    assert (engine.is_busy, engine.step(), engine._run) == (False, [], None)
    number = engine.submit([prompt_of(5, 0)], LONG)[0]
    engine.step()
    engine.cancel(number)
    assert engine._run is None


def test_a_model_in_training_mode_is_refused() -> None:
    """Catches answers that dropout changes."""
    model = new_model(tiny_config(), seed=0).train()
    with pytest.raises(ValueError, match="training mode"):
        Engine(model).generate([[1, 2]], LONG)
    assert len(Engine(model.eval()).generate([[1, 2]], LONG)) == 1


def test_memory_of_rules_is_bounded_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches numbers per vocabulary entry that are taken in the middle of a step."""
    monkeypatch.setattr(budget, "available_bytes", lambda: 2**20)
    engine = Engine(sharp_model(), num_slots=10**4, cache="none")
    assert engine.submit([[1]], LONG)
    with pytest.raises(ValueError, match=r"sampling\.rule keeps.*lower num_slots, block_size"):
        engine.submit([[1]] * 2000, replace(LONG, rule=Credit()))
