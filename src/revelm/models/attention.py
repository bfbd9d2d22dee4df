"""Attention of query rows over keys, with the pattern as an argument: dense SDPA, or flex attention on CUDA."""

from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from revelm.masks.visibility import Pattern


class Cache(Protocol):
    """Keys and values that outlive a forward; owned by the engine."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Write the rows' key/value [1, N, Hkv, D], then attend with query [1, N, H, D]; returns [1, N, H, D]."""
        ...

    def align(self, features: Tensor) -> Tensor:
        """Shifted families: features [1, N, D] of network rows -> [1, N, D] about the rows' own tokens."""
        ...


class Visibility:
    """A pattern made ready for one forward: the dense mask or the flex block mask is built once, used by each layer.

    The dense mask is additive, in the queries' ``dtype``: of a boolean one, SDPA would make its own in every layer, and
    keep them all for the backward pass.
    """

    def __init__(self, pattern: Pattern, *, dtype: torch.dtype, is_cuda: bool) -> None:
        self.pattern = pattern
        self.mask: Tensor | None = None
        self.block_mask: Any = None
        if is_cuda:
            rows, length = pattern.stream.shape
            self.block_mask = _flex()[1](pattern.mask_mod(), rows, None, length, length, device=pattern.stream.device)
        else:
            self.mask = None if pattern.is_open else _additive(pattern.dense(), dtype)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [R, L, H, D], key and value [R, L, Hkv, D] -> [R, L, H, D]."""
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        if self.block_mask is not None:
            return _flex()[0](q, k, v, block_mask=self.block_mask, enable_gqa=True).transpose(1, 2)
        return scaled_dot_product_attention(q, k, v, attn_mask=self.mask, enable_gqa=True).transpose(1, 2)


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where ``seen``, else -inf."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -float("inf"))


@lru_cache(maxsize=1)
def _flex() -> tuple[Any, Any]:
    """Compiled flex attention and block-mask builder (CUDA only; flex has no backward on CPU)."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    return torch.compile(flex_attention, dynamic=True), torch.compile(create_block_mask, dynamic=True)
