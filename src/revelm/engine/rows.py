"""Which rows one forward has, and who of them attends together.

Row order: the hidden block of every running slot; then the commit rows of slots whose last block is finished but not
yet in the cache (packed: only where there are some); then the prompt rows of freshly admitted slots. A slot's rows
form one segment, so that its K/V are read once. Forwards per block equal denoising steps: neither commits nor
prefills cost a forward of their own (see docs/concepts.md, "fused commit").
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from revelm.engine.kv_cache import KVCache, Predecessors, Segments
from revelm.engine.slots import Slots
from revelm.masks.visibility import kv_limit
from revelm.trajectories.record import NEVER


@dataclass(frozen=True, eq=False)
class Rows:
    """One forward: ``tokens``, ``positions``, ``places`` int64 [N], the current blocks first, slot by slot."""

    tokens: Tensor
    positions: Tensor
    places: Tensor
    segments: tuple[Segments, ...]
    predecessors: Predecessors | None


def decode_rows(slots: Slots, cache: KVCache) -> Rows:
    """Rows of one denoising forward of every running slot, with fused commits and prefills."""
    n, size, device = slots.count, slots.size, slots.device
    start = slots.slot["start"][:n]
    pending = slots.slot["pending"][:n].nonzero()[:, 0]
    fresh = [i for i, is_fresh in enumerate(slots.is_fresh) if is_fresh]
    offsets = torch.arange(size, device=device)
    slot_parts = [torch.arange(n, device=device).repeat_interleave(size)]
    position_parts = [(start[:, None] + offsets).flatten()]
    if len(pending):
        slot_parts.append(pending.repeat_interleave(size))
        position_parts.append((start[pending, None] - size + offsets).flatten())
    for i in fresh:
        length = int(start[i])
        slot_parts.append(torch.full((length,), i, dtype=torch.int64, device=device))
        position_parts.append(torch.arange(length, device=device))
    slot, positions = torch.cat(slot_parts), torch.cat(position_parts)
    segments = _segments(slots, positions, pending, fresh)
    return _rows(slots, cache, (slot, positions), segments)


def commit_rows(slots: Slots, cache: KVCache) -> Rows:
    """Rows of a forward that only commits finished blocks (separate commit: the baseline of the fused one)."""
    size, device = slots.size, slots.device
    pending = slots.slot["pending"][: slots.count].nonzero()[:, 0]
    positions = (slots.slot["start"][pending, None] - size + torch.arange(size, device=device)).flatten()
    slot = pending.repeat_interleave(size)
    rows = torch.arange(len(positions), device=device).view(-1, size)
    segment = _segment(slots, pending, rows, positions)
    return _rows(slots, cache, (slot, positions), (segment,))


def _rows(slots: Slots, cache: KVCache, where: tuple[Tensor, Tensor], segments: tuple[Segments, ...]) -> Rows:
    """The forward whose row i is at slot ``where[0][i]``, position ``where[1][i]``."""
    slot, positions = where
    hidden = slots.position["hidden"][slot, positions]
    tokens = torch.where(hidden, slots.family.mask_id, slots.position["canvas"][slot, positions])
    predecessors = _predecessors(slots, cache, slot, positions) if slots.family.is_shifted else None
    return Rows(tokens, positions, slot * cache.capacity + positions, segments, predecessors)


def _predecessors(slots: Slots, cache: KVCache, slot: Tensor, positions: Tensor) -> Predecessors:
    """The row at position - 1 of the same slot, or what is remembered of the slot; position 0 keeps its own.

    Every position is in a forward once at most, and a row in front of a block is a clean one: current blocks follow
    their slot's commit or prompt rows, if there are any.
    """
    count = len(slot)
    own = torch.arange(count, device=slots.device)
    places = slot * cache.capacity + positions
    row_at = torch.full((slots.num_slots * cache.capacity,), NEVER, device=slots.device)
    row_at[places] = own
    before = row_at[places - 1]
    before = torch.where(before == NEVER, count + slot, before)
    ends = (positions == slots.slot["start"][slot] - 1).nonzero()[:, 0]
    return Predecessors(torch.where(positions == 0, own, before), ends, slot[ends])


def _segments(slots: Slots, positions: Tensor, pending: Tensor, fresh: list[int]) -> tuple[Segments, ...]:
    """One group of slots per number of rows: hidden only, hidden + commit, hidden + prompt."""
    n, size, device = slots.count, slots.size, slots.device
    hidden = torch.arange(n * size, device=device).view(n, size)
    plain = torch.ones(n, dtype=torch.bool, device=device)
    segments = []
    if len(pending):
        commit = n * size + torch.arange(len(pending) * size, device=device).view(-1, size)
        segments.append(_segment(slots, pending, torch.cat((commit, hidden[pending]), 1), positions))
        plain[pending] = False
    place = (n + len(pending)) * size
    for first, count, length in _runs(fresh, [int(x) for x in slots.slot["start"][fresh].tolist()]):
        prompt = place + torch.arange(count * length, device=device).view(count, length)
        members = torch.arange(first, first + count, device=device)
        segments.append(_segment(slots, members, torch.cat((prompt, hidden[members]), 1), positions))
        plain[members] = False
        place += count * length
    rest = plain.nonzero()[:, 0]
    if len(rest):
        segments.append(_segment(slots, rest, hidden[rest], positions))
    return tuple(segments)


def _runs(slots: list[int], lengths: list[int]) -> list[tuple[int, int, int]]:
    """Neighbouring slots with equally many prompt rows: (first slot, count, rows)."""
    runs: list[tuple[int, int, int]] = []
    for slot, length in zip(slots, lengths, strict=True):
        if runs and runs[-1][0] + runs[-1][1] == slot and runs[-1][2] == length:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, length)
        else:
            runs.append((slot, 1, length))
    return runs


def _segment(slots: Slots, members: Tensor, rows: Tensor, positions: Tensor) -> Segments:
    limit = kv_limit(slots.family, positions[rows], 0)
    first, last = int(members[0]), int(members[-1])
    is_run = last - first + 1 == len(members)
    return Segments(slice(first, last + 1) if is_run else members, rows, limit, int(limit.max()))
