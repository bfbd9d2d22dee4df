"""What every objective promises. An objective in the registry is enrolled; nothing here names one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from revelm.core import registry
from revelm.core.types import Family
from revelm.decoding.dynamic import Dynamic
from revelm.engine.engine import Engine
from revelm.masks.visibility import PADDING
from revelm.objectives.batch import Batch, Episode, Loss, Scored, Text, add_metrics
from revelm.objectives.block_sft import BlockSFT
from revelm.objectives.score import score
from tests.models import mixed_requests, sharp_model

SEED = 5


@dataclass(frozen=True)
class Unweighted:
    """An objective as a user would write it: the hidden tokens' log-likelihood, each worth the same."""

    rate: float = 0.5

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    def prepare(self, samples: Sequence[Text], family: Family, seed: int) -> Batch:
        return BlockSFT(low=self.rate, high=self.rate, weighting="none").prepare(samples, family, seed)

    def judge(self, scored: Scored, batch: Batch) -> Loss:
        return Loss(-scored.logprob.sum(), batch.count)


@dataclass(frozen=True)
class Averaging(Unweighted):
    """A broken objective: a mean instead of a sum, so that micro-batches do not add up."""

    def judge(self, scored: Scored, batch: Batch) -> Loss:
        return Loss(-scored.logprob.mean(), 1.0)


class Watched:
    """The model, keeping the features it made, so that a test can ask where gradient arrived."""

    def __init__(self) -> None:
        self.model = sharp_model()
        self.family, self.head = self.model.family, self.model.head

    def body(self, tokens: Tensor, positions: Tensor, pattern: Any) -> Tensor:
        self.features = self.model.body(tokens, positions, pattern)
        self.features.retain_grad()
        return self.features


