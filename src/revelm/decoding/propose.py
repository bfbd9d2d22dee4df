"""A token for every position: temperature, top-k, top-p, inverse CDF; and how likely and how sure it is.

The log-probability that is recorded, and the confidence that rules rank by, are of the unfiltered distribution:
confidences measured behind top-k = 1 or a small top-p are 1 everywhere and order nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SamplingRows:
    """Sampling settings of S sequences as tensors, with host-side flags of what any of them uses.

    ``temperature`` [S] (0: greedy), ``top_k`` int64 [S] (0: off), ``top_p`` [S] (1: off), ``is_max`` bool [S]:
    confidence is the maximum probability instead of the sampled token's.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    is_max: Tensor
    banned_ids: tuple[int, ...]
    is_plain: bool
    is_filtered: bool


@dataclass(frozen=True)
class Proposal:
    """One candidate per position, all [S, B]: token int64; log-probability at the temperature and at 1; confidence."""

    token: Tensor
    logprob: Tensor
    logprob_t1: Tensor
    confidence: Tensor


def log_probabilities(logits: Tensor, banned_ids: tuple[int, ...], *, temperature: Tensor | None = None) -> Tensor:
    """log-softmax of (logits, banned ids = -inf) / temperature in max(fp32, dtype).

    ``logits`` [..., V]; ``temperature`` broadcasts against [..., 1], entries of 0 count as 1. The one definition that
    engine and trainer share.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if banned_ids:
        wide = wide.index_fill(-1, torch.tensor(banned_ids, device=wide.device), -float("inf"))
    if temperature is not None:
        wide = wide / torch.where(temperature == 0, 1.0, temperature).to(wide.dtype)
    return wide.log_softmax(dim=-1)


def draw(logits: Tensor, uniform: Tensor, sampling: SamplingRows) -> Proposal:
    """Propose for every position of ``logits`` [S, B, V] with one ``uniform`` number in [0, 1) each, [S, B]."""
    log_t1 = log_probabilities(logits, sampling.banned_ids)
    temperature = sampling.temperature[:, None, None]
    log_t = log_t1 if sampling.is_plain else log_probabilities(log_t1, (), temperature=temperature)
    kept = _filtered(log_t, sampling) if sampling.is_filtered else log_t
    token = _inverse_cdf(kept.exp(), uniform)
    if not sampling.is_plain:
        token = torch.where(sampling.temperature[:, None] == 0, log_t1.argmax(dim=-1), token)
    logprob = log_t.gather(-1, token[..., None])[..., 0]
    best = log_t.amax(dim=-1)
    return Proposal(
        token=token,
        logprob=logprob,
        logprob_t1=log_t1.gather(-1, token[..., None])[..., 0],
        confidence=torch.where(sampling.is_max[:, None], best, logprob).exp(),
    )


def _inverse_cdf(probability: Tensor, uniform: Tensor) -> Tensor:
    """The first id whose cumulative mass exceeds uniform x total; never one of zero mass. int64 [S, B]"""
    cdf = probability.cumsum(dim=-1)
    total = cdf[..., -1:]
    below = torch.nextafter(total, torch.zeros_like(total))
    target = torch.minimum(uniform[..., None].to(cdf.dtype) * total, below)
    return torch.searchsorted(cdf, target, right=True)[..., 0].clamp(max=cdf.shape[-1] - 1)


def _filtered(log_probability: Tensor, sampling: SamplingRows) -> Tensor:
    """Set everything outside top-k and outside the top-p nucleus to -inf; the most likely id always stays."""
    ordered, order = log_probability.sort(dim=-1, descending=True, stable=True)
    size = ordered.shape[-1]
    rank = torch.arange(size, device=ordered.device)
    limit = torch.where(sampling.top_k == 0, size, sampling.top_k)[:, None, None]
    inside = rank < limit
    mass = ordered.masked_fill(~inside, -float("inf")).softmax(dim=-1)
    before = mass.cumsum(dim=-1) - mass
    top_p = sampling.top_p[:, None, None].to(mass.dtype)
    inside = inside & ((before < top_p) | (top_p == 1) | (rank == 0))
    keep = torch.zeros_like(inside).scatter(-1, order, inside)
    return log_probability.masked_fill(~keep, -float("inf"))
