"""Attention of query rows over keys, with the pattern as an argument: flex attention on CUDA; SDPA on a CPU.

On a CPU lines of up to ``MAX_DENSE`` positions share one dense mask, which is fastest for them; longer ones are cut
into parts (``revelm.models.chunked_attention``), so that no mask grows with the square of their length.
"""

from copy import copy
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from revelm.masks.parts import Part, parts
from revelm.masks.visibility import Pattern
from revelm.models.chunked_attention import additive, attend_in_parts

MAX_DENSE = 512
PART_QUERIES = 128


class Cache(Protocol):
    """Keys and values that outlive a forward; owned by the engine."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Write the rows' key/value [1, N, Hkv, D], then attend with query [1, N, H, D]; returns [1, N, H, D]."""
        ...

    def align(self, features: Tensor) -> Tensor:
        """Shifted families: features [1, N, D] of network rows -> [1, N, D] about the rows' own tokens."""
        ...


class Visibility:
    """A pattern made ready for one forward: what its masks need is found out once and used by each layer.

    That is a flex block mask on CUDA; nothing where every row sees its whole line; the ``parts`` of long lines; else
    the dense mask. The latter is additive, in the queries' ``dtype``: of a boolean one, SDPA would make its own in
    every layer, and keep them all for the backward pass.
    """

    def __init__(self, pattern: Pattern, *, dtype: torch.dtype, is_cuda: bool) -> None:
        self.pattern = pattern
        self.mask: Tensor | None = None
        self.parts: list[Part] | None = None
        self.block_mask: Any = None
        rows, length = pattern.stream.shape
        if is_cuda:
            self.block_mask = _flex()[1](pattern.mask_mod(), rows, None, length, length, device=pattern.stream.device)
        elif not pattern.is_open:
            if length > MAX_DENSE:
                self.parts = parts(pattern, PART_QUERIES)
            else:
                self.mask = additive(pattern.dense(), dtype)

    def only(self, rows: Tensor) -> "Visibility":
        """The same, where nobody reads what other rows than ``rows`` int64 [N], places in R x L, have mixed: parts
        without any of them are left out, and their rows get zeros."""
        if self.parts is None:
            return self
        length = self.pattern.stream.shape[1]
        wanted = torch.zeros(self.pattern.stream.numel(), dtype=torch.bool).index_fill_(0, rows, True).view(-1, length)
        found = copy(self)
        found.parts = [part for part in self.parts if bool(wanted[part.line, part.queries].any())]
        return found

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [R, L, H, D], key and value [R, L, Hkv, D] -> [R, L, H, D]; rows of padding have no meaning."""
        if self.parts is not None:
            return attend_in_parts(query, key, value, (self.pattern, self.parts))
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        if self.block_mask is not None:
            return _flex()[0](q, k, v, block_mask=self.block_mask, enable_gqa=True).transpose(1, 2)
        return scaled_dot_product_attention(q, k, v, attn_mask=self.mask, enable_gqa=True).transpose(1, 2)


@lru_cache(maxsize=1)
def _flex() -> tuple[Any, Any]:
    """Compiled flex attention and block-mask builder (CUDA only; flex has no backward on CPU)."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    return torch.compile(flex_attention, dynamic=True), torch.compile(create_block_mask, dynamic=True)
