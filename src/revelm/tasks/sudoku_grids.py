"""The 288 solved 4x4 Sudoku grids, and puzzles that have exactly one of them as their solution.

A grid is 16 digits, row by row; a puzzle is the same with 0 for an empty cell. So few grids exist that solving is
looking them all up, and that a puzzle is unique iff it shows a cell of every set of cells in which another grid differs
from its own (those sets, the *differences*, are bit masks here, bit i for cell i).

Relabelling the digits turns a grid into 23 others: the 288 grids are 12 *orbits* of 24. Differences do not change under
relabelling, so there are 12 families of them.
"""

from collections.abc import Sequence
from functools import cache
from itertools import permutations
from random import Random

from revelm.tasks.sudoku_rules import fits, keeps_givens

CELLS = 16


@cache
def all_grids() -> tuple[str, ...]:
    """The 288 solved grids in ascending order."""
    rows = ["".join(row) for row in permutations("1234")]
    grids = [""]
    for _ in range(4):
        grids = [grid + row for grid in grids for row in rows if fits(grid + row, 4)]
    return tuple(grids)


def solutions(puzzle: str) -> list[str]:
    """Every solved grid that keeps the givens of ``puzzle``, in ascending order."""
    return [grid for grid in all_grids() if keeps_givens(grid, puzzle)]


def orbit_of(grid: str) -> str:
    """The name of the grid's orbit: its member whose first row is 1234."""
    return grid.translate(str.maketrans(grid[:4], "1234"))


def draw_puzzle(grid: str, num_given: int, rng: Random) -> str | None:
    """A puzzle with ``num_given`` givens that ``grid`` alone solves: cells emptied in random order while that holds.

    None where this order cannot get down to ``num_given`` (below 4 no order can).
    """
    differences = _differences(orbit_of(grid))
    givens, count = (1 << CELLS) - 1, CELLS
    for cell in rng.sample(range(CELLS), CELLS):
        if count == num_given:
            break
        fewer = givens & ~(1 << cell)
        if all(fewer & difference for difference in differences):
            givens, count = fewer, count - 1
    if count != num_given:
        return None
    return "".join(digit if givens >> cell & 1 else "0" for cell, digit in enumerate(grid))


@cache
def _differences(orbit: str) -> Sequence[int]:
    """The sets of cells in which some other grid differs from ``orbit``'s, without those that contain another one."""
    masks = {sum(1 << cell for cell in range(CELLS) if grid[cell] != orbit[cell]) for grid in all_grids()} - {0}
    return [mask for mask in sorted(masks) if not any(other != mask and other & mask == other for other in masks)]
