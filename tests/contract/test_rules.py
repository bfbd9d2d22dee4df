"""What every decode rule promises. A rule in the registry is enrolled; nothing here names one."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from revelm.core import registry
from revelm.decoding.propose import Proposal
from revelm.decoding.rule import Rule
from revelm.decoding.sampling import Sampling, sampling_rows
from revelm.engine.engine import Engine
from revelm.objectives.batch import Episode
from revelm.objectives.episode_rows import episode_rows
from revelm.objectives.policy import token_weights
from revelm.objectives.rows import collate
from revelm.objectives.score import score
from revelm.trajectories.record import NEVER, Trajectory
from revelm.trajectories.replay import copies
from tests.models import assert_same, mixed_requests, sharp_model
from tests.oracle import oracles


@dataclass(frozen=True)
class Leftmost(Rule):
    """A rule as a user would write it: from left to right."""

    width: int = 2

    def select(self, confidence: Tensor, hidden: Tensor, step: Tensor) -> Tensor:
        return hidden & (hidden.cumsum(-1) <= self.width)


@dataclass(frozen=True)
class Lazy(Rule):
    """A rule that never chooses anything: the engine must guarantee progress."""

    def select(self, confidence: Tensor, hidden: Tensor, step: Tensor) -> Tensor:
        return torch.zeros_like(hidden)


@dataclass(frozen=True)
class Greedy(Rule):
    """A broken rule: what it proposes depends on who else is in the batch."""

    def select(self, confidence: Tensor, hidden: Tensor, step: Tensor) -> Tensor:
        return hidden & (confidence >= confidence.mean())


@lru_cache(maxsize=1)
def decoded(rule: Rule) -> tuple[list[list[int]], list[Sampling], list[Trajectory]]:
    prompts, settings = mixed_requests(rule, range(1, 9))
    return prompts, settings, Engine(sharp_model(), num_slots=32).generate(prompts, settings)


def check_fills_every_position_and_spares_the_prompt(rule: Rule) -> None:
    """Without stops, every position up to the cap is revealed once, and the prompt stays what it was."""
    prompts, settings = mixed_requests(rule, range(1, 9))
    free = [replace(s, stop_ids=(), ignore_eos=True) for s in settings]
    for prompt, setting, t in zip(prompts, free, Engine(sharp_model()).generate(prompts, free), strict=True):
        assert t.prompt_ids.tolist() == prompt
        assert t.stop_length == setting.max_new_tokens
        assert (t.step[: t.stop_length] != NEVER).all()
        assert (t.completion_ids[: t.stop_length] != sharp_model().family.mask_id).all()
        block = (len(prompt) + np.arange(len(t.step))) // t.block_size
        for b in np.unique(block)[1:]:
            revealed = t.step[block == b]
            between = revealed[revealed != NEVER].min() - t.step[block == b - 1].max() - 1
            assert 0 <= between <= (rule.max_post_steps if rule.is_editing else 0)


def check_equals_the_oracle(rule: Rule) -> None:
    """Cached decoding is the plain recompute."""
    prompts, settings, records = decoded(rule)
    for record, expected in zip(records, oracles(sharp_model(), prompts, settings), strict=True):
        assert_same(record, expected)


def check_replay_reproduces_every_log_probability(rule: Rule) -> None:
    """The trainer sees what the rule saw."""
    model, rows = sharp_model(), []
    for i, record in enumerate(decoded(rule)[2]):
        seen = copies(record, beyond_stop=True)
        rows.extend(episode_rows(Episode(record, 1.0, 0, i), seen, model.family, token_weights(seen.target, "token")))
    batch = collate(rows, model.family)
    with torch.no_grad():
        assert (score(model, batch).logprob - batch.columns["behaviour"]).abs().max() < 1e-10


def check_is_batch_invariant(rule: Rule) -> None:
    """A request alone gives what it gives among others; every third is asked, with every setting and length."""
    prompts, settings, together = (part[::3] for part in decoded(rule))
    engine = Engine(sharp_model(), num_slots=1)
    for prompt, setting, record in zip(prompts, settings, together, strict=True):
        assert_same(engine.generate([prompt], [setting])[0], record)


def check_is_pure(rule: Rule) -> None:
    """Selecting and revising change none of their inputs and give the same answer again."""
    generator = torch.Generator().manual_seed(0)
    confidence, hidden = torch.rand(5, 4, generator=generator), torch.rand(5, 4, generator=generator) < 0.6
    step = torch.arange(1, 6)
    before = [x.clone() for x in (confidence, hidden, step)]
    for decide in (rule.select, rule.revise):
        first, second = decide(confidence, hidden, step), decide(confidence, hidden, step)
        assert (first.dtype, first.shape) == (torch.bool, hidden.shape)
        assert torch.equal(first, second)
    assert rule.is_editing or not rule.revise(confidence, hidden, step).any()
    assert all(torch.equal(x, y) for x, y in zip((confidence, hidden, step), before, strict=True))


def check_proposals_are_pure_and_of_their_row_alone(rule: Rule) -> None:
    """Proposing changes none of its inputs, its memory keeps its shape, and a row's proposals are its own."""
    generator, vocab, num = torch.Generator().manual_seed(0), 9, 3
    logits, against = 2 * torch.randn(2, num, 4, vocab, generator=generator).double()
    numbers = torch.rand(num, 4, generator=generator).double()
    size = rule.memory_size(vocab)
    memory = torch.rand(num, 4, size, generator=generator) if size else None
    kinds = ({}, {"temperature": 0.6, "top_k": 3, "guidance": 0.5}, {"temperature": 0.0})
    settings = [Sampling(rule=rule, **kind) for kind in kinds]
    before = [x if x is None else x.clone() for x in (logits, numbers, memory, against)]

    def proposed(rows: slice) -> Proposal:
        chosen = sampling_rows(settings[rows], (5,), "cpu", vocab_size=vocab)
        kept = None if memory is None else memory[rows]
        return rule.propose(logits[rows], numbers[rows], chosen, kept, against=against[rows])

    together = proposed(slice(num))
    assert not (together.token == 5).any()
    assert together.logprob.isfinite().all()
    assert (together.memory is None) == (memory is None)
    assert together.memory is None or (together.memory.shape, together.memory.dtype) == ((num, 4, size), torch.float32)
    for i in range(num):
        for name, value in vars(proposed(slice(i, i + 1))).items():
            assert value is None or torch.equal(value[0], vars(together)[name][i]), name
    for x, y in zip((logits, numbers, memory, against), before, strict=True):
        assert x is None or torch.equal(x, y)


