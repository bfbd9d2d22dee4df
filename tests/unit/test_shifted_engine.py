"""Block models with and without the cache, shifted ones included: which row speaks about the first token of a block."""

from typing import Any

import pytest
import torch
from torch import Tensor

from revelm.decoding.dynamic import Dynamic
from revelm.decoding.rule import Rule
from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.cached import CachedBlocks
from revelm.engine.engine import Engine
from revelm.engine.kv_cache import KVCache
from revelm.engine.rows import make_rows
from revelm.masks.visibility import kv_limit
from tests.models import MASK, assert_same, declared_model, mixed_requests, prompt_of, started
from tests.oracle import oracles


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize(("rule", "block_size"), [(Static(1), 4), (Static(3), 4), (Dynamic(0.3), 3), (Static(1), 1)])
def test_block_models_need_no_cache(rule: Rule, block_size: int, is_shifted: bool) -> None:
    """Catches a shifted first row of a block that takes the feature of another row than the clean one before, in any
    of its three places (prefilled, committed, remembered), and canvases that see beyond the current block."""
    model = declared_model("block", is_shifted=is_shifted, block_size=block_size)
    prompts, settings = mixed_requests(rule, range(1, 2 * block_size + 2))
    answers = oracles(model, prompts, settings)
    ways: list[dict[str, Any]] = [{"commit": "fused"}, {"commit": "separate"}, {"cache": "none"}]
    for way in ways:
        records = Engine(model, num_slots=5, **way).generate(prompts, settings)
        for record, expected in zip(records, answers, strict=True):
            assert_same(record, expected, forward=way != {"commit": "separate"})


def test_every_row_of_a_forward_is_aligned() -> None:
    """Catches rows nobody reads today (prompts, position 0) that are about something else than the plain model says."""
    model = declared_model("block", is_shifted=True)
    prompts = [prompt_of(n, n) for n in (9, 3, 8)]
    run = started(Engine(model), prompts, Sampling(max_new_tokens=8))
    assert isinstance(run.forwards, CachedBlocks)
    run.scheduler.fill(0)
    spans = torch.stack((torch.zeros(3, dtype=torch.int64), run.slots.window_ends()), 1)
    rows = make_rows(run.slots, run.forwards.cache, spans, lambda slot, position: kv_limit(model.family, position, 0))
    run.forwards.cache.begin(rows.places, rows.segments, rows.predecessors)
    with torch.inference_mode():
        found = model.body(rows.tokens[None], rows.positions[None], None, run.forwards.cache)[0]
        for slot, prompt in enumerate(prompts):
            mine = rows.places // run.forwards.cache.layout.capacity == slot
            order = rows.positions[mine].argsort()
            tokens = torch.tensor([[*prompt, *[MASK] * (len(order) - len(prompt))]])
            expected = model.body(tokens, torch.arange(len(order))[None], None)[0]
            torch.testing.assert_close(found[mine][order], expected, rtol=0, atol=1e-10)


class Forgetful(KVCache):
    """A broken cache: what it remembers of a slot stays what it was at first."""

    def align(self, features: Tensor) -> Tensor:
        before = self.boundary.clone()
        aligned = super().align(features)
        self.boundary = before
        return aligned


class Unmoved(KVCache):
    """A broken cache: a request that moves leaves behind what was remembered of it."""

    def move(self, source: int, target: int, length: int) -> None:
        before = self.boundary.clone()
        super().move(source, target, length)
        self.boundary = before


class Neighbourly(KVCache):
    """A broken cache: every row takes the feature of the row before it in the forward."""

    def align(self, features: Tensor) -> Tensor:
        return torch.cat((features[:, :1], features[:, :-1]), 1)


@pytest.mark.parametrize("commit", ["fused", "separate"])
@pytest.mark.parametrize("broken", [Forgetful, Unmoved, Neighbourly])
def test_a_wrong_predecessor_is_noticed(broken: type[KVCache], commit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches tests too weak to see which row a shifted block begins with."""
    model = declared_model("block", is_shifted=True)
    prompts, settings = mixed_requests(Static(1), range(1, 9))
    right = Engine(model, num_slots=5, commit=commit).generate(prompts, settings)
    monkeypatch.setattr("revelm.engine.cached.KVCache", broken)
    wrong = Engine(model, num_slots=5, commit=commit).generate(prompts, settings)
    assert any(a.response_ids.tolist() != b.response_ids.tolist() for a, b in zip(right, wrong, strict=True))
