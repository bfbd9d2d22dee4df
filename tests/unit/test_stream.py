"""The endless shuffled stream: every epoch a permutation, any part of it at any time."""

import pytest

from revelm.data.stream import stream


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_every_epoch_is_a_permutation(size: int) -> None:
    """Catches samples that an epoch leaves out or repeats."""
    places = stream(3, range(5 * size), size)
    epochs = [places[i : i + size] for i in range(0, len(places), size)]
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
    if size == 64:
        assert len({tuple(epoch) for epoch in epochs}) == 5


@pytest.mark.parametrize("cut", [0, 1, 5, 12, 13, 29])
def test_any_part_can_be_asked_for(cut: int) -> None:
    """Catches an order that depends on where the reader began, so that a resumed run sees other samples."""
    assert stream(1, range(cut), 13) + stream(1, range(cut, 30), 13) == stream(1, range(30), 13)


def test_seeds_give_other_orders() -> None:
    """Catches a seed that is not used."""
    assert stream(1, range(50), 50) != stream(2, range(50), 50)
    assert stream(1, range(0), 5) == []
