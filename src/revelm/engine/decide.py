"""From features of the undecided positions to what is revealed: propose for each, select among each request's own.

Proposals are made position by position, so the head runs on undecided positions alone, in chunks: a window of 1,024
positions over a vocabulary of 126,464 has half a gigabyte of logits in fp32, and there may be 64 of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

import torch
from torch import Tensor

from revelm.decoding.propose import Proposal, SamplingRows
from revelm.decoding.rule import most_confident
from revelm.decoding.uniform import uniform
from revelm.engine.slots import Slots, Undecided

MAX_LOGITS = 2**26
"""Logits that exist at once (a quarter of a gigabyte in fp32; the sampler holds a few tensors of this size)."""


def propose(slots: Slots, undecided: Undecided, features: Tensor, head: Callable[[Tensor], Tensor]) -> Proposal:
    """A proposal for every undecided position, all [N], from ``features`` [N, D]; each by its request's own rule.

    FloatingPointError when the model's logits are not finite.
    """
    slot, settings = undecided.slot, slots.sampling_rows()
    numbers = uniform(slots.slot["seed"][slot], undecided.position, slots.slot["steps"][slot])
    parts, order = [], []
    for index, rows in _chunks(slots, slot):
        logits = head(features[rows])[:, None]
        parts.append(slots.rules[index].propose(logits, numbers[rows, None], _at(settings, slot[rows])))
        order.append(rows)
    place = torch.cat(order).argsort()
    merged = {f.name: torch.cat([vars(part)[f.name] for part in parts])[place, 0] for f in fields(Proposal)}
    if not bool(merged["logprob"].isfinite().all()):
        raise FloatingPointError("the model gave logits that are not finite; its weights or its dtype are unusable")
    return Proposal(**merged)


def choose(slots: Slots, undecided: Undecided, confidence: Tensor) -> Tensor:
    """Which undecided positions to reveal, int64 [K] out of N, from ``confidence`` [N]; at least one per request."""
    n, hidden, steps = slots.count, undecided.hidden, slots.slot["steps"][: slots.count]
    ranked = confidence.new_zeros(hidden.shape)
    ranked[undecided.slot, undecided.offset] = confidence
    used = slots.used_rules()
    chosen = slots.rules[used[0]].select(ranked, hidden, steps)
    for index in used[1:]:
        mine = (slots.slot["rule"][:n] == index)[:, None]
        chosen = torch.where(mine, slots.rules[index].select(ranked, hidden, steps), chosen)
    chosen = chosen & hidden
    chosen |= most_confident(ranked, hidden, 1) & ~chosen.any(1, keepdim=True)
    return chosen[undecided.slot, undecided.offset].nonzero()[:, 0]


def _chunks(slots: Slots, slot: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Undecided positions, of slots ``slot`` [N], in pieces of one rule and few logits: (rule, int64 [k] out of N)."""
    used, size = slots.used_rules(), max(1, MAX_LOGITS // slots.family.vocab_size)
    everything = torch.arange(len(slot), device=slots.device)
    for index in used:
        mine = everything[slots.slot["rule"][slot] == index] if len(used) > 1 else everything
        for rows in mine.split(size):
            yield index, rows


def _at(settings: SamplingRows, slot: Tensor) -> SamplingRows:
    """Settings of the slots ``slot`` [N], one row each."""
    return replace(
        settings,
        temperature=settings.temperature[slot],
        top_k=settings.top_k[slot],
        top_p=settings.top_p[slot],
        is_max=settings.is_max[slot],
    )
