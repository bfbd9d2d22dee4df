"""The rules of Sudoku for grids of 4x4, 6x6 and 9x9: every row, column and box holds each digit once.

A grid is its digits, row by row; a puzzle is the same with 0 for an empty cell. Boxes of a 6x6 grid are two rows high
and three columns wide.
"""

from collections.abc import Sequence
from functools import cache

from revelm.data.rows import Row
from revelm.tasks.problem_files import find_fields

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}  # side: rows and columns of a box
_FIELDS = (
    ("Puzzle", "Solution"),
    ("puzzle", "solution"),
    ("input", "output"),
    ("quizzes", "solutions"),
    ("question", "answer"),
)


@cache
def units(side: int) -> Sequence[Sequence[int]]:
    """The cells of every row, column and box of a ``side`` x ``side`` grid."""
    height, width = BOXES[side]
    rows = [[side * row + column for column in range(side)] for row in range(side)]
    columns = [list(column) for column in zip(*rows, strict=True)]
    boxes = [
        [side * row + column for row in range(top, top + height) for column in range(left, left + width)]
        for top in range(0, side, height)
        for left in range(0, side, width)
    ]
    return (*rows, *columns, *boxes)


def side_of(cells: str) -> int | None:
    """The side of the grid that has so many cells; None where there is none."""
    return next((side for side in BOXES if side * side == len(cells)), None)


def fits(cells: str, side: int) -> bool:
    """Whether no digit but 0 repeats in a row, column or box of the first cells of a grid."""
    for unit in units(side):
        digits = [cells[cell] for cell in unit if cell < len(cells) and cells[cell] != "0"]
        if len(set(digits)) < len(digits):
            return False
    return True


def is_solved(grid: str) -> bool:
    """Whether ``grid`` is a whole grid in which each row, column and box holds every digit."""
    side = side_of(grid)
    return side is not None and set(grid) <= set(digits_of(side)) and fits(grid, side)


def keeps_givens(grid: str, puzzle: str) -> bool:
    """Whether a grid has every given digit of ``puzzle`` in its place."""
    return all(given in ("0", digit) for given, digit in zip(puzzle, grid, strict=True))


def digits_of(side: int) -> str:
    """The digits 1 to ``side``."""
    return "123456789"[:side]


def plain_cells(rows: str) -> str:
    """The cells of a puzzle or grid that may be laid out in rows; ``.`` is an empty cell too."""
    return "".join(rows.split()).replace(".", "0")


def laid_out(cells: str) -> str:
    """Cells as rows, each followed by a newline."""
    side = round(len(cells) ** 0.5)
    return "".join(f"{cells[start : start + side]}\n" for start in range(0, len(cells), side))


def read_puzzle(row: Row, sides: Sequence[int]) -> tuple[str, str]:
    """The cells of the puzzle and of its solution in a row of a file: ``Puzzle`` and ``Solution``, or the like.

    Raises ValueError for a grid of a side that is none of ``sides``, one that breaks the rules, and a solution of
    another puzzle.
    """
    puzzle_field, grid_field = find_fields(row, _FIELDS)
    puzzle, grid = plain_cells(row.text(puzzle_field)), plain_cells(row.text(grid_field))
    side = side_of(puzzle)
    if side is None or side not in sides or not set(puzzle) <= set("0" + digits_of(side)):
        sizes = " or ".join(f"{side * side} digits 0 (empty) to {side}" for side in sides)
        remedy = f"expected {sizes} as text, with leading zeros kept"
        raise row.error(puzzle_field, f"{puzzle[:40]!r} ({len(puzzle)} characters); {remedy}")
    if len(grid) != len(puzzle) or not set(grid) <= set(digits_of(side)):
        expected = f"expected {len(puzzle)} digits 1 to {side}"
        raise row.error(grid_field, f"{grid[:40]!r} ({len(grid)} characters); {expected}")
    if not is_solved(grid):
        raise row.error(grid_field, f"{grid!r} repeats a digit in a row, column or box; give a solved grid")
    if not keeps_givens(grid, puzzle):
        raise row.error(grid_field, f"{grid!r} changes a given of {puzzle!r}; give the solution of this puzzle")
    return puzzle, grid
