"""Block arithmetic: which block a position belongs to, and where blocks begin and end.

Blocks of ``block_size`` positions are counted from ``grid_offset`` (0: the first prompt token), so that
``block(i) = floor((i - grid_offset) / block_size)``. Every function takes Python ints or arrays of ints alike
(numpy, torch): plain arithmetic only.
"""

from typing import Any


def block_of(position: Any, block_size: int, *, grid_offset: Any = 0) -> Any:
    """Index of the block that holds ``position`` (-1 for positions before the grid begins)."""
    return (position - grid_offset) // block_size


def block_start(position: Any, block_size: int, *, grid_offset: Any = 0) -> Any:
    """First position of the block that holds ``position``."""
    return block_of(position, block_size, grid_offset=grid_offset) * block_size + grid_offset


def block_end(position: Any, block_size: int, *, grid_offset: Any = 0) -> Any:
    """One past the last position of the block that holds ``position``."""
    return block_start(position, block_size, grid_offset=grid_offset) + block_size


def padded_length(length: Any, block_size: int, *, grid_offset: Any = 0) -> Any:
    """``length`` rounded up so that the last block is complete."""
    return -((grid_offset - length) // block_size) * block_size + grid_offset