@lru_cache(maxsize=1)
def episodes() -> tuple[Episode, ...]:
    """Real rollouts in groups of four, half of them right."""
    prompts, settings = mixed_requests(Dynamic(0.2), (3, 4, 6))
    groups = range(0, 12, 4)
    prompts = [prompts[g] for g in groups for _ in range(4)]
    settings = [replace(s, max_new_tokens=18, stop_ids=tuple(range(5))) for s in settings]
    records = Engine(sharp_model()).generate(prompts, settings)
    return tuple(Episode(t, float(i % 4 in (1, 2)), i // 4, key=i) for i, t in enumerate(records))


def is_rl(objective: Any) -> bool:
    return "credit" in dir(type(objective))


def samples_for(objective: Any) -> list[Any]:
    """What the objective learns from: texts, or episodes with credit."""
    if is_rl(objective):
        return objective.credit(
            [replace(e, trajectory=replace(e.trajectory, finish_reason="stop")) for e in episodes()]
        )
    rng = np.random.default_rng(0)
    return [Text(rng.integers(0, 46, n), n // 3, key=n) for n in (9, 14, 16, 23, 30, 31)]


def scored_for(objective: Any, batch: Batch, model: Any = None) -> Scored:
    """The model's numbers, with the behaviour policy where it is needed: here the policy itself."""
    scored = score(model or sharp_model(), batch)
    needs_behaviour = "behaviour" in objective.needs
    return replace(scored, behaviour=scored.logprob.detach()) if needs_behaviour else scored


def loss_and_gradients(objective: Any, batches: Sequence[Batch]) -> tuple[float, float, list[Tensor]]:
    """Sum, count and gradients of the sum over ``batches``."""
    model = sharp_model()
    losses = [objective.judge(scored_for(objective, batch), batch) for batch in batches]
    total = torch.stack([loss.sum for loss in losses]).sum()
    return (
        float(total.detach()),
        sum(x.count for x in losses),
        list(torch.autograd.grad(total, list(model.parameters()))),
    )


def assert_equal_losses(objective: Any, one: Sequence[Batch], other: Sequence[Batch]) -> None:
    """Sum, count and every gradient agree; the gradient is not zero."""
    first, second = loss_and_gradients(objective, one), loss_and_gradients(objective, other)
    assert first[0] == pytest.approx(second[0], rel=1e-10, abs=1e-9)
    assert first[1] == pytest.approx(second[1], rel=1e-12)
    largest = max(float(g.abs().max()) for g in first[2])
    assert largest > 0
    for x, y in zip(first[2], second[2], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-9 * largest)


def packed(batch: Batch) -> Batch:
    """All rows one after another in a single one, told apart by their sequence."""
    rows = torch.arange(len(batch.tokens))[:, None]
    sequence = torch.where(batch.sequence == PADDING, PADDING, rows)
    grids = {k: vars(batch)[k].reshape(1, -1) for k in ("tokens", "positions", "stream", "block")}
    return replace(batch, **grids, sequence=sequence.reshape(1, -1), counts=batch.counts.sum()[None])


def check_gradient_arrives_only_at_scored_positions(objective: Any) -> None:
    """The head's inputs at unscored positions get no gradient; at scored ones some do."""
    batch, model = objective.prepare(samples_for(objective), sharp_model().family, SEED), Watched()
    objective.judge(scored_for(objective, batch, model), batch).sum.backward()
    sharp_model().zero_grad(set_to_none=True)
    assert model.features.grad is not None
    size = model.features.grad.abs().sum(-1).flatten()
    scored = torch.zeros(len(size), dtype=torch.bool)
    scored[batch.scored] = True
    assert (size[~scored] == 0).all()
    assert (size[scored] > 0).double().mean() > 0.5
    shown = batch.tokens.flatten()[batch.scored]
    assert (shown == sharp_model().family.mask_id).all()
    assert (batch.targets != sharp_model().family.mask_id).all()


def check_any_split_padding_or_packing_is_the_same(objective: Any) -> None:
    """Micro-batches, rows alone, and all rows packed into one give the same sum, count and gradient."""
    samples, family = samples_for(objective), sharp_model().family
    whole = objective.prepare(samples, family, SEED)
    assert len(whole.lengths.unique()) > 1
    for size in (1, 150, 10_000):
        assert_equal_losses(objective, [whole], whole.split(size))
    assert_equal_losses(objective, [whole], [objective.prepare([s], family, SEED) for s in samples])
    assert_equal_losses(objective, [whole], [packed(whole)])


def check_ratio_is_one_on_policy(objective: Any) -> None:
    """Before any update the policy is the behaviour policy: ratio 1, no KL, nothing clipped."""
    if not is_rl(objective):
        return
    batch = objective.prepare(samples_for(objective), sharp_model().family, SEED)
    with torch.no_grad():
        metrics = add_metrics([objective.judge(scored_for(objective, batch), batch).metrics])
    if "ratio" in metrics:
        assert metrics["ratio"] == pytest.approx(1.0, abs=1e-10)
        assert metrics["kl"] == pytest.approx(0.0, abs=1e-10)
        assert metrics["clip_fraction"] == 0.0


def check_is_finite_at_extremes(objective: Any) -> None:
    """Certain and impossible tokens, now and at behaviour time, give finite losses, gradients and metrics."""
    batch = objective.prepare(samples_for(objective), sharp_model().family, SEED)
    num = len(batch.targets)
    for now, before in ((0.0, -1e4), (-1e4, 0.0), (-1e4, -1e4), (-80.0, -0.0)):
        logprob = torch.full((num,), now, requires_grad=True)
        old = torch.full((num,), before)
        scored = Scored(logprob=logprob, entropy=torch.zeros(num), behaviour=old)
        loss = objective.judge(scored, batch)
        loss.sum.backward()
        assert torch.isfinite(loss.sum)
        assert torch.isfinite(logprob.grad).all()
        assert all(np.isfinite(value) and count > 0 for value, count in loss.metrics.values())


def check_noise_belongs_to_the_sample(objective: Any) -> None:
    """Prepared again, or in another order, a sample is shown the same way: a resumed run is the same run."""
    samples, family = samples_for(objective), sharp_model().family
    one, again = (objective.prepare(samples, family, SEED) for _ in range(2))
    back = objective.prepare(samples[::-1], family, SEED)
    for name in ("tokens", "positions", "stream", "block", "sequence"):
        assert torch.equal(vars(one)[name], vars(again)[name])
        assert torch.equal(vars(one)[name], vars(back)[name].flip(0))
    assert one.count > 0
    assert (one.counts >= 0).all()


CHECKS = (
    check_gradient_arrives_only_at_scored_positions,
    check_any_split_padding_or_packing_is_the_same,
    check_ratio_is_one_on_policy,
    check_is_finite_at_extremes,
    check_noise_belongs_to_the_sample,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", registry.names("objectives"))
def test_registered_objectives_keep_their_promises(name: str, check: Any) -> None:
    """Catches losses that depend on how a batch is cut, padded or packed, gradient where nothing was asked, a ratio
    that is not 1 on-policy, and numbers that overflow."""
    check(registry.build("objectives", name))


def test_a_new_objective_is_enrolled_by_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches checks that know their subjects by name: an objective from outside runs through the same ones."""
    monkeypatch.setitem(registry.OBJECTIVES, "new", f"{__name__}:Unweighted")
    assert "new" in registry.names("objectives")
    for check in CHECKS:
        check(registry.build("objectives", {"kind": "new", "rate": 0.6}))
        check(registry.build("objectives", {"kind": f"{__name__}:Unweighted"}))
    with pytest.raises(AssertionError):
        check_any_split_padding_or_packing_is_the_same(Averaging())
