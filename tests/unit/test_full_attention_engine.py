"""Full attention in the engine: whole canvases, windows, and the head in chunks, against the oracle."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from revelm.decoding.dynamic import Dynamic
from revelm.decoding.rule import Rule
from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine import decide
from revelm.engine.engine import Engine
from revelm.engine.reference import decode_naively
from revelm.engine.settings import Exact, Uncached
from revelm.eval.config import SettingSpec
from revelm.models.language_model import LanguageModel
from revelm.models.load import new_model
from revelm.trajectories.record import NEVER, Trajectory
from tests.models import (
    EOS,
    MASK,
    RULES,
    assert_same,
    declared_model,
    mixed_requests,
    prompt_of,
    sharp_model,
    sharpened,
    started,
    tiny_config,
)
from tests.oracle import oracles

WINDOWS = (None, 1, 3, 8)
FREE = {"ignore_eos": True}


def windowed(rule: Rule, lengths: Sequence[int]) -> tuple[list[list[int]], list[Sampling]]:
    """Mixed requests of every window; neighbours differ."""
    prompts, settings = mixed_requests(rule, lengths)
    return prompts, [replace(s, block_size=WINDOWS[(i + i // 4) % 4]) for i, s in enumerate(settings)]


def everything() -> tuple[list[list[int]], list[Sampling]]:
    """Requests that differ in everything, rules included."""
    parts = [windowed(rule, range(1, 5)) for rule in RULES]
    settings = [s for _, part in parts for s in part]
    return [p for part, _ in parts for p in part], [replace(s, seed=500 + i) for i, s in enumerate(settings)]


def full_trajectories(model: LanguageModel, **changes: Any) -> list[tuple[Sampling, Trajectory]]:
    prompts, settings = everything()
    settings = [replace(s, **changes) for s in settings]
    return list(zip(settings, Engine(model, num_slots=16).generate(prompts, settings), strict=True))


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("rule", [Static(1), Static(3), Dynamic(0.3)], ids=str)
def test_whole_canvases_equal_the_oracle(rule: Rule, is_shifted: bool) -> None:
    """Catches padding that is seen, windows off by one, features of the wrong row, and slots or settings that mix."""
    model = declared_model("full", is_shifted=is_shifted)
    prompts, settings = windowed(rule, range(1, 9))
    answers = oracles(model, prompts, settings)
    for num_slots in (1, 7):
        records = Engine(model, num_slots=num_slots).generate(prompts, settings)
        for record, expected in zip(records, answers, strict=True):
            assert_same(record, expected)
    assert {t.finish_reason for t in answers} == {"stop", "length"}
    assert any((t.step == NEVER).any() for t in answers)
    assert any(len(t.step) % t.block_size and t.finish_reason == "length" for t in answers)
    assert any(t.stop_length > t.block_size > 1 for t in answers if t.finish_reason == "stop")


def test_the_oracle_sees_the_shift_and_the_attention() -> None:
    """Catches comparisons of equals: the four kinds of model must not decode alike."""
    prompt, sampling = prompt_of(6, 0), Sampling(max_new_tokens=12, rule=Static(2), **FREE)
    kinds = [declared_model(a, is_shifted=s) for a in ("full", "block") for s in (False, True)]
    found = {tuple(decode_naively(model, prompt, sampling).response_ids.tolist()) for model in kinds}
    assert len(found) == 4


@pytest.mark.parametrize("is_shifted", [False, True])
def test_alone_and_among_others(is_shifted: bool) -> None:
    """Catches a window as wide as the neighbour's, a canvas as long as the neighbour's, and slots that move badly."""
    model = declared_model("full", is_shifted=is_shifted)
    prompts, settings = everything()
    alone = oracles(model, prompts, settings)
    for num_slots, seed in ((3, 0), (80, 1)):
        order = np.random.default_rng(seed).permutation(len(prompts)).tolist()
        engine = Engine(model, num_slots=num_slots)
        records = engine.generate([prompts[i] for i in order], [settings[i] for i in order])
        for i, record in zip(order, records, strict=True):
            assert_same(record, alone[i])
    assert len({t.num_steps for t in alone}) > 10


def test_what_lies_behind_a_canvas_is_never_seen_nor_written() -> None:
    """Catches a window that reaches past its canvas, or over its own end, when a wider one runs beside."""
    model = declared_model("full")
    prompts, settings = windowed(Static(3), range(1, 9))
    clean = Engine(model, num_slots=6).generate(prompts, settings)
    run = started(Engine(model, num_slots=6), prompts, settings)
    results: dict[int, Trajectory] = {}
    columns = torch.arange(run.slots.position["canvas"].shape[1])
    with torch.inference_mode():
        while run.is_busy:
            results |= {u.index: u.trajectory for u in run.step() if u.trajectory is not None}
            n = run.slots.count
            behind = columns >= run.slots.slot["length"][:n, None]
            assert not run.slots.position["hidden"][:n][behind].any()
            assert (run.slots.position["step"][:n][behind] == NEVER).all()
            run.slots.position["canvas"][:n][behind] = 7
    for i, expected in enumerate(clean):
        assert_same(results[i], expected)


@pytest.mark.parametrize("is_shifted", [False, True])
def test_windows_are_decoded_one_after_another(is_shifted: bool) -> None:
    """Catches a reveal in a later window before the earlier ones are complete, and windows counted from elsewhere."""
    for sampling, t in full_trajectories(declared_model("full", is_shifted=is_shifted), stop_ids=(), **FREE):
        assert sampling.max_new_tokens is not None
        assert len(t.step) == sampling.max_new_tokens == t.stop_length
        assert t.grid_offset == len(t.prompt_ids)
        assert t.block_size == min(sampling.block_size or t.stop_length, t.stop_length)
        assert not t.approximate_cache
        window = np.arange(len(t.step)) // t.block_size
        for w in range(1, window[-1] + 1):
            assert t.step[window == w].min() == t.step[window == w - 1].max() + 1
        if isinstance(sampling.rule, Static):
            sizes = np.bincount(window)
            assert t.num_steps == sum(-(-sizes // sampling.rule.tokens_per_step))


def test_one_window_is_decoded_in_any_order() -> None:
    """Catches an answer that is secretly cut into blocks when no window is asked for."""
    free = [t for s, t in full_trajectories(declared_model("full"), stop_ids=(), **FREE) if s.block_size is None]
    assert sum((np.diff(t.step) < 0).any() for t in free) > len(free) // 2
    assert sum(t.step[-1] == 1 for t in free) > 0


def test_a_response_ends_at_its_first_stop_with_nothing_hidden_before_it() -> None:
    """Catches an end with holes in the answer, one that waits for the rest of the canvas, and stops counted twice."""
    waited = behind = 0
    model = declared_model("full")
    for seed in range(4):
        fixed: dict[str, Any] = {"rule": Static(1), "max_new_tokens": 13, "seed": seed, **FREE}
        for block_size in (None, 5):
            setting = Sampling(block_size=block_size, **fixed)
            free = Engine(model).generate([prompt_of(5, seed)], [setting])[0]
            ids = free.completion_ids.tolist()
            for token in set(ids):
                place = ids.index(token)
                record = Engine(model).generate([prompt_of(5, seed)], [replace(setting, stop_ids=(token,))])[0]
                seen = [i for i in range(13) if ids[i] == token]
                ends = [free.step[: i + 1].max() for i in seen]
                assert (record.finish_reason, record.num_steps) == ("stop", min(ends))
                assert record.stop_length == seen[int(np.argmin(ends))] + 1 == place + 1
                assert len(record.completion_ids) == 13
                assert (record.completion_ids[record.step == NEVER] == MASK).all()
                assert record.response_ids.tolist() == ids[: place + 1]
                waited += record.num_steps > free.step[place]
                behind += bool((record.step[place + 1 :] != NEVER).any())
    assert waited > 10
    assert behind > 10


@pytest.mark.parametrize("attention", ["full", "block"])
@pytest.mark.parametrize("limit", [1, 2 * 50, 7 * 50 + 3])
def test_the_head_in_chunks_gives_the_same(attention: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches proposals that return to other positions than they were made for, and settings of another chunk."""
    model = declared_model(attention)
    prompts, settings = everything()
    if attention == "block":
        settings = [replace(s, block_size=None) for s in settings]
    whole = oracles(model, prompts, settings)
    monkeypatch.setattr(decide, "MAX_LOGITS", limit)
    largest = 0

    def head(features: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, features.shape[0])
        return LanguageModel.head(model, features)

    monkeypatch.setattr(model, "head", head)
    for one, other in zip(whole, Engine(model, num_slots=9).generate(prompts, settings), strict=True):
        assert_same(one, other)
    assert largest == max(1, limit // 50)


def test_the_head_runs_on_what_is_hidden_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches logits of prompts, of decided positions and of later windows: they are most of the memory."""
    model, rows = declared_model("full"), []

    def head(features: Tensor) -> Tensor:
        rows.append(features.shape)
        return LanguageModel.head(model, features)

    monkeypatch.setattr(model, "head", head)
    sampling = Sampling(rule=Static(2), max_new_tokens=10, block_size=6, **FREE)
    Engine(model).generate([prompt_of(9, 0)], sampling)
    assert rows == [(n, 24) for n in (6, 4, 2, 4, 2)]


def test_a_model_that_gives_no_numbers_is_reported() -> None:
    """Catches an endless run over NaN weights."""
    model = sharpened(new_model(tiny_config(), seed=0))
    model.family = replace(model.family, attention="full", block_size=None)
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        Engine(model).generate([[1, 2]], Sampling(max_new_tokens=4))


@pytest.mark.parametrize(
    ("attention", "cache", "message"),
    [
        ("causal", "auto", r"tiny-causal is autoregressive; turn it into a diffusion model with `revelm convert`"),
        ("causal", "none", r"tiny-causal is autoregressive"),
        ("full", "exact", r"'exact', but tiny-full has full attention, for which every cache is approximate; 'none'"),
        ("block", "prefix", r"'prefix', which is approximate and for full attention; tiny-block has block attention"),
    ],
)
def test_engines_that_cannot_be_are_refused(attention: str, cache: Any, message: str) -> None:
    """Catches a model decoded in a way it was not made for."""
    with pytest.raises(ValueError, match=message):
        Engine(declared_model(attention), cache=cache)


def test_the_oracle_refuses_autoregressive_models() -> None:
    """Catches an oracle that decodes what no engine would."""
    with pytest.raises(ValueError, match="tiny-causal is autoregressive"):
        decode_naively(declared_model("causal"), [1], Sampling())


@pytest.mark.parametrize(
    ("attention", "prompt", "settings", "message"),
    [
        ("block", [1], {"block_size": 8}, r"sampling.block_size is 8, but tiny-block decodes blocks of 4; give 4 or"),
        ("full", [1] * 250, {"max_new_tokens": 7}, r"250 tokens plus max_new_tokens=7 needs 257 positions; .* has 256"),
        ("full", [1] * 256, {}, r"prompt 0 has 256 tokens, which leaves no room for an answer"),
    ],
)
def test_bad_requests_are_refused(attention: str, prompt: list[int], settings: Any, message: str) -> None:
    """Catches windows that a model does not have, and answers that do not fit."""
    engine = Engine(declared_model(attention))
    with pytest.raises(ValueError, match=message):
        engine.generate([prompt], Sampling(**settings))
    assert engine.stats.forwards == 0


@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_windows_have_at_least_one_position(value: Any) -> None:
    """Catches a window that never advances."""
    with pytest.raises(ValueError, match=rf"sampling.block_size is {value}, must be an integer of at least 1, or None"):
        Sampling(block_size=value)


def test_the_window_is_recorded_and_full_canvases_are_not_rounded_up() -> None:
    """Catches a canvas of whole windows, an answer that fills the model refused, and recipes whose window is lost."""
    model = declared_model("full")
    spec = SettingSpec(rule={"kind": "static", "tokens_per_step": 4}, block_size=100)
    record = Engine(model).generate([[1] * 101], replace(spec.sampling(seed=3), ignore_eos=True))[0]
    assert (len(record.completion_ids), record.stop_length, record.block_size) == (155, 155, 100)
    assert record.sampling["block_size"] == 100
    short = Engine(model).generate([[1] * 5], Sampling(block_size=8, max_new_tokens=5, **FREE))[0]
    assert (short.block_size, short.sampling["block_size"]) == (5, 8)
    block = Engine(declared_model("block")).generate([[1] * 5], Sampling(block_size=4, max_new_tokens=3))[0]
    assert (block.block_size, block.grid_offset, block.sampling["block_size"]) == (4, 0, 4)
    with pytest.raises(ValueError, match="block_size"):
        SettingSpec(block_size=0)


def test_auto_is_the_exact_cache_where_there_is_one() -> None:
    """Catches block models that recompute everything silently."""
    assert Engine(declared_model("block")).cache == Exact()
    assert Engine(declared_model("full")).cache == Uncached()
    engines = [Engine(sharp_model()), Engine(sharp_model(), cache="none")]
    for engine in engines:
        engine.generate([prompt_of(9, 0)], Sampling(rule=Static(1), max_new_tokens=11, **FREE))
    assert engines[0].stats.rows == 8 + 4 * 11 + 4 * 2
    assert engines[1].stats.rows == 3 * 12 + 4 * 16 + 4 * 20
    assert EOS in sharp_model().family.stop_ids