def check_says_what_is_left_to_chance(rule: Rule) -> None:
    """At temperature 0 other numbers give another proposal if, and only if, the rule is random."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 4, 9, generator=generator).double()
    size = rule.memory_size(9)
    memory = torch.rand(3, 4, size, generator=generator) if size else None
    settings = sampling_rows([Sampling(temperature=0.0, rule=rule)] * 3, (), "cpu", vocab_size=9)
    numbers = torch.rand(2, 3, 4, generator=generator).double()
    first, second = (rule.propose(logits, one, settings, memory) for one in numbers)
    pairs = [(value, vars(second)[name]) for name, value in vars(first).items() if value is not None]
    assert all(torch.equal(one, other) for one, other in pairs) is not rule.is_random


CHECKS = (
    check_says_what_is_left_to_chance,
    check_fills_every_position_and_spares_the_prompt,
    check_equals_the_oracle,
    check_replay_reproduces_every_log_probability,
    check_is_batch_invariant,
    check_is_pure,
    check_proposals_are_pure_and_of_their_row_alone,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", registry.names("rules"))
def test_registered_rules_keep_their_promises(name: str, check: Any) -> None:
    """Catches a rule that leaves holes, touches the prompt, cannot be replayed or depends on its neighbours."""
    check(registry.build("rules", name))


@pytest.mark.parametrize("kind", [Leftmost, Lazy])
def test_a_new_rule_is_enrolled_by_one_line(kind: type[Rule], monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches checks that know their subjects by name: a rule from outside runs through the same ones."""
    monkeypatch.setitem(registry.RULES, "new", f"{__name__}:{kind.__name__}")
    assert "new" in registry.names("rules")
    built = registry.build("rules", "new")
    assert built == registry.build("rules", {"kind": f"{__name__}:{kind.__name__}"}) == kind()
    for check in CHECKS:
        check(built)


def test_a_broken_rule_fails_the_checks() -> None:
    """Catches checks that pass whatever they are given."""
    with pytest.raises(AssertionError):
        check_is_batch_invariant(Greedy())
