"""``sudoku4``: 4x4 Sudoku, whose cells can be filled in any order.

The prompt is the puzzle, four rows of digits with 0 for an empty cell; the answer is the four filled rows, each
followed by a newline, 20 characters. Generated puzzles have exactly one solution; an answer is right if it is any
solved grid that keeps the givens (some public puzzles have several).

Training and test share no solution grid, nor a grid with its digits relabelled: of the 12 orbits of 24 grids
(see `revelm.tasks.sudoku_grids`) 10 are for training and 2 for test, for every seed the same ones. The grids come in
two kinds, of 4 orbits and 8, that no exchange of rows, columns or digits turns into each other; the test has one orbit
of each kind.

The habit fills each row with the digits missing in it, blind to columns and boxes: in random order, or in ascending
order. A model of many random fillings still finds the right digit the likeliest in every cell, because the worked
answers agree with each other; of ascending ones it does not, so that there a lower temperature brings out the habit.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from random import Random
from typing import Literal

from revelm.core.seeds import derive_seed
from revelm.core.types import Completion, Demonstration, Problem, Score
from revelm.data.rows import Row, read_rows
from revelm.tasks.demonstrations import mixed_demonstrations
from revelm.tasks.generation import check_counts, check_range, draw_distinct
from revelm.tasks.sudoku_grids import CELLS, all_grids, draw_puzzle, orbit_of
from revelm.tasks.sudoku_rules import is_solved, keeps_givens, laid_out, plain_cells, read_puzzle
from revelm.tasks.task import Messages, check_split

_TEST_ORBITS = ("1234341221434321", "1234341223414123")
_ROW = re.compile(r"[1-4]{4}")


@dataclass(frozen=True)
class Sudoku4:
    """4x4 Sudoku.

    ``num_given``: smallest and largest number of given cells. ``data``: a CSV or JSON Lines file with ``Puzzle`` and
    ``Solution`` (or ``input`` and ``output``) that takes the place of the test split; ``info["seen"]`` of its problems
    says whether their solution is among those of the training problems, which are always generated. ``habit_rate``:
    share of demonstrations that follow the habit, in which ``habit_order`` the missing digits of a row are put.
    ``instruction``: a line before each puzzle, for models that were not trained here.
    """

    seed: int = 0
    num_train: int = 20000
    num_test: int = 200
    num_given: tuple[int, int] = (6, 10)
    data: str | None = None
    habit_rate: float = 0.7
    habit_order: Literal["random", "ascending"] = "random"
    instruction: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for a field outside its range."""
        check_counts(num_train=self.num_train, num_test=self.num_test, habit_rate=self.habit_rate)
        check_range("num_given", self.num_given, low=4, high=CELLS - 1)
        if self.habit_order not in ("random", "ascending"):
            raise ValueError(f"habit_order={self.habit_order!r}: expected 'random' or 'ascending'")

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "sudoku4"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test"; see `Task.problems`."""
        check_split(split)
        if split == "train":
            return _generated("train", self.num_train, self.seed, self.num_given)
        if self.data is None:
            return _generated("test", self.num_test, self.seed, self.num_given)
        seen = {problem.reference for problem in self.problems("train")}
        return [_from_row(row, seen) for row in read_rows(self.data, field="task.data")]

    def prompt(self, problem: Problem) -> Messages:
        """The puzzle, after the instruction if there is one."""
        content = f"{self.instruction}\n{problem.question}" if self.instruction else problem.question
        return [{"role": "user", "content": content}]

    def score(self, problem: Problem, completion: Completion) -> Score:
        """1 if the answer is four rows of four digits, solved, with the givens kept.

        Breakdown: ``correct``; ``cells``, the share of empty cells filled as in the reference (0 without the format);
        ``format``, whether there are four rows of four digits 1 to 4 and nothing else.
        """
        grid = _parse_grid(completion.text)
        if grid is None:
            return Score(0.0, {"correct": 0.0, "cells": 0.0, "format": 0.0})
        puzzle, reference = plain_cells(problem.question), plain_cells(problem.reference)
        correct = float(is_solved(grid) and keeps_givens(grid, puzzle))
        hits = [grid[cell] == reference[cell] for cell in range(CELLS) if puzzle[cell] == "0"]
        cells = sum(hits) / len(hits) if hits else correct
        return Score(correct, {"correct": correct, "cells": cells, "format": 1.0})

    def answer(self, problem: Problem, completion: Completion) -> str | None:
        """The digits of the grid; see `AnswerTask.answer`."""
        return _parse_grid(completion.text)

    def worked(self, problem: Problem) -> str:
        """The solution, four rows."""
        return problem.reference

    def habit(self, problem: Problem, rng: Random) -> str:
        """Each row filled with the digits missing in it, as if there were no columns and boxes."""
        rows = []
        for row in problem.question.split("\n"):
            missing = [digit for digit in "1234" if digit not in row]
            if self.habit_order == "random":
                rng.shuffle(missing)
            rows.append("".join(missing.pop(0) if cell == "0" else cell for cell in row))
        return laid_out("".join(rows))

    def demonstrations(self, num: int, seed: int) -> list[Demonstration]:
        """``num`` answered training problems of kinds "worked" and "habit"; see `mixed_demonstrations`."""
        return mixed_demonstrations(self, num, seed=seed)


def _parse_grid(text: str) -> str | None:
    """The 16 digits of an answer; None unless it is four rows of four digits and nothing else."""
    rows = text.split()
    return "".join(rows) if len(rows) == 4 and all(_ROW.fullmatch(row) for row in rows) else None


@cache
def _split_grids(split: str) -> tuple[str, ...]:
    """The 240 grids for training or the 48 for test."""
    return tuple(grid for grid in all_grids() if (orbit_of(grid) in _TEST_ORBITS) == (split == "test"))


@lru_cache(maxsize=8)
def _generated(split: str, num: int, seed: int, num_given: tuple[int, int]) -> tuple[Problem, ...]:
    """``num`` different problems of a split; a smaller ``num`` gives the beginning of a larger one."""
    rng = Random(derive_seed("sudoku4", "problems", seed, split))

    def draw() -> Problem | None:
        grid = rng.choice(_split_grids(split))
        puzzle = draw_puzzle(grid, rng.randint(*num_given), rng)
        return None if puzzle is None else _problem(f"sudoku4:{puzzle}", puzzle, grid, is_seen=split == "train")

    remedy = f"lower num_{split} or widen num_given, now {num_given}"
    return draw_distinct(draw, num, field=f"num_{split}", remedy=remedy)


def _problem(problem_id: str, puzzle: str, grid: str, *, is_seen: bool) -> Problem:
    info = {"num_given": CELLS - puzzle.count("0"), "seen": is_seen}
    return Problem(problem_id, laid_out(puzzle).rstrip("\n"), laid_out(grid), info)


def _from_row(row: Row, seen: set[str]) -> Problem:
    puzzle, grid = read_puzzle(row, (4,))
    return _problem(f"sudoku4:{row.name}:{row.number}", puzzle, grid, is_seen=laid_out(grid) in seen)
