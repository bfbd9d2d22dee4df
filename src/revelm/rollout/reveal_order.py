"""In which order a model would reveal given texts: greedy and teacher-forced, many blocks at once.

At every step the k most confident hidden positions of the current block (full attention: window) are revealed with
the text's own tokens (arXiv 2509.06949, section 4.1, with k = 2). Earlier blocks are then the text's, whatever the
model thinks of them, so no block waits for another: round r of all blocks of a text is one row of a block model, one
row per window under full attention. A text takes as many forwards as its longest block has rounds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from revelm.core.grid import block_of, padded_length
from revelm.core.types import Family, require_diffusion
from revelm.decoding.propose import log_probabilities
from revelm.objectives.batch import Batch, Text
from revelm.objectives.rows import Row, collate, cut_columns, sample_rows, target_positions
from revelm.objectives.score import chunk_rows
from revelm.objectives.supervised import padded_ids
from revelm.trajectories.replay import Copies

OrderBy = Literal["top", "true"]


@dataclass(frozen=True)
class RevealOrder:
    """``tokens_per_step``: positions revealed per step. ``order_by``: "top" ranks a position by the probability of the
    model's own likeliest token there, as its static rule does; "true" by that of the text's token.

    ``block_size`` (full attention): windows of so many positions from the end of the prompt; None: the whole response.
    ``num_slots``: texts at a time; ``max_positions``: of one forward. Neither changes a result.
    """

    tokens_per_step: int = 2
    order_by: OrderBy = "top"
    block_size: int | None = None
    num_slots: int = 16
    max_positions: int = 8192

    def __post_init__(self) -> None:
        for name in ("tokens_per_step", "num_slots", "max_positions"):
            if vars(self)[name] < 1:
                raise ValueError(f"{name} is {vars(self)[name]}, must be at least 1")
        if self.block_size is not None and self.block_size < 1:
            raise ValueError(f"block_size is {self.block_size}, must be at least 1")
        if self.order_by not in get_args(OrderBy):
            raise ValueError(f"order_by is {self.order_by!r}, allowed: {', '.join(map(repr, get_args(OrderBy)))}")

    def check_family(self, family: Family) -> None:
        """ValueError for a family that reveals nothing, and for windows of a model that has blocks."""
        require_diffusion(family)
        if family.attention == "block" and self.block_size not in (None, family.block_size):
            raise ValueError(
                f"block_size is {self.block_size}, but {family.name} has blocks of {family.block_size}; leave it out: "
                "windows are for full attention"
            )


@dataclass(frozen=True, eq=False)
class _Unit:
    """A text whose order is being found: ``window`` int64 [R], block or window of every response token; ``round``
    int64 [R], -1 while it is hidden."""

    sample: Text
    ids: np.ndarray
    window: np.ndarray
    round: np.ndarray


def reveal_order(model: Any, samples: Sequence[Text], how: RevealOrder) -> Iterator[np.ndarray]:
    """For every sample, in order, the step that reveals each of its response tokens, int32 [R], counted from 1.

    ValueError for a sample that does not fit the model; FloatingPointError when its numbers are not finite.
    """
    how.check_family(model.family)
    for first in range(0, len(samples), how.num_slots):
        units = [_unit(sample, model.family, how) for sample in samples[first : first + how.num_slots]]
        for number in range(max(_num_rounds(unit, how) for unit in units)):
            _reveal(model, units, number, how)
        for unit in units:
            yield _steps(unit, how)


def _unit(sample: Text, family: Family, how: RevealOrder) -> _Unit:
    start, end = sample.prompt_length, len(sample.ids)
    position = np.arange(start, end)
    if family.block_size is None:
        window = (position - start) // (how.block_size or max(1, end - start))
    else:
        window = np.asarray(block_of(position, family.block_size), dtype=np.int64)
    ids = padded_ids(sample, int(padded_length(end, family.block_size or 1)), family)
    return _Unit(sample, ids, window, np.full(end - start, -1, dtype=np.int64))


def _num_rounds(unit: _Unit, how: RevealOrder) -> int:
    return -(-int(np.bincount(unit.window).max(initial=0)) // how.tokens_per_step)


def _steps(unit: _Unit, how: RevealOrder) -> np.ndarray:
    """Rounds within windows as steps of the whole response: windows one after another."""
    sizes = -(-np.bincount(unit.window) // how.tokens_per_step)
    before = np.cumsum(sizes) - sizes
    return (before[unit.window] + unit.round + 1).astype(np.int32)


def _reveal(model: Any, units: Sequence[_Unit], number: int, how: RevealOrder) -> None:
    """One round of every window that still hides something."""
    ends = np.cumsum([len(unit.window) for unit in units])
    confidence = np.full(int(ends[-1]), -np.inf)
    rows = [row for unit, end in zip(units, ends, strict=True) for row in _rows(unit, end - len(unit.window), model)]
    for batch in collate(rows, model.family).split(how.max_positions):
        confidence[batch.columns["place"].numpy()] = _confidence(model, batch, how.order_by)
    for unit, own in zip(units, np.split(confidence, ends[:-1]), strict=True):
        hidden = np.flatnonzero(unit.round < 0)
        ranked = hidden[np.lexsort((hidden, -own[hidden], unit.window[hidden]))]
        windows, first = np.unique(unit.window[ranked], return_index=True)
        rank = np.arange(len(ranked)) - first[np.searchsorted(windows, unit.window[ranked])]
        unit.round[ranked[rank < how.tokens_per_step]] = number


def _rows(unit: _Unit, first_place: int, model: Any) -> list[Row]:
    """The rows that show every window as it stands; column "place": number of the response token among all."""
    family: Family = model.family
    start, end = unit.sample.prompt_length, len(unit.sample.ids)
    windows = np.unique(unit.window[unit.round < 0])
    if not len(windows):
        return []
    now = windows[:, None]
    target = np.zeros((len(windows), len(unit.ids)), dtype=bool)
    target[:, start:end] = (unit.window == now) & (unit.round < 0)
    hidden = target.copy()
    if family.block_size is None:
        hidden[:, start:end] |= unit.window > now
        seen = Copies(np.zeros(len(windows), dtype=np.int64), np.arange(len(windows)), hidden, target)
    else:
        hidden[:, end:] = True
        own = now * family.block_size + np.arange(family.block_size)
        seen = Copies(windows, windows * 0, *(np.take_along_axis(grid, own, axis=1) for grid in (hidden, target)))
    pieces = sample_rows(unit.ids[: (int(windows[-1]) + 1) * (family.block_size or end)], seen, family)
    place = {"place": first_place + target_positions(seen, 0) - start}
    parts = cut_columns(place, pieces)
    return [Row(*piece, part, float(len(piece[1]))) for piece, part in zip(pieces, parts, strict=True)]


@torch.no_grad()
def _confidence(model: Any, batch: Batch, order_by: OrderBy) -> np.ndarray:
    """Log-probability of the target, or of the likeliest token, at every scored position, float64 [N]."""
    place = batch.to(model.device)
    features = model.body(place.tokens, place.positions, place.pattern, rows=place.scored)
    chunk, found = chunk_rows(model.family.vocab_size), []
    for first in range(0, len(features), chunk):
        part = slice(first, first + chunk)
        logprob = log_probabilities(model.head(features[part]), model.family.banned_ids, temperature=None)
        best = logprob.amax(-1) if order_by == "top" else logprob.gather(-1, place.targets[part, None])[:, 0]
        found.append(best.double().cpu())
    numbers = torch.cat(found).numpy()
    if np.isnan(numbers).any():
        raise FloatingPointError("the model's log-probabilities are not numbers; its weights or dtype are unusable")
    return numbers
