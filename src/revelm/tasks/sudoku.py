r"""``sudoku``: puzzles of 4x4, 6x6 and 9x9 from files, asked in words.

Any solved grid that keeps the givens is right: some public puzzles have several solutions, of which their files list
one. The answer is looked for in the last ``\boxed{}``, or else in the last ``<answer></answer>``, or else it is the
whole text; what stands there must be the grid alone, with blanks, commas and the lines of a frame where they please.

A row has ``Puzzle`` and ``Solution`` (``puzzle``, ``solution``; ``input``, ``output``; ``quizzes``, ``solutions``):
digits, with 0 or ``.`` for an empty cell, in rows or in one line. For puzzles without end, and for models that were
trained here, there is ``sudoku4``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from revelm.core.types import Completion, Demonstration, Problem, Score
from revelm.data.rows import Row
from revelm.rewards.answer_part import answer_part
from revelm.tasks.data_source import problem_source, sample_file
from revelm.tasks.demonstrations import worked_demonstrations
from revelm.tasks.file_splits import read_problems, unasked
from revelm.tasks.sudoku_rules import BOXES, is_solved, keeps_givens, laid_out, plain_cells, read_puzzle
from revelm.tasks.task import Messages, check_split

INSTRUCTION = (
    "Fill the empty cells (0) of this {side}x{side} Sudoku, so that every row, every column and every box holds the "
    "digits 1 to {side} once. Please reason step by step, and put the filled grid within \\boxed{}, one row a line."
)
_FRAME = str.maketrans("", "", "|,;-+_&`$ \t\r\n\\")
_MAX_CHARACTERS = 2000


@dataclass(frozen=True)
class Sudoku:
    """Sudoku from files.

    ``data``: the test, as a file or a data set of the hub; None or "sample": a few puzzles of our own. ``train_data``:
    training puzzles; None: none, but with the sample a few. ``instruction``: what stands before the puzzle, in which
    ``{side}`` is the side of the grid.
    """

    data: str | None = None
    train_data: str | None = None
    instruction: str = INSTRUCTION

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "sudoku"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test"; see `Task.problems`. ``info["group"]``: the side and the givens."""
        check_split(split)
        test = self._read(problem_source(self.data, hub=sample_file("sudoku"), task="sudoku"))
        if split == "test" or self.train_data is None:
            return test if split == "test" else []
        return unasked(self._read(self.train_data), test)

    def prompt(self, problem: Problem) -> Messages:
        """The instruction and the puzzle, one row a line."""
        side = problem.question.index("\n")
        instruction = self.instruction.replace("{side}", str(side))
        return [{"role": "user", "content": "\n".join(part for part in (instruction, problem.question) if part)}]

    def score(self, problem: Problem, completion: Completion) -> Score:
        """1 if the answer is a solved grid with the givens kept.

        Breakdown: ``correct``; ``cells``, the share of empty cells filled as in the reference; ``format``, whether the
        answer is a grid of the right size.
        """
        puzzle, reference = plain_cells(problem.question), plain_cells(problem.reference)
        grid = _parse_grid(completion.text, len(puzzle))
        if grid is None:
            return Score(0.0, {"correct": 0.0, "cells": 0.0, "format": 0.0}, reason="no answer")
        empty = [cell for cell, given in enumerate(puzzle) if given == "0"]
        cells = sum(grid[cell] == reference[cell] for cell in empty) / max(1, len(empty))
        correct = float(is_solved(grid) and keeps_givens(grid, puzzle))
        reason = "a solution" if correct else "a given changed" if is_solved(grid) else "not solved"
        return Score(correct, {"correct": correct, "cells": cells if empty else correct, "format": 1.0}, reason=reason)

    def answer(self, problem: Problem, completion: Completion) -> str | None:
        """The digits of the grid; see `AnswerTask.answer`."""
        return _parse_grid(completion.text, len(plain_cells(problem.question)))

    def worked(self, problem: Problem) -> str:
        """The solution in a box, one row a line."""
        return f"\\boxed{{{problem.reference.rstrip()}}}"

    def demonstrations(self, num: int, seed: int) -> list[Demonstration]:
        """``num`` worked training problems; see `worked_demonstrations`."""
        return worked_demonstrations(self, num, seed=seed)

    def _read(self, path: str) -> list[Problem]:
        return read_problems(path, self.name, read=_problem)


def _problem(row: Row, name: str) -> Problem:
    puzzle, grid = read_puzzle(row, tuple(BOXES))
    side, num_given = round(len(puzzle) ** 0.5), len(puzzle) - puzzle.count("0")
    info = {"num_given": num_given, "group": f"{side}x{side}, {num_given} given"}
    return Problem(name, laid_out(puzzle).rstrip("\n"), laid_out(grid), info)


def _parse_grid(text: str, num_cells: int) -> str | None:
    """The digits of an answer; None unless it is a grid of so many cells and nothing else."""
    answer = answer_part(text)
    if answer is None or len(answer) > _MAX_CHARACTERS:
        return None
    cells = answer.translate(_FRAME)
    return cells if len(cells) == num_cells and cells.isascii() and cells.isdigit() else None
