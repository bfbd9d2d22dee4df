"""One optimiser update on one batch: micro-batches, sums over one global count; and numbers computed without gradient.

Every process brings the rows it has, which may be none. Where weights are in shards all have to run equally many
forwards: who has fewer repeats one row, borrowed from another if need be, whose loss counts nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from revelm.objectives.batch import Batch, Loss, add_metrics
from revelm.objectives.loss_in_chunks import Scoring, loss_of
from revelm.objectives.objective import Judge
from revelm.objectives.score import score
from revelm.parallel.placement import Placement
from revelm.parallel.shard import release
from revelm.trainers.optimizer import Optimizer

Measure = Callable[[Any, Batch], Mapping[str, Tensor]]


def update(
    model: Any,
    optimizer: Optimizer,
    objective: Judge,
    batches: Batch | Sequence[Batch],
    *,
    scoring: Scoring = score,
    makes_logits: bool = True,
) -> dict[str, float]:
    """Train on ``batches``, those of all processes, as one batch.

    ``scoring``: what the model is asked at the scored positions, where it is not only its log-probabilities;
    ``makes_logits``: False where it is only its values.
    A batch without rows takes part with its count alone. Returns the objective's metrics over all processes,
    grad_norm, learning_rate and skipped. Raises ValueError, in all of them, when there is nothing to train on.
    """
    mine = [batches] if isinstance(batches, Batch) else list(batches)
    world = optimizer.placement.world
    count = world.sum(sum(batch.count for batch in mine))
    if count <= 0:
        raise ValueError("the batch has no scored tokens: every sample was empty or filtered")
    filled = [batch for batch in mine if len(batch.tokens)]
    parts: list[Loss] = []
    in_chunks = makes_logits and not optimizer.placement.is_sharded  # shards are gathered for a pass, not for a chunk

    def judged(batch: Batch) -> Loss:
        return loss_of(model, batch.to(model.device), objective, scoring=scoring, in_chunks=in_chunks)

    def run(batch: Batch) -> Tensor:
        parts.append(judged(batch))
        return parts[-1].sum

    losses: list[Callable[[], Tensor]] = [partial(run, batch) for batch in filled]
    losses += [lambda batch=batch: judged(batch).sum * 0 for batch in _company(filled, optimizer.placement)]
    stepped = optimizer.step(losses, count)
    if optimizer.placement.is_sharded:
        release(model)
    return add_metrics([m for found in world.gather([p.metrics for p in parts]) for m in found]) | stepped


def columns(
    model: Any, batches: Sequence[Batch], measure: Measure, *, placement: Placement | None = None
) -> list[Batch]:
    """``batches`` with the columns that ``measure(model, batch)`` names, [N] each, computed without gradient.

    ``placement``: of ``model``'s weights; where they are shards the call is collective. A batch without rows stays as
    it is.
    """
    where, found = placement or Placement(), []
    company = _company([batch for batch in batches if len(batch.tokens)], where)
    with torch.no_grad():
        for batch in batches:
            numbers = measure(model, batch.to(model.device)) if len(batch.tokens) else {}
            found.append(batch.with_columns(**{name: x.to(batch.tokens.device) for name, x in numbers.items()}))
        for batch in company:
            measure(model, batch.to(model.device))
    if where.is_sharded:
        release(model)
    return found


def _company(batches: Sequence[Batch], placement: Placement) -> list[Batch]:
    """What this process has to run beside its own ``batches`` so that all run as many forwards; no more, if whole."""
    if not placement.is_sharded:
        return []
    numbers = placement.world.gather(len(batches))
    if min(numbers) == max(numbers):
        return []
    shortest = min(batches, key=lambda batch: int(batch.lengths.min()), default=None)
    row = None if shortest is None else shortest.select(shortest.lengths.argmin()[None])
    lent = next(found for found in placement.world.gather(row) if found is not None)
    return [lent] * (max(numbers) - len(batches))
