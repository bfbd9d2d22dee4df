"""A loss whose logits are made once: every chunk of scored positions is judged, and its gradient taken, at once.

Losses are sums over scored positions, so each chunk's logits can be forgotten before the next chunk's are made, and
need not be made again in the backward pass (``revelm.objectives.score`` alone, which does not know the loss, has to).
Features wait for the body's backward with the gradient that their chunks have left (as in Liger-Kernel,
arXiv 2410.10989, for cross-entropy).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from revelm.objectives.batch import Batch, Loss, Scored
from revelm.objectives.objective import Judge
from revelm.objectives.score import chunk_rows, recomputes_logits, score, scored_features

Scoring = Callable[..., Scored]


def loss_of(model: Any, batch: Batch, objective: Judge, *, scoring: Scoring = score, in_chunks: bool = True) -> Loss:
    """What ``objective`` says of ``batch``, to be run backward once, unscaled: the head may have its gradient by now.

    ``scoring``: ``score``, with options. Without ``in_chunks``, or where logits of all scored positions are few enough
    to keep, this is ``objective.judge(scoring(model, batch), batch)``.
    """
    rows, vocabulary = len(batch.scored), model.family.vocab_size
    if not (in_chunks and torch.is_grad_enabled() and recomputes_logits(rows, vocabulary)):
        return objective.judge(scoring(model, batch), batch)
    features, gradients, losses = scored_features(model, batch), [], []
    if not features.requires_grad:  # a frozen body: nothing waits for gradients of features
        return objective.judge(scoring(model, batch, features=features), batch)
    for part, chunk in chunks(batch, chunk_rows(vocabulary)):
        leaf = features[part].detach().requires_grad_()
        loss = objective.judge(scoring(model, chunk, features=leaf), chunk)
        if loss.sum.requires_grad:
            loss.sum.backward()
        gradients.append(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)
        losses.append(replace(loss, sum=loss.sum.detach()))
    return Loss(_carried(features, torch.cat(gradients), sum(one.sum for one in losses)), batch.count, _added(losses))


def chunks(batch: Batch, size: int) -> Iterator[tuple[slice, Batch]]:
    """The batch with some of its scored positions, part by part; its denominator goes with the first."""
    counts, spare = batch.counts, batch.spare
    for first in range(0, len(batch.scored), size):
        part = slice(first, first + size)
        columns = {name: column[part] for name, column in batch.columns.items()}
        scored, targets = batch.scored[part], batch.targets[part]
        yield part, replace(batch, scored=scored, targets=targets, columns=columns, counts=counts, spare=spare)
        counts, spare = torch.zeros_like(counts), 0.0


def _carried(features: Tensor, gradient: Tensor, total: Any) -> Tensor:
    """``total``, whose gradient with respect to ``features`` is ``gradient``."""
    product = (features * gradient).sum()
    return product - product.detach() + total


def _added(losses: list[Loss]) -> dict[str, tuple[float, float]]:
    """Additive metrics of all parts, still as sums and counts."""
    names = {name: None for loss in losses for name in loss.metrics}
    pairs = {name: [loss.metrics[name] for loss in losses if name in loss.metrics] for name in names}
    return {name: (sum(total for total, _ in found), sum(n for _, n in found)) for name, found in pairs.items()}
