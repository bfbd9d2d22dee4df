"""Which row speaks about a token in a shifted network, row by row."""

import torch

from revelm.masks.visibility import CLEAN, PADDING, Pattern
from revelm.models.alignment import predecessors

# (position, stream, block, sequence, place of the row that speaks about it): one line of blocks of two positions.
ROWS = (
    *((0, CLEAN, 0, 0, 0), (1, CLEAN, 0, 0, 0), (2, CLEAN, 1, 0, 1), (3, CLEAN, 1, 0, 2)),
    *((0, 1, 0, 0, 4), (1, 1, 0, 0, 4)),
    *((2, 1, 1, 0, 1), (3, 1, 1, 0, 6)),  # the same stream goes on in the next block, whose first token is clean's
    *((2, 2, 1, 0, 1), (3, 2, 1, 0, 8)),
    *((4, 1, 2, 0, 3), (5, 1, 2, 0, 10)),
    *((6, CLEAN, 3, 1, 12), (7, CLEAN, 3, 1, 12)),  # another text, whose beginning was left out
    *((6, 1, 3, 1, 14), (7, 1, 3, 1, 14), (8, 1, 4, 1, 13)),
    *((9, CLEAN, 4, 1, 17), (10, CLEAN, 5, 1, 17)),  # behind a hidden row of its own block, which is not clean
    *((11, CLEAN, 5, 2, 19), (1, 1, 0, 3, 20), (2, 1, 0, 4, 21)),  # texts whose positions happen to go on
    *((0, CLEAN, 0, PADDING, 22), (0, CLEAN, 0, PADDING, 23)),
)


def test_predecessors_stay_in_their_text_stream_and_block() -> None:
    """Catches a predecessor taken from the neighbouring row whatever it is, or from another text of the line."""
    columns = torch.tensor(ROWS).T[:, None]
    positions, stream, block, sequence, expected = columns
    assert torch.equal(predecessors(positions, Pattern(stream, block, sequence)), expected)


def test_rows_of_a_batch_are_aligned_apart() -> None:
    """Catches a table of clean rows that lines of a batch share."""
    positions = torch.tensor([[0, 1, 2, 3], [5, 6, 7, 2]])
    stream = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1]])
    block, zeros = positions // 2, torch.zeros_like(positions)
    expected = torch.tensor([[0, 0, 1, 2], [0, 0, 1, 3]])
    assert torch.equal(predecessors(positions, Pattern(stream, block, zeros)), expected)
