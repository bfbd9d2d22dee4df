"""The engine against the oracle that recomputes everything, and against what its records promise."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from revelm.core.grid import block_start, padded_length
from revelm.decoding.dynamic import Dynamic
from revelm.decoding.rule import Rule
from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.engine.generate import generate
from revelm.models.load import new_model
from revelm.trajectories.record import NEVER, Trajectory
from tests.models import (
    EOS,
    MASK,
    RULES,
    assert_same,
    mixed_requests,
    prompt_of,
    sharp_model,
    sharpened,
    started,
    tiny_config,
)
from tests.oracle import oracles

FREE = {"ignore_eos": True}
SHORT = Sampling(max_new_tokens=8)


def decode(prompt: list[int], **settings: Any) -> Trajectory:
    return generate(sharp_model(), [prompt], sampling=[Sampling(**settings)])[0]


@pytest.mark.parametrize(
    ("rule", "block_size"),
    [*((rule, 4) for rule in RULES), (Static(1), 1), (Static(2), 3), (Dynamic(0.3), 8)],
    ids=str,
)
def test_cached_decoding_equals_the_oracle(rule: Rule, block_size: int) -> None:
    """Catches a stale or missing commit, a limit that is off by one, prefill at wrong positions, and slots that mix:
    any of them gives plausible text that the model did not mean."""
    model = sharp_model(block_size)
    prompts, settings = mixed_requests(rule, range(1, 2 * block_size + 2))
    expected = oracles(model, prompts, settings)
    for commit in ("fused", "separate"):
        records = Engine(model, num_slots=5, commit=commit).generate(prompts, settings)
        for record, true in zip(records, expected, strict=True):
            assert_same(record, true, forward=commit == "fused")
    blocks = {(t.stop_length + len(t.prompt_ids) - 1) // block_size for t in expected if t.finish_reason == "stop"}
    assert len(blocks) >= 3
    assert {t.finish_reason for t in expected} == {"stop", "length"}


def test_a_stop_token_in_the_prompt_does_not_end_the_response() -> None:
    """Catches a stop scan over the whole first block, whose beginning belongs to the prompt."""
    found = 0
    for seed in range(12):
        prompt = prompt_of(6, seed)
        free = decode(prompt, max_new_tokens=9, seed=seed, **FREE)
        if prompt[5] in free.completion_ids or prompt[4] in free.completion_ids:
            continue
        found += 1
        stopping = decode(prompt, max_new_tokens=9, seed=seed, stop_ids=(prompt[5], prompt[4]), **FREE)
        assert_same(free, stopping)
        assert stopping.finish_reason == "length"
    assert found > 5


def test_a_stop_waits_for_what_is_hidden_before_it() -> None:
    """Catches an end at the first stop token seen, with holes in the answer, and an end that comes a block too late."""
    waited = 0
    for seed in range(5):
        prompt = prompt_of(5, seed)
        free = decode(prompt, rule=Static(1), max_new_tokens=15, seed=seed, **FREE)
        ids, step = free.completion_ids.tolist(), free.step
        for place, token in enumerate(ids):
            if ids.count(token) > 1:
                continue
            record = decode(prompt, rule=Static(1), max_new_tokens=15, seed=seed, stop_ids=(token,), **FREE)
            assert (record.finish_reason, record.stop_length) == ("stop", place + 1)
            assert record.num_steps == step[: place + 1].max()
            assert record.response_ids.tolist() == ids[: place + 1]
            waited += record.num_steps > step[place]
    assert waited > 10


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("cap", [1, 2, 5, 8])
def test_the_cap_ends_a_response_inside_a_block(length: int, cap: int) -> None:
    """Catches answers longer than asked for, a denoising of the rest of the block, and stops counted beyond the cap."""
    prompt = prompt_of(length, 1)
    capped = decode(prompt, rule=Static(1), max_new_tokens=cap, seed=3, **FREE)
    longer = decode(prompt, rule=Static(1), max_new_tokens=cap + 8, seed=3, **FREE)
    assert (capped.stop_length, capped.finish_reason) == (cap, "length")
    assert capped.response_ids.tolist() == longer.response_ids[:cap].tolist()
    assert capped.num_steps == longer.step[:cap].max()
    beyond = tuple(i for i in range(EOS) if i not in capped.response_ids)
    stopping = decode(prompt, rule=Static(1), max_new_tokens=cap, seed=3, stop_ids=beyond, **FREE)
    assert (stopping.stop_length, stopping.finish_reason) == (cap, "length")


def test_the_record_keeps_the_whole_terminal_block() -> None:
    """Catches records cut at the stop: what was hidden or shown behind it decided the tokens before it."""
    prompts, settings = mixed_requests(Static(1), range(1, 9))
    unrevealed = behind = 0
    for t in generate(sharp_model(), prompts, sampling=settings):
        end = len(t.prompt_ids) + t.stop_length
        assert len(t.prompt_ids) + len(t.completion_ids) == padded_length(end, 4)
        never = t.step == NEVER
        assert ((t.completion_ids == MASK) == never).all()
        assert ((t.forward == NEVER) == never).all()
        assert not never[: t.stop_length].any()
        assert t.step.max() == t.num_steps
        unrevealed, behind = unrevealed + never.any(), behind + (~never[t.stop_length :]).any()
    assert unrevealed
    assert behind


def test_the_mask_is_never_written_even_if_the_head_prefers_it() -> None:
    """Catches filters that run before the ban: top-k = 1 would keep the mask id alone."""
    model = sharpened(new_model(tiny_config(), seed=0).double())
    with torch.no_grad():
        model.lm_head.weight[MASK] = 50 * model.lm_head.weight[:EOS].abs().mean(0) * model.lm_head.weight[7].sign()
    prompts = [prompt_of(5, i) for i in range(12)]
    with torch.no_grad():
        favoured = model(torch.tensor(prompts)).argmax(-1) == MASK
    assert favoured.double().mean() > 0.2
    for changes in ({"temperature": 0.0}, {"temperature": 1.5}, {"top_k": 1}, {"top_p": 0.1}):
        settings = [Sampling(max_new_tokens=11, seed=i, **changes, **FREE) for i in range(12)]
        records = generate(model, prompts, sampling=settings)
        assert all((t.completion_ids[t.step != NEVER] != MASK).all() for t in records)
        assert all(np.isfinite(t.logprob).all() for t in records)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_forwards_per_finished_block_equal_denoising_steps(rule: Rule) -> None:
    """Catches commits or prefills that cost a forward of their own, and dead rows: the speed would be lost silently."""
    model = sharp_model()
    prompts = [prompt_of(n, n) for n in range(1, 12)]
    settings = [Sampling(rule=rule, max_new_tokens=21, seed=i, **FREE) for i in range(len(prompts))]
    fused, separate = Engine(model), Engine(model, commit="separate")
    records = fused.generate(prompts, settings)
    assert fused.stats.forwards == max(t.num_steps for t in records)
    rows = 0
    for t in records:
        starts = range(block_start(len(t.prompt_ids), 4), len(t.prompt_ids) + len(t.completion_ids), 4)
        rows += starts[0] + 4 * t.num_steps + 4 * (len(starts) - 1)
        assert (t.step == t.forward).all()
        for start in starts:
            step = t.step[max(0, start - len(t.prompt_ids)) : start + 4 - len(t.prompt_ids)]
            assert len(set(step[step != NEVER])) == step.max() - max(0, step[step != NEVER].min() - 1)
    assert fused.stats.rows == rows
    for prompt, setting, t in zip(prompts, settings, records, strict=True):
        separate.stats = type(separate.stats)()
        record = separate.generate([prompt], [setting])[0]
        num_blocks = (len(t.prompt_ids) + len(t.completion_ids)) // 4 - len(t.prompt_ids) // 4
        assert separate.stats.commit_forwards == num_blocks - 1
        assert separate.stats.forwards == record.num_forwards == t.num_steps + num_blocks - 1


def test_a_separate_commit_counts_for_those_who_take_part() -> None:
    """Catches a forward that is charged to every running request: tokens per forward would depend on neighbours."""
    model = sharp_model()
    prompts, settings = mixed_requests(Dynamic(0.3), range(1, 9))
    together = Engine(model, num_slots=6, commit="separate").generate(prompts, settings)
    alone = Engine(model, num_slots=1, commit="separate").generate(prompts, settings)
    for one, other in zip(together, alone, strict=True):
        assert_same(one, other)


def test_seeds_belong_to_requests() -> None:
    """Catches draws that follow the slot or the order of arrival, and equal prompts that all get one answer."""
    model, prompt = sharp_model(), prompt_of(5, 0)
    setting = Sampling(max_new_tokens=16, seed=11, **FREE)
    same = generate(model, [prompt] * 3, sampling=[setting] * 3)
    assert_same(same[0], same[1])
    assert_same(same[0], same[2])
    spread = generate(model, [prompt] * 3, sampling=setting)
    assert_same(spread[0], same[0])
    assert len({tuple(t.completion_ids) for t in spread}) == 3
    assert_same(spread[2], generate(model, [prompt], sampling=replace(setting, seed=13))[0])


@pytest.mark.parametrize("poison", [1e4, -1e4])
def test_stale_keys_and_values_are_never_seen(poison: float) -> None:
    """Catches a row that sees a position nobody has written yet, or what the slot's previous request left there."""
    model = sharp_model()
    prompts, settings = mixed_requests(Static(3), range(1, 9))
    clean = generate(model, prompts, sampling=settings)
    engine = Engine(model, num_slots=3)
    run = started(engine, prompts, settings)
    run.forwards.cache.store.fill_(poison)
    results = {}
    with torch.inference_mode():
        while run.is_busy:
            results |= {u.index: u.trajectory for u in run.step()}
            free = run.forwards.cache.store[:, :, run.slots.count :]
            free.fill_(poison)
    for i, expected in enumerate(clean):
        assert_same(results[i], expected)


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([[1, MASK, 2]], SHORT, r"prompt 0 contains the mask token \(id 48\); remove it"),
        ([[1], []], SHORT, r"prompt 1 has shape \(0,\); give a non-empty list"),
        ([[1, 50]], SHORT, r"prompt 0 holds ids outside the model's vocabulary of 50"),
        ([[1] * 250], SHORT, r"prompt 0 of 250 tokens plus max_new_tokens=8.*260.*has 256"),
        ([[1] * 256], SHORT, r"prompt 0 has 256 tokens, which leaves no room for an answer: the model has 256"),
        (["text"], SHORT, r"needs a tokenizer"),
        ("text", SHORT, r"expected a list of prompts, got a single one"),
        ([1, 2], SHORT, r"expected a list of prompts, got a single one"),
        ([{"role": "user", "content": "text"}], SHORT, r"expected a list of prompts, got a single one"),
        ([[1]], Sampling(stop_strings=("x",)), r"stop_strings needs a tokenizer"),
        ([[1], [2]], [SHORT], r"2 prompts but 1 sampling settings"),
        ([[1], [2]], [], r"2 prompts but 0 sampling settings"),
    ],
)
def test_bad_requests_are_refused_before_any_work(prompts: Any, settings: Any, message: str) -> None:
    """Catches a batch that dies half way, or a wrong request that is decoded as something else."""
    engine = Engine(sharp_model())
    with pytest.raises(ValueError, match=message):
        engine.generate(prompts, settings)
    assert engine.stats.forwards == 0
    assert engine.generate([]) == []


@pytest.mark.parametrize(("length", "room"), [(10, 246), (250, 6), (255, 1)])
def test_answers_may_fill_the_model_when_no_length_is_given(length: int, room: int) -> None:
    """Catches defaults that a model of few positions refuses, and records that do not say what the limit was."""
    found = Engine(sharp_model()).generate([[1] * length], Sampling(rule=Static(4), ignore_eos=True))[0]
    assert (found.stop_length, found.finish_reason, found.sampling["max_new_tokens"]) == (room, "length", room)


def test_seeds_of_a_batch_wrap_at_64_bits() -> None:
    """Catches a large seed, such as a derived one, that overflows at the second request."""
    prompts = [[1, 2]] * 2
    last = Engine(sharp_model()).generate(prompts, Sampling(seed=2**63 - 1, max_new_tokens=4))
    assert [t.sampling["seed"] for t in last] == [2**63 - 1, -(2**63)]
