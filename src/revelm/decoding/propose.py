"""A token for every position by inverse CDF; and how likely and how sure it is.

From logits to a draw, in this order: ids the family bans at minus infinity, guidance, a rule's own additions,
repetition penalty, ids the request bans, temperature, top-k, top-p, min-p. Greedy rows take the maximum of the rest.

The log-probability that is recorded is of (logits, family's banned ids at minus infinity) / temperature. The confidence
that rules rank by is of the unfiltered distribution, guided where guidance is on: confidences measured behind top-k = 1
or a small top-p are 1 everywhere and order nothing.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Confidence = Literal["token", "max", "margin", "neg_entropy"]
CONFIDENCES: tuple[Confidence, ...] = get_args(Confidence)


@dataclass(frozen=True)
class SamplingRows:
    """Sampling settings of S sequences as tensors, and what any of them uses as a host-side set of names.

    ``temperature`` [S] (0: greedy), ``top_k`` int64 [S] (0: off), ``top_p`` [S] (1: off), ``min_p`` [S] (0: off),
    ``repetition_penalty`` [S] (1: off), ``guidance`` [S] (0: off), ``confidence`` int64 [S]: places in ``CONFIDENCES``.
    ``banned_ids`` are the family's; ``banned`` bool [S, V] the requests' own, None when no request has any. ``seen``
    bool [S, V], which ids occur in the prompt or the decided response, is set by the engine when "repetition_penalty"
    is in ``uses``. ``revelm.decoding.sampling.sampling_rows`` builds all else.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    repetition_penalty: Tensor
    guidance: Tensor
    confidence: Tensor
    banned_ids: tuple[int, ...]
    uses: frozenset[str]
    banned: Tensor | None = None
    seen: Tensor | None = None

    @property
    def is_filtered(self) -> bool:
        """Whether some token is drawn from another distribution than the recorded one."""
        return "filtered" in self.uses

    def at(self, slot: Tensor | slice) -> "SamplingRows":
        """The settings of the sequences ``slot``, int64 [N] (one row each, possibly repeated) or a range of them."""
        picked: dict[str, Any] = {k: v[slot] for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **picked)


@dataclass(frozen=True)
class Proposal:
    """One candidate per position, all [S, B]: token int64; log-probability at the temperature and at 1; confidence.

    ``memory`` float32 [S, B, M]: what the rule wants back at the next step of the window; None for most rules.
    """

    token: Tensor
    logprob: Tensor
    logprob_t1: Tensor
    confidence: Tensor
    memory: Tensor | None = None


@dataclass(frozen=True)
class _Mass:
    """A distribution per position: ``logits`` [.., V], ``probability`` [.., V], ``best`` (largest logit) [..].

    ``log_best`` [..] is the logarithm of the largest probability: no second tensor of log-probabilities is made, and
    differences of logits keep their digits however large these are.
    """

    logits: Tensor
    probability: Tensor
    best: Tensor
    log_best: Tensor

    def log_probability(self, token: Tensor) -> Tensor:
        """log-softmax at ``token`` [..]."""
        return self.logits.gather(-1, token[..., None])[..., 0] - self.best + self.log_best


def log_probabilities(logits: Tensor, banned_ids: tuple[int, ...], *, temperature: Tensor | None = None) -> Tensor:
    """log-softmax of (logits, banned ids = -inf) / temperature in max(fp32, dtype).

    ``logits`` [..., V]; ``temperature`` broadcasts against [..., 1], entries of 0 count as 1. The one definition that
    engine and trainer share.
    """
    wide = permitted(logits, banned_ids)
    return (wide if temperature is None else tempered(wide, temperature)).log_softmax(dim=-1)


