"""One optimiser update on one batch: micro-batches by length, sums over one global count."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from revelm.objectives.batch import Batch, Loss, add_metrics
from revelm.objectives.objective import Objective
from revelm.objectives.score import score
from revelm.trainers.optimizer import Optimizer


def update(model: Any, optimizer: Optimizer, objective: Objective, batches: Sequence[Batch]) -> dict[str, float]:
    """Train on ``batches`` as one batch. Returns the objective's metrics, grad_norm and learning_rate.

    Raises ValueError when there is nothing to train on.
    """
    count = sum(batch.count for batch in batches)
    if count <= 0:
        raise ValueError("the batch has no scored tokens: every sample was empty or filtered")
    parts: list[Loss] = []

    def loss_of(batch: Batch) -> Callable[[], Tensor]:
        def run() -> Tensor:
            moved = batch.to(model.device)
            loss = objective.judge(score(model, moved), moved)
            parts.append(loss)
            return loss.sum

        return run

    stepped = optimizer.step([loss_of(batch) for batch in batches], count)
    return add_metrics([p.metrics for p in parts]) | stepped


def with_behaviour(model: Any, batches: Sequence[Batch]) -> list[Batch]:
    """``batches`` with the column "behaviour": log-probabilities under the model as it is now."""
    found = []
    with torch.no_grad():
        for batch in batches:
            moved = batch.to(model.device)
            found.append(batch.with_columns(behaviour=score(model, moved).logprob.to(batch.tokens.device)))
    return found
