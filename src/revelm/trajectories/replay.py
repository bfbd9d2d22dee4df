"""From a trajectory back to what the model saw: hidden copies of blocks, or of the canvas, round by round.

Block models decode block after block, so the context of a denoising step is: every earlier block clean, the own block
with what earlier steps revealed. Full-attention models see the whole canvas at every step, of which they decode one
window after another. Replay lists these contexts as hidden copies. TraceRL (arXiv 2509.06949, section 4) trains on them
in rounds: with shrinkage s, s neighbouring steps of a block or window form one round, and round r hides everything
revealed in round r or later, and predicts what round r revealed.
"""

from dataclasses import dataclass

import numpy as np

from revelm.core.grid import block_of
from revelm.trajectories.record import NEVER, Trajectory


@dataclass(frozen=True)
class Copies:
    """C hidden copies of blocks of one sequence, or of its whole canvas (then B is its length, and ``block`` is 0).

    ``block`` int64 [C], index on the grid; ``round`` int64 [C]; ``hidden`` and ``target`` bool [C, B]: which positions
    show the mask, and which of them are predicted.
    """

    block: np.ndarray
    round: np.ndarray
    hidden: np.ndarray
    target: np.ndarray


def rounds(trajectory: Trajectory, shrinkage: int = 1, *, grid_offset: int | None = None) -> np.ndarray:
    """Round of every completion token within its block, int64 [R], from 0; -1 for never revealed ones.

    ``shrinkage`` s merges s neighbouring distinct steps of a block; merging never crosses a block, order is kept.
    """
    if shrinkage < 1:
        raise ValueError(f"shrinkage is {shrinkage}, must be at least 1")
    step = trajectory.step.astype(np.int64)
    block = _blocks(trajectory, grid_offset)
    out = np.full(len(step), NEVER, dtype=np.int64)
    revealed = step != NEVER
    if not revealed.any():
        return out
    width = int(step.max()) + 1
    distinct, rank = np.unique(block[revealed] * width + step[revealed], return_inverse=True)
    first = np.searchsorted(distinct, block[revealed] * width)
    out[revealed] = (rank - first) // shrinkage
    return out


def copies(
    trajectory: Trajectory, shrinkage: int = 1, *, beyond_stop: bool = False, grid_offset: int | None = None
) -> Copies:
    """One hidden copy per (block, round) that predicts at least one token.

    Every token revealed up to the stop is a target exactly once; with ``beyond_stop`` those after it too.
    ``grid_offset`` replaces the record's own: only to show that a wrong grid does not replay.
    """
    size = trajectory.block_size
    offset = trajectory.grid_offset if grid_offset is None else grid_offset
    block, order = _blocks(trajectory, grid_offset), rounds(trajectory, shrinkage, grid_offset=grid_offset)
    position = len(trajectory.prompt_ids) + np.arange(len(order))
    is_target = order != NEVER
    if not beyond_stop:
        is_target = is_target & (np.arange(len(order)) < trajectory.stop_length)
    width = int(order.max(initial=0)) + 1
    keys = np.unique(block[is_target] * width + order[is_target])
    copy_block, copy_round = keys // width, keys % width
    shape = (len(keys), size)
    hidden, target = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    last = np.where(order == NEVER, width, order)
    for i in range(len(keys)):
        members = block == copy_block[i]
        column = position[members] - offset - copy_block[i] * size
        hidden[i, column] = last[members] >= copy_round[i]
        target[i, column] = (order[members] == copy_round[i]) & is_target[members]
    return Copies(copy_block, copy_round, hidden, target)


def contexts(trajectory: Trajectory, shrinkage: int = 1, *, beyond_stop: bool = False) -> Copies:
    """One hidden copy of the whole canvas per (window, round) that predicts at least one token: full attention.

    Hidden are the completion places that this or a later round of the window reveals, all later windows, and what was
    never revealed. Targets are those of ``copies``; ``round`` counts the copies in the order of decoding. ValueError
    for a record whose windows do not begin at the end of its prompt: a block model's.
    """
    start, end = len(trajectory.prompt_ids), len(trajectory.completion_ids)
    if trajectory.grid_offset != start:
        raise ValueError(
            f"trajectory.grid_offset is {trajectory.grid_offset}, but windows of a full-attention record begin behind "
            f"its prompt, at {start}; this record was decoded block by block"
        )
    order = rounds(trajectory, shrinkage)
    is_revealed = order != NEVER
    width = int(order.max(initial=0)) + 1
    moment = _blocks(trajectory, None) * width + order
    is_target = is_revealed if beyond_stop else is_revealed & (np.arange(end) < trajectory.stop_length)
    now = np.unique(moment[is_target])[:, None]
    prompt = np.zeros((len(now), start), dtype=bool)
    hidden = np.concatenate((prompt, ~is_revealed | (moment >= now)), axis=1)
    target = np.concatenate((prompt, is_target & (moment == now)), axis=1)
    return Copies(np.zeros(len(now), dtype=np.int64), np.arange(len(now)), hidden, target)


def canvas(trajectory: Trajectory) -> np.ndarray:
    """Prompt and completion ids as one sequence, int64 [P + R]."""
    return np.concatenate((trajectory.prompt_ids, trajectory.completion_ids)).astype(np.int64)


def _blocks(trajectory: Trajectory, grid_offset: int | None) -> np.ndarray:
    offset = trajectory.grid_offset if grid_offset is None else grid_offset
    position = len(trajectory.prompt_ids) + np.arange(len(trajectory.completion_ids))
    return np.asarray(block_of(position, trajectory.block_size, grid_offset=offset), dtype=np.int64)