def permitted(logits: Tensor, banned_ids: tuple[int, ...]) -> Tensor:
    """``logits`` [..., V] in max(fp32, dtype) with banned ids at minus infinity."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if banned_ids:
        wide = wide.index_fill(-1, ids_on(banned_ids, wide.device), -float("inf"))
    return wide


@cache
def ids_on(ids: tuple[int, ...], device: torch.device) -> Tensor:
    """``ids`` on ``device``, made once: copying them there in every step would wait for the device."""
    with torch.inference_mode(mode=False):  # training uses it as well
        return torch.tensor(ids, device=device)


def guided(logits: Tensor, against: Tensor | None, sampling: SamplingRows) -> Tensor:
    """``permitted`` logits c, where guidance w is on moved away from those without the prompt, u: c + w (c - u).

    ``logits`` and ``against`` [S, B, V]; None: no guidance. Classifier-free guidance (Ho & Salimans 2022, arXiv
    2207.12598, eq. 6) in the convention of LLaDA: 0 is off.
    """
    wide = permitted(logits, sampling.banned_ids)
    if against is None:
        return wide
    weight = sampling.guidance[:, None, None].to(wide.dtype)
    return torch.where(weight == 0, wide, wide + weight * (wide - against.to(wide.dtype)))


def draw(logits: Tensor, uniform: Tensor, sampling: SamplingRows, *, ranked: Tensor | None = None) -> Proposal:
    """Propose for every position of ``logits`` [S, B, V] with one ``uniform`` number in [0, 1) each, [S, B].

    ``ranked`` [S, B, V] (such as ``guided`` logits): what tokens are drawn from, through the filters, and confidences
    are measured on, instead of ``logits``; family's banned ids at minus infinity.
    """
    raw = permitted(logits, sampling.banned_ids)
    recorded = unfiltered = _mass(_at_temperature(raw, sampling))
    if ranked is not None:
        unfiltered = _mass(_at_temperature(ranked, sampling))
    drawn = _filtered(raw if ranked is None else ranked, unfiltered, sampling)
    token = _token(drawn, uniform, sampling)
    logprob = recorded.log_probability(token)
    at_one = logprob
    if "tempered" in sampling.uses:
        is_other = ((sampling.temperature != 0) & (sampling.temperature != 1))[:, None]
        at_one = torch.where(is_other, raw.gather(-1, token[..., None])[..., 0] - raw.logsumexp(dim=-1), logprob)
    return Proposal(token, logprob, at_one, _confidence(unfiltered, token, sampling))


def kept_mass(logits: Tensor, sampling: SamplingRows) -> Tensor:
    """Share of the recorded distribution at the temperature that the filters of ``draw`` leave to draw from, [S, B].

    ``logits`` [S, B, V] without guidance; ``sampling`` without greedy rows and repetition penalties.
    """
    raw = permitted(logits, sampling.banned_ids)
    unfiltered = _mass(_at_temperature(raw, sampling))
    drawn = _filtered(raw, unfiltered, sampling)
    return unfiltered.probability.masked_fill(drawn.logits == -float("inf"), 0.0).sum(dim=-1)


def _mass(logits: Tensor) -> _Mass:
    """softmax of ``logits``; its largest entry is exp(best) / total."""
    probability, best = logits.softmax(dim=-1), logits.amax(dim=-1)
    return _Mass(logits, probability, best, probability.amax(dim=-1).log())


def tempered(logits: Tensor, temperature: Tensor) -> Tensor:
    """``logits`` over ``temperature``, entries of 0 count as 1."""
    return logits / torch.where(temperature == 0, 1.0, temperature).to(logits.dtype)


def _at_temperature(logits: Tensor, sampling: SamplingRows) -> Tensor:
    return tempered(logits, sampling.temperature[:, None, None]) if "tempered" in sampling.uses else logits


def _token(drawn: _Mass, uniform: Tensor, sampling: SamplingRows) -> Tensor:
    """Inverse CDF; the most likely id in greedy rows. int64 [S, B]"""
    if "greedy" not in sampling.uses:
        return _inverse_cdf(drawn.probability, uniform)
    greedy = drawn.logits.argmax(dim=-1)
    if "sampled" not in sampling.uses:
        return greedy
    return torch.where(sampling.temperature[:, None] == 0, greedy, _inverse_cdf(drawn.probability, uniform))


def _confidence(unfiltered: _Mass, token: Tensor, sampling: SamplingRows) -> Tensor:
    """What each row asks for: probability of ``token``, the largest, its lead over the second, or minus the entropy."""
    found = unfiltered.log_probability(token).exp()
    for place, kind in enumerate(CONFIDENCES):
        if kind != "token" and kind in sampling.uses:
            found = torch.where(sampling.confidence[:, None] == place, _sureness(unfiltered, kind), found)
    return found


def _sureness(mass: _Mass, kind: Confidence) -> Tensor:
    if kind == "max":
        return mass.log_best.exp()
    if kind == "margin":
        first, second = mass.probability.topk(2, dim=-1).values.unbind(dim=-1)
        return first - second
    return -torch.special.entr(mass.probability).sum(dim=-1).clamp(min=0)


def _inverse_cdf(probability: Tensor, uniform: Tensor) -> Tensor:
    """The first id whose cumulative mass exceeds uniform x total; never one of zero mass. int64 [S, B]"""
    cdf = probability.cumsum(dim=-1)
    total = cdf[..., -1:]
    below = torch.nextafter(total, torch.zeros_like(total))
    target = torch.minimum(uniform[..., None].to(cdf.dtype) * total, below)
    return torch.searchsorted(cdf, target, right=True)[..., 0].clamp(max=cdf.shape[-1] - 1)


def _filtered(logits: Tensor, unfiltered: _Mass, sampling: SamplingRows) -> _Mass:
    """What tokens are drawn from: ``logits`` [S, B, V] through penalty, bans, temperature, top-k, top-p and min-p.

    ``unfiltered``, their mass at the temperature, is returned as it is when nothing of this is in use.
    """
    assert "repetition_penalty" not in sampling.uses or sampling.seen is not None, "the engine says what was seen"
    if sampling.seen is not None:
        penalty = sampling.repetition_penalty[:, None, None].to(logits.dtype)
        penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
        logits = torch.where(sampling.seen[:, None], penalised, logits)
    if sampling.banned is not None:
        logits = logits.masked_fill(sampling.banned[:, None], -float("inf"))
    is_changed = sampling.seen is not None or sampling.banned is not None
    cuts = sampling.uses & {"nucleus", "min_p"}
    if not is_changed and not cuts:
        return unfiltered
    scaled = _at_temperature(logits, sampling) if is_changed else unfiltered.logits
    kept = _nucleus(scaled, sampling) if "nucleus" in cuts else scaled
    if "min_p" in cuts:
        least = scaled.amax(dim=-1, keepdim=True) + sampling.min_p[:, None, None].to(scaled.dtype).log()
        kept = kept.masked_fill(scaled < least, -float("inf"))
    return _mass(kept)


def _nucleus(logits: Tensor, sampling: SamplingRows) -> Tensor:
    """Set everything outside top-k and outside the top-p nucleus to -inf; the most likely id always stays."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    size = ordered.shape[-1]
    rank = torch.arange(size, device=ordered.device)
    limit = torch.where(sampling.top_k == 0, size, sampling.top_k)[:, None, None]
    inside = rank < limit
    mass = ordered.masked_fill(~inside, -float("inf")).softmax(dim=-1)
    before = mass.cumsum(dim=-1) - mass
    top_p = sampling.top_p[:, None, None].to(mass.dtype)
    inside = inside & ((before < top_p) | (top_p == 1) | (rank == 0))
    keep = torch.zeros_like(inside).scatter(-1, order, inside)
    return logits.masked_fill(~keep, -float("inf"))
