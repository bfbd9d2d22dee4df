"""Long lines cut into parts: runs of queries, each with the columns that any of them sees.

Training rows are long and see little: a hidden copy sees the clean text before its block and itself. Cut between blocks
into parts of about a hundred queries, a line needs a small mask per part instead of one of length x length, and what
no query of a part sees is not even computed. Rows of the same labels see the same, so a whole line of full attention,
or one of several texts in a line, is a single part without a mask. Padding belongs to no part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from revelm.masks.visibility import PADDING, Pattern, visible


@dataclass(frozen=True)
class Part:
    """The queries ``queries`` of line ``line``, which together see the columns in ``ranges``, in ascending order.

    ``is_open``: each of them sees all of those.
    """

    line: int
    queries: slice
    ranges: tuple[slice, ...]
    is_open: bool

    def gather(self, tensor: Tensor) -> Tensor:
        """The seen columns of ``tensor`` [L, ...] (one line), [K, ...]; a view where they are one range."""
        if len(self.ranges) == 1:
            return tensor[self.ranges[0]]
        return torch.cat([tensor[columns] for columns in self.ranges])

    def scatter_add(self, total: Tensor, found: Tensor) -> None:
        """Add ``found`` [K, ...], one entry per seen column, to ``total`` [L, ...] in place."""
        sizes = [columns.stop - columns.start for columns in self.ranges]
        for columns, piece in zip(self.ranges, found.split(sizes), strict=True):
            total[columns] += piece

    def seen(self, pattern: Pattern) -> Tensor:
        """Boolean [n, K]: which of the part's columns each of its queries sees."""
        labels = pattern.line(self.line)
        distinct, home, _ = runs(labels[:, self.queries])
        return _visible(distinct, self.gather(labels.T).T)[home]


def parts(pattern: Pattern, size: int) -> list[Part]:
    """Every line of ``pattern`` cut into parts of at most ``size`` queries; more where all have the same labels."""
    found = []
    for line in range(len(pattern.stream)):
        labels = pattern.line(line)
        distinct, _, counts = runs(labels)
        last = 0
        for first, end in _pieces(distinct[2].tolist(), counts.tolist(), size):
            queries = slice(last, last + sum(counts[first:end].tolist()))
            last = queries.stop
            if distinct[2, first] == PADDING:
                continue
            seen = _visible(distinct[:, first:end], labels)
            columns = seen.any(dim=0).nonzero()[:, 0]
            found.append(Part(line, queries, _ranges(columns), bool(seen[:, columns].all())))
    return found


def runs(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Runs of equal columns of ``labels`` int64 [k, n]: labels [k, r] of each, the run of every column [n], sizes [r].

    What ``unique_consecutive`` with an axis gives, which compares columns one by one.
    """
    is_first = torch.ones(labels.shape[1], dtype=torch.bool, device=labels.device)
    is_first[1:] = (labels[:, 1:] != labels[:, :-1]).any(dim=0)
    first = is_first.nonzero()[:, 0]
    sizes = torch.diff(first, append=first.new_tensor([labels.shape[1]]))
    return labels[:, first], is_first.cumsum(0) - 1, sizes


def _pieces(sequence: Sequence[int], counts: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Runs of equal labels, grouped: at most ``size`` rows of one sequence, or a single run."""
    first, rows = 0, 0
    for i, count in enumerate(counts):
        if i > first and (rows + count > size or sequence[i] != sequence[first]):
            yield first, i
            first, rows = i, 0
        rows += count
    if counts:
        yield first, len(counts)


def _visible(query: Tensor, key: Tensor) -> Tensor:
    """Boolean [n, k] for labels [3, n] and [3, k]."""
    return visible(tuple(query[:, :, None]), tuple(key[:, None, :]))


def _ranges(columns: Tensor) -> tuple[slice, ...]:
    """Ascending ``columns`` int64 [k] as ranges."""
    breaks = ((columns[1:] - columns[:-1]) > 1).nonzero()[:, 0] + 1
    starts = [0, *breaks.tolist()]
    ends = [*breaks.tolist(), len(columns)]
    return tuple(slice(int(columns[a]), int(columns[b - 1]) + 1) for a, b in zip(starts, ends, strict=True))
