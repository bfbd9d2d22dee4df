"""Losses judged chunk by chunk against the same losses judged at once, in fp64."""

from functools import partial
from typing import Any

import pytest
import torch

from revelm.models.value import ValueModel
from revelm.objectives import score as scoring_module
from revelm.objectives.batch import Batch, Loss
from revelm.objectives.loss_in_chunks import loss_of
from revelm.objectives.objective import Judge
from revelm.objectives.score import score
from revelm.objectives.trace_rl import TraceRL
from revelm.objectives.value_loss import PolicyAndValue, ValueLoss
from tests.contract.test_objectives import episodes
from tests.models import sharp_model


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows of logits are too many to keep, as a few hundred are with a real vocabulary."""
    monkeypatch.setattr(scoring_module, "KEPT_LOGITS", 0)
    monkeypatch.setattr(scoring_module, "CHUNK_ROWS", 7)
    monkeypatch.setattr(scoring_module, "CACHED_LOGITS", 1)


def both(model: Any, batch: Batch, judge: Judge, weights: list[Any], scoring: Any = score) -> list[tuple[Loss, Any]]:
    """Loss and gradients at once, and in chunks."""
    found = []
    for made in (
        lambda: judge.judge(scoring(model, batch), batch),
        lambda: loss_of(model, batch, judge, scoring=scoring),
    ):
        loss = made()
        loss.sum.backward()
        found.append((loss, [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in weights]))
        for parameter in weights:
            parameter.grad = None
    return found


def same(found: list[tuple[Loss, Any]]) -> None:
    (one, expected), (other, gradients) = found
    assert other.count == one.count
    assert float(other.sum.detach()) == pytest.approx(float(one.sum.detach()), rel=1e-12)
    assert set(one.metrics) == set(other.metrics)
    for name, pair in one.metrics.items():
        assert other.metrics[name] == pytest.approx(pair, rel=1e-9, abs=1e-12), name
    largest = max(float(gradient.abs().max()) for gradient in expected)
    assert largest > 0
    for mine, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-10 * largest)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    "objective",
    [TraceRL(), TraceRL(shrinkage=2, behaviour="recomputed", entropy_weight=0.1, reference_weight=0.3, dual_clip=3.0),
     TraceRL(normalisation="sequence", clip_low=0.01, clip_high=0.01)],
)  # fmt: skip
def test_chunks_are_one_batch(objective: TraceRL) -> None:
    """Catches a denominator counted once per chunk, columns of other positions, a last chunk that is left out, a head
    whose gradient is that of one chunk, and features whose gradients come in another order."""
    model = sharp_model()
    batch = objective.prepare(objective.credit(list(episodes("block"))), model.family, 0)
    assert len(batch.scored) > 3 * 7
    torch.manual_seed(1)
    with torch.no_grad():
        near = score(model, batch).logprob
    columns = {name: near + 0.1 * torch.randn_like(near) for name in ("behaviour", "reference")}
    batch = batch.with_columns(**columns)
    asked = partial(score, entropy_gradient=objective.entropy_weight > 0)
    same(both(model, batch, objective, list(model.parameters()), asked))


@pytest.mark.usefixtures("small_chunks")
def test_values_are_learnt_in_chunks_too() -> None:
    """Catches a value head that sees a chunk's features without their gradient."""
    policy, objective = sharp_model(), TraceRL()
    model = ValueModel(policy)
    torch.nn.init.normal_(model.value_head.weight)
    batch = objective.prepare(objective.credit(list(episodes("block"))), policy.family, 0)
    torch.manual_seed(1)
    old, target = (torch.randn(len(batch.scored), dtype=torch.float64) for _ in range(2))
    judge = PolicyAndValue(objective, ValueLoss(), 0.5)
    asked = partial(score, value_head=model.value_head)
    same(both(policy, batch.with_columns(value=old, **{"return": target}), judge, list(model.parameters()), asked))


@pytest.mark.usefixtures("small_chunks")
def test_logits_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches chunks that are made again in the backward pass."""
    model, objective = sharp_model(), TraceRL()
    batch = objective.prepare(objective.credit(list(episodes("block"))), model.family, 0)
    rows: list[int] = []
    head = model.head

    def counted(features: torch.Tensor) -> torch.Tensor:
        rows.append(len(features))
        return head(features)

    monkeypatch.setattr(model, "head", counted)
    loss_of(model, batch, objective).sum.backward()
    assert sum(rows) == len(batch.scored)
    assert max(rows) == 7
    rows.clear()
    objective.judge(score(model, batch), batch).sum.backward()
    assert sum(rows) == 2 * len(batch.scored)
