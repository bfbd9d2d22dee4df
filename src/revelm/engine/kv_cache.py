"""Keys and values of committed blocks, one slot per running request, written in place.

Every forward first writes the K/V of its rows at their absolute positions, then each row attends to the cache
positions below its own limit, the end of its block. Rows of an unfinished block are overwritten by the next step;
rows of a finished block count as committed once a forward has run in which the block was clean.

Shifted families take the feature of the row before. The first row of a block takes that of the last clean row of the
block before: of this forward when it is committed or prefilled in it, else the one that the cache remembers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

KEY_ROUND = 32


@dataclass(frozen=True, eq=False)
class Segments:
    """Rows of one forward that attend together: g slots with n rows each.

    ``slots``: a contiguous range of slots (no copy of K/V) or int64 [g]; ``rows``: int64 [g, n] places in the forward;
    ``limit``: int64 [g, n], one past the last position each row sees; ``num_keys``: the largest limit.
    """

    slots: slice | Tensor
    rows: Tensor
    limit: Tensor
    num_keys: int


@dataclass(frozen=True, eq=False)
class Predecessors:
    """Whose feature each of a forward's N rows takes, for shifted families.

    ``rows`` int64 [N]: a row of this forward, or N + slot for what the cache remembers of it. ``ends`` int64 [k],
    ``slots`` int64 [k]: the clean rows right before the current block, to be remembered, and whose they are.
    """

    rows: Tensor
    ends: Tensor
    slots: Tensor


class KVCache:
    """K/V of ``num_slots`` slots of ``capacity`` positions: [layers, 2, slots, capacity, Hkv, D].

    ``boundary`` [slots, hidden_size]: the feature of the last committed row of every slot (shifted families).
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_slots: int,
        capacity: int,
        heads: tuple[int, int],
        hidden_size: int,
        like: Tensor,
    ) -> None:
        capacity = -(-capacity // KEY_ROUND) * KEY_ROUND
        num_heads, head_dim = heads
        self.capacity = capacity
        self.store = torch.zeros(
            (num_layers, 2, num_slots, capacity, num_heads, head_dim), dtype=like.dtype, device=like.device
        )
        self.boundary = torch.zeros((num_slots, hidden_size), dtype=like.dtype, device=like.device)
        self._segments: Sequence[Segments] = ()
        self._predecessors: Predecessors | None = None
        self._places: Tensor | None = None

    def begin(self, places: Tensor, segments: Sequence[Segments], predecessors: Predecessors | None) -> None:
        """Announce the next forward: ``places`` int64 [N], slot * capacity + position of every row; its segments.

        ``predecessors``: what ``align`` needs; None for families that are not shifted.
        """
        self._places, self._segments, self._predecessors = places, segments, predecessors

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of one slot to another, and what is remembered of it."""
        self.boundary[target] = self.boundary[source]
        self.store[:, :, target, :length] = self.store[:, :, source, :length]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Write key/value [1, N, Hkv, D] at the announced places, attend with query [1, N, H, D] -> [1, N, H, D]."""
        assert self._places is not None, "begin() announces every forward"
        keys, values = self.store[layer, 0], self.store[layer, 1]
        keys.flatten(0, 1).index_copy_(0, self._places, key[0])
        values.flatten(0, 1).index_copy_(0, self._places, value[0])
        out = torch.empty_like(query[0])
        for segment in self._segments:
            mixed = _attend(query[0][segment.rows], keys, values, segment)
            out.index_copy_(0, segment.rows.flatten(), mixed.flatten(0, 1))
        return out[None]

    def align(self, features: Tensor) -> Tensor:
        """Features [1, N, D] of network rows -> [1, N, D] about the rows' own tokens (shifted families)."""
        links = self._predecessors
        assert links is not None, "begin() announces every forward"
        aligned = torch.cat((features[0], self.boundary))[links.rows]
        self.boundary.index_copy_(0, links.slots, features[0][links.ends])
        return aligned[None]


def _attend(query: Tensor, keys: Tensor, values: Tensor, segment: Segments) -> Tensor:
    """query [g, n, H, D] over the segment's slots -> [g, n, H, D]; query heads that share a K/V head are rows."""
    length = min(-(-segment.num_keys // KEY_ROUND) * KEY_ROUND, keys.shape[1])
    k = keys[segment.slots, :length].transpose(1, 2)
    v = values[segment.slots, :length].transpose(1, 2)
    count, rows, num_heads, size = query.shape
    shared = k.shape[1]
    group = num_heads // shared
    q = query.view(count, rows, shared, group, size).permute(0, 2, 3, 1, 4).reshape(count, shared, group * rows, size)
    mask = torch.arange(length, device=q.device) < segment.limit.repeat(1, group)[:, None, :, None]
    out = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.view(count, shared, group, rows, size).permute(0, 3, 1, 2, 4).reshape(count, rows, num_heads, size)
