"""Log-probability of one token per row, and the entropy, from logits: as ``log_probabilities``, in fewer passes.

With z the permitted, tempered logits, e = exp(z - max z) and s = sum e: log p(token) = z(token) - max z - log s and
H = log s - sum e (z - max z) / s. The gradient of the log-probability with respect to z is onehot(token) - e / s, for
which e is kept and written over. A vocabulary is read about half as often as by a softmax, a gather and their
gradients, and reading it is what takes the time where rows are narrow.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from revelm.decoding.propose import ids_on, permitted, tempered


def token_scores(
    logits: Tensor, targets: Tensor, banned_ids: tuple[int, ...], *, temperature: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(log-probability [n] of ``targets`` [n], entropy [n]) in max(fp32, dtype), from ``logits`` [n, V].

    ``temperature`` [n, 1], entries of 0 count as 1. Log-probabilities are differentiable once, the entropy is not.
    """
    found: tuple[Tensor, Tensor] = _TokenScores.apply(logits, targets, banned_ids, temperature)
    return found


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, banned_ids: tuple[int, ...], temperature: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        wide = permitted(logits, banned_ids)
        wide = wide if temperature is None else tempered(wide, temperature)
        shifted = wide - wide.amax(dim=-1, keepdim=True)
        del wide
        weights = shifted.exp()
        total = weights.sum(dim=-1)
        chosen = shifted.gather(-1, targets[:, None])[:, 0]
        if banned_ids:
            shifted.index_fill_(-1, ids_on(banned_ids, shifted.device), 0.0)  # for 0 x -inf
        mean = shifted.mul_(weights).sum(dim=-1) / total
        ctx.dtype = logits.dtype
        ctx.save_for_backward(weights, targets, total, temperature)
        entropy = total.log() - mean
        ctx.mark_non_differentiable(entropy)
        return chosen - total.log(), entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        weights, targets, total, temperature = ctx.saved_tensors
        scale = gradient if temperature is None else tempered(gradient[:, None], temperature)[:, 0]
        found = weights.mul_((-scale / total)[:, None])  # a second backward pass finds a changed tensor, and says so
        found.scatter_add_(-1, targets[:, None], scale[:, None])
        return found.to(ctx.dtype), None, None, None
