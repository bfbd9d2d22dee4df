"""Rows of a block model: one clean text, then hidden copies of its blocks: ``[clean | copy | copy ...]``.

Each hidden copy sees the clean blocks before its own and itself (``revelm.masks.visibility``), so all rounds of a
response share one clean text in one row. Clean blocks that no copy looks back at are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from revelm.core.types import Family
from revelm.masks.visibility import CLEAN, PADDING
from revelm.objectives.batch import Batch
from revelm.trajectories.replay import Copies

_GRIDS = ("tokens", "positions", "stream", "block", "sequence")


@dataclass(frozen=True, eq=False)
class Row:
    """One row as arrays: labels int64 [L] by name; ``scored`` places, ``targets`` and numbers per target, all [n]."""

    labels: Mapping[str, np.ndarray]
    scored: np.ndarray
    targets: np.ndarray
    columns: Mapping[str, np.ndarray]
    count: float


def block_row(
    ids: np.ndarray, copies: Copies, family: Family, *, grid_offset: int = 0
) -> tuple[Mapping[str, np.ndarray], np.ndarray, np.ndarray]:
    """Labels, scored places and targets of one row.

    ``ids`` int64 [L] clean tokens up to the end of the last copied block. Scored places are in the order of
    ``copies.target`` flattened, so callers can build per-target numbers from it.
    """
    size = copies.hidden.shape[1]
    last = int(copies.block.max(initial=0))
    num_clean = max(0, last * size + grid_offset)
    position = copies.block[:, None] * size + grid_offset + np.arange(size)
    shown = np.where(copies.hidden, family.mask_id, ids[position])
    clean = np.arange(num_clean)
    stream = np.broadcast_to(copies.round[:, None] + 1, shown.shape)
    block = np.broadcast_to(copies.block[:, None], shown.shape)
    labels = {
        "tokens": np.concatenate((ids[:num_clean], shown.ravel())),
        "positions": np.concatenate((clean, position.ravel())),
        "stream": np.concatenate((np.full(num_clean, CLEAN), stream.ravel())),
        "block": np.concatenate(((clean - grid_offset) // size, block.ravel())),
        "sequence": np.zeros(num_clean + shown.size, dtype=np.int64),
    }
    chosen = np.flatnonzero(copies.target.ravel())
    return labels, num_clean + chosen, ids[position].ravel()[chosen]


def collate(rows: Sequence[Row], family: Family) -> Batch:
    """Rows padded on the right to the longest. Padding sees only padding and is never scored."""
    if not rows:
        raise ValueError("no rows to train on: every sample was empty or filtered")
    width = max(len(row.labels["tokens"]) for row in rows)
    fill = {"tokens": family.pad_id, "positions": 0, "stream": CLEAN, "block": 0, "sequence": PADDING}
    grids = {name: np.full((len(rows), width), fill[name], dtype=np.int64) for name in _GRIDS}
    for i, row in enumerate(rows):
        for name in _GRIDS:
            grids[name][i, : len(row.labels[name])] = row.labels[name]
    names = rows[0].columns.keys()
    return Batch(
        **{name: torch.from_numpy(grid) for name, grid in grids.items()},
        scored=torch.from_numpy(np.concatenate([i * width + row.scored for i, row in enumerate(rows)])),
        targets=torch.from_numpy(np.concatenate([row.targets for row in rows])),
        columns={n: torch.from_numpy(np.concatenate([row.columns[n] for row in rows])) for n in names},
        counts=torch.tensor([row.count for row in rows], dtype=torch.float64),
    )
