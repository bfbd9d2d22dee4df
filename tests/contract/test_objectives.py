"""What every objective promises, on every attention kind it is for.

An objective in the registry is enrolled; nothing here names one.
"""

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
from revelm.masks.visibility import CLEAN, PADDING
from revelm.objectives.batch import Batch, Episode, Loss, Scored, Text, add_metrics
from revelm.objectives.block_sft import BlockSFT
from revelm.objectives.loss_in_chunks import chunks
from revelm.objectives.policy import PolicyObjective
from revelm.objectives.score import score
from revelm.objectives.supervised import SupervisedObjective
from tests.full_attention import full_model
from tests.models import declared_model, mixed_requests, sharp_model

# With these seeds every sample hides something; one that does not is left out of a batch, but drawn again if alone.
SEEDS = {"block": 5, "full": 0}
MODELS = {"block": sharp_model, "full": full_model}


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

    def __init__(self, model: Any) -> None:
        self.model = model
        self.family, self.head = self.model.family, self.model.head

    def body(self, tokens: Tensor, positions: Tensor, pattern: Any, *, rows: Tensor) -> Tensor:
        self.features = self.model.body(tokens, positions, pattern)
        self.features.retain_grad()
        return self.features.flatten(0, 1)[rows]


@lru_cache(maxsize=2)
def episodes(attention: str) -> tuple[Episode, ...]:
    """Real rollouts in groups of four, half of them right; under full attention as a whole or in windows."""
    prompts, settings = mixed_requests(Dynamic(0.2), (3, 4, 6))
    groups = range(0, len(prompts), len(prompts) // 3)
    prompts = [prompts[g] for g in groups for _ in range(4)]
    settings = [replace(settings[g + i], max_new_tokens=18, stop_ids=tuple(range(5))) for g in groups for i in range(4)]
    if attention == "full":
        settings = [replace(s, block_size=(None, 5)[i % 2]) for i, s in enumerate(settings)]
    records = Engine(MODELS[attention]()).generate(prompts, settings)
    return tuple(Episode(t, float(i % 4 in (1, 2)), i // 4, key=i) for i, t in enumerate(records))


def is_rl(objective: Any) -> bool:
    return "credit" in dir(type(objective))


def supports(objective: Any, attention: str) -> bool:
    """Some supervised objectives are for one attention kind, and refuse the other one."""
    return not isinstance(objective, SupervisedObjective) or objective.attention in (None, attention)


def is_for_shifted(objective: Any) -> bool:
    return isinstance(objective, SupervisedObjective) and objective.is_for_shifted


def model_for(objective: Any, attention: str) -> Any:
    """A model that the objective can train, if there is one of this attention kind."""
    return declared_model(attention, is_shifted=True) if is_for_shifted(objective) else MODELS[attention]()


def samples_for(objective: Any, attention: str) -> list[Any]:
    """What the objective learns from: texts, or episodes with credit."""
    if is_rl(objective):
        return objective.credit(
            [replace(e, trajectory=replace(e.trajectory, finish_reason="stop")) for e in episodes(attention)]
        )
    rng = np.random.default_rng(0)
    texts = [Text(rng.integers(0, 46, n), n // 3, key=n) for n in (9, 14, 16, 23, 30, 31)]
    return [replace(t, step=rng.permutation(len(t.ids) - t.prompt_length).astype(np.int32) // 2 + 1) for t in texts]


def scored_for(objective: Any, batch: Batch, model: Any) -> Scored:
    """The model's numbers, with those of the other policies that are needed: here all are the policy itself."""
    scored = score(model, batch, entropy_gradient="entropy" in objective.needs)
    others = objective.needs & {"behaviour", "reference"}
    return replace(scored, **{name: scored.logprob.detach() for name in others})


def loss_and_gradients(objective: Any, batches: Sequence[Batch], model: Any) -> tuple[float, float, list[Tensor]]:
    """Sum, count and gradients of the sum over ``batches``."""
    losses = [objective.judge(scored_for(objective, batch, model), batch) for batch in batches]
    total = torch.stack([loss.sum for loss in losses]).sum()
    return (
        float(total.detach()),
        sum(x.count for x in losses),
        list(torch.autograd.grad(total, list(model.parameters()))),
    )


def assert_equal_losses(objective: Any, one: Sequence[Batch], other: Sequence[Batch], model: Any) -> None:
    """Sum, count and every gradient agree; the gradient is not zero."""
    first, second = loss_and_gradients(objective, one, model), loss_and_gradients(objective, other, model)
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


def check_gradient_arrives_only_at_scored_positions(objective: Any, attention: str) -> None:
    """The head's inputs at unscored positions get no gradient; at scored ones some do."""
    model = Watched(model_for(objective, attention))
    batch = objective.prepare(samples_for(objective, attention), model.family, SEEDS[attention])
    objective.judge(scored_for(objective, batch, model), batch).sum.backward()
    model.model.zero_grad(set_to_none=True)
    assert model.features.grad is not None
    size = model.features.grad.abs().sum(-1).flatten()
    scored = torch.zeros(len(size), dtype=torch.bool)
    scored[batch.scored] = True
    assert (size[~scored] == 0).all()
    assert (size[scored] > 0).double().mean() > 0.5
    shown = batch.tokens.flatten()[batch.scored]
    is_hidden = batch.stream.flatten()[batch.scored] != CLEAN
    assert (shown[is_hidden] == model.family.mask_id).all()
    assert is_hidden.all() or is_for_shifted(objective)
    assert (batch.targets != model.family.mask_id).all()


def check_any_split_padding_or_packing_is_the_same(objective: Any, attention: str) -> None:
    """Micro-batches, rows alone, all rows packed into one, and a few scored positions at a time give the same sum,
    count and gradient; the last the same metrics too."""
    samples, model = samples_for(objective, attention), model_for(objective, attention)
    whole = objective.prepare(samples, model.family, SEEDS[attention])
    assert len(whole.lengths.unique()) > 1
    for size in (1, 150, 10_000):
        assert_equal_losses(objective, [whole], whole.split(size), model)
    alone = [objective.prepare([s], model.family, SEEDS[attention]) for s in samples]
    assert_equal_losses(objective, [whole], alone, model)
    assert_equal_losses(objective, [whole], [packed(whole)], model)
    parts = [part for _, part in chunks(whole, 7)]
    assert len(parts) > 1
    assert_equal_losses(objective, [whole], parts, model)
    together, apart = (
        add_metrics([objective.judge(scored_for(objective, one, model), one).metrics for one in found])
        for found in ([whole], parts)
    )
    assert together == pytest.approx(apart, rel=1e-9, abs=1e-12)


def check_ratio_is_one_on_policy(objective: Any, attention: str) -> None:
    """Before any update the policy is the behaviour policy: ratio 1, no KL, nothing clipped."""
    if not is_rl(objective):
        return
    model = model_for(objective, attention)
    batch = objective.prepare(samples_for(objective, attention), model.family, SEEDS[attention])
    with torch.no_grad():
        metrics = add_metrics([objective.judge(scored_for(objective, batch, model), batch).metrics])
    if "ratio" in metrics:
        assert metrics["ratio"] == pytest.approx(1.0, abs=1e-10)
        assert metrics["kl"] == pytest.approx(0.0, abs=1e-10)
        assert metrics["clip_fraction"] == 0.0


def check_is_finite_at_extremes(objective: Any, attention: str) -> None:
    """Certain and impossible tokens, now and at behaviour time, give finite losses, gradients and metrics."""
    batch = objective.prepare(
        samples_for(objective, attention), model_for(objective, attention).family, SEEDS[attention]
    )
    num = len(batch.targets)
    for now, before in ((0.0, -1e4), (-1e4, 0.0), (-1e4, -1e4), (-80.0, -0.0)):
        logprob = torch.full((num,), now, requires_grad=True)
        old = torch.full((num,), before)
        scored = Scored(logprob=logprob, entropy=torch.zeros(num), behaviour=old, reference=old)
        loss = objective.judge(scored, batch)
        loss.sum.backward()
        assert torch.isfinite(loss.sum)
        assert torch.isfinite(logprob.grad).all()
        assert all(np.isfinite(value) and count > 0 for value, count in loss.metrics.values())


def check_noise_belongs_to_the_sample(objective: Any, attention: str) -> None:
    """Prepared again, or in another order, a sample is shown the same way: a resumed run is the same run."""
    samples, family = samples_for(objective, attention), model_for(objective, attention).family
    one, again = (objective.prepare(samples, family, SEEDS[attention]) for _ in range(2))
    back = objective.prepare(samples[::-1], family, SEEDS[attention])
    names = ("tokens", "positions", "stream", "block", "sequence")
    rows, same, other = (torch.cat([vars(b)[n] for n in names], dim=1).tolist() for b in (one, again, back))
    assert rows == same
    assert sorted(rows) == sorted(other)
    assert one.count > 0
    assert (one.counts >= 0).all()


CHECKS = (
    check_gradient_arrives_only_at_scored_positions,
    check_any_split_padding_or_packing_is_the_same,
    check_ratio_is_one_on_policy,
    check_is_finite_at_extremes,
    check_noise_belongs_to_the_sample,
)


def test_every_attention_kind_has_objectives_of_both_loops() -> None:
    """Catches a suite that enrols nothing for one of the attention kinds."""
    for attention in MODELS:
        found = [registry.build("objectives", name) for name in registry.names("objectives")]
        assert {is_rl(o) for o in found if supports(o, attention)} == {False, True}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("attention", MODELS)
@pytest.mark.parametrize("name", registry.names("objectives"))
def test_registered_objectives_keep_their_promises(name: str, attention: str, check: Any) -> None:
    """Catches losses that depend on how a batch is cut, padded or packed, gradient where nothing was asked, a ratio
    that is not 1 on-policy, and numbers that overflow."""
    objective = registry.build("objectives", name)
    if supports(objective, attention):
        check(objective, attention)
    else:
        samples = samples_for(objective, attention)
        with pytest.raises(ValueError, match=f"{name!r} is for models with .* attention; use "):
            objective.prepare(samples, model_for(objective, attention).family, SEEDS[attention])


EVERYTHING = {"dual_clip": 3.0, "reference_weight": 0.1, "entropy_weight": 0.05, "normalisation": "length", "length": 9}


@pytest.mark.parametrize("attention", MODELS)
@pytest.mark.parametrize("name", registry.names("objectives"))
def test_policy_gradients_keep_their_promises_with_every_term(name: str, attention: str) -> None:
    """Catches an option that some objective loses, and a term or denominator that depends on how a batch is cut."""
    if issubclass(registry.resolve("objectives", name), PolicyObjective):
        objective = registry.build("objectives", {"kind": name, **EVERYTHING})
        assert {"reference", "entropy"} <= objective.needs
        for check in CHECKS:
            check(objective, attention)


def test_a_new_objective_is_enrolled_by_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches checks that know their subjects by name: an objective from outside runs through the same ones."""
    monkeypatch.setitem(registry.OBJECTIVES, "new", f"{__name__}:Unweighted")
    assert "new" in registry.names("objectives")
    for check in CHECKS:
        check(registry.build("objectives", {"kind": "new", "rate": 0.6}), "block")
        check(registry.build("objectives", {"kind": f"{__name__}:Unweighted"}), "block")
    with pytest.raises(AssertionError):
        check_any_split_padding_or_packing_is_the_same(Averaging(), "block")
