"""Sudoku from files: public puzzles of every layout, any solution counts, grids are found where answers stand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from revelm.core.registry import build
from revelm.core.types import Completion
from revelm.tasks.sudoku import Sudoku
from revelm.tasks.sudoku_grids import all_grids, solutions
from revelm.tasks.sudoku_rules import is_solved, laid_out, plain_cells, units

PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "data" / "sudoku"
NINE = "123456789456789123789123456214365897365897214897214365531642978642978531978531642"


def said(text: str) -> Completion:
    return Completion(text, len(text), 1, "stop")


def write(folder: Path, rows: Sequence[Any]) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / "rows.jsonl")


def test_the_rules() -> None:
    """Catches boxes of a wrong shape, and a grid of another size or of other digits that counts as solved."""
    assert [len(units(side)) for side in (4, 6, 9)] == [12, 18, 27]
    for side in (4, 6, 9):
        assert sorted(cell for unit in units(side)[2 * side :] for cell in unit) == list(range(side * side))
    assert is_solved(NINE)
    assert is_solved("123456456123214365365214531642642531")
    assert not is_solved("123456234561345612456123561234612345")  # rows and columns alone
    assert not is_solved("".join("123456789"[row:] + "123456789"[:row] for row in range(9)))
    assert not is_solved(NINE[::-1].replace("1", "2", 1))
    assert not is_solved(NINE[:-1])
    assert not is_solved("0" * 16)
    assert not is_solved("5" * 16)
    assert all(is_solved(grid) for grid in all_grids())


@pytest.mark.parametrize(
    ("name", "num"),
    [("4x4_test_sudoku.csv", 500), *((f"dream_sudoku_4x4_{given}.jsonl", 108) for given in range(4, 13))],
)
def test_public_puzzles(name: str, num: int) -> None:
    """Catches leading zeros that are lost, and a right solution that is refused because the file lists another."""
    file = PUBLIC / name
    if not file.is_file():
        pytest.skip("needs the public data beside the repository")
    task = build("tasks", {"kind": "sudoku", "data": str(file)})
    problems = task.problems("test")
    assert len(problems) == num
    assert task.problems("train") == []
    if name.startswith("dream"):
        assert {p.info["num_given"] for p in problems} == {int(name.removesuffix(".jsonl").rpartition("_")[2])}
    several = 0
    for problem in problems:
        grids = solutions(plain_cells(problem.question))
        several += len(grids) > 1
        for grid in grids[:4]:
            assert task.score(problem, said(f"\\boxed{{{grid}}}")).value == 1.0
        assert task.score(problem, said(task.worked(problem))).breakdown == {
            "correct": 1.0,
            "cells": 1.0,
            "format": 1.0,
        }
        other = next(grid for grid in all_grids() if grid not in grids)
        assert task.score(problem, said(other)).breakdown["correct"] == 0.0
    assert name.startswith("dream") or several == 124


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        ("1234341221434321", True),
        ("1234\n3412\n2143\n4321\n", True),
        ("1 2 | 3 4\n3 4 | 1 2\n----+----\n2 1 | 4 3\n4 3 | 2 1", True),
        ("reasoning 1234 ... so \\boxed{1234\n3412\n2143\n4321}", True),
        ("<answer>\n1,2,3,4\n3,4,1,2\n2,1,4,3\n4,3,2,1\n</answer>", True),
        ("<think>1111</think>```\n1234\n3412\n2143\n4321\n```", True),
        ("\\boxed{1234\\\\3412\\\\2143\\\\4321}", True),
        ("1234341221434321 1234341221434321", False),
        ("the grid is 1234341221434321", False),
        ("\\boxed{1234341221434321} or \\boxed{2143432112343412}", False),
        ("1234341221434312", False),
        ("2143432112343412", False),
        ("１２３４3412２１４３4321", False),
        ("123434122143432", False),
        ("1234" * 100_000, False),
        ("", False),
        ("\\boxed{}", False),
    ],
)
def test_where_a_grid_stands(text: str, is_right: bool) -> None:
    """Catches a right grid that is missed for its frame, and text that is read as a grid."""
    task = Sudoku(data="sample")
    problem = task.problems("test")[0]
    assert plain_cells(problem.reference) == "1234341221434321"
    assert task.score(problem, said(text)).value == float(is_right)


def test_puzzles_of_every_size_are_asked(tmp_path: Path) -> None:
    """Catches a prompt that speaks of another size, and a puzzle in one line that has no rows."""
    nine = {"puzzle": NINE.replace("5", "."), "solution": NINE}
    task = Sudoku(data=write(tmp_path, [nine]))
    (problem,) = task.problems("test")
    content = task.prompt(problem)[0]["content"]
    assert "9x9 Sudoku" in content
    assert "digits 1 to 9" in content
    assert content.endswith(laid_out(NINE.replace("5", "0")).rstrip())
    assert problem.info == {"num_given": 72, "group": "9x9, 72 given"}
    assert Sudoku(instruction="Solve.").prompt(problem)[0]["content"] == f"Solve.\n{problem.question}"
    assert len({p.info["group"].partition(",")[0] for p in Sudoku().problems("test")}) == 3


def test_training_without_the_puzzles_of_the_test(tmp_path: Path) -> None:
    """Catches a puzzle that is asked in training and in the test."""
    rows = [json.loads(line) for line in Path(sample()).read_text(encoding="utf-8").splitlines()]
    file = write(tmp_path, [rows[0], {"Puzzle": "0" * 16, "Solution": rows[0]["Solution"]}])
    task = Sudoku(data="sample", train_data=file)
    assert [plain_cells(p.question) for p in task.problems("train")] == ["0" * 16]


def sample() -> str:
    return str(Path(__file__).resolve().parents[2] / "src/revelm/tasks/samples/sudoku.jsonl")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"Puzzle": "123", "Solution": "123"},
            r"field 'Puzzle': '123' \(3 characters\); expected 16 digits 0 .* or 81",
        ),
        ({"Puzzle": "5" + "0" * 15, "Solution": "1" * 16}, r"field 'Puzzle': '5000"),
        ({"Puzzle": "0" * 16, "Solution": "0" * 16}, r"field 'Solution': .* expected 16 digits 1 to 4"),
        ({"Puzzle": "0" * 16, "Solution": NINE}, r"field 'Solution': .* expected 16 digits 1 to 4"),
        ({"Puzzle": "0" * 16, "Solution": "1" * 16}, r"repeats a digit in a row, column or box"),
        ({"Puzzle": "2" + "0" * 15, "Solution": "1234341221434321"}, r"changes a given"),
        ({"Puzzle": 1030041020004001, "Solution": 1.5}, r"field 'Solution': expected text, not 1\.5"),
        ({"Puzzle": "0" * 16}, r"expected fields Puzzle, Solution or puzzle, solution .*; found: Puzzle"),
        ({"Puzzle": "٠" * 16, "Solution": "1234341221434321"}, r"field 'Puzzle'"),
    ],
)
def test_bad_rows(tmp_path: Path, row: Any, message: str) -> None:
    """Catches a puzzle that cannot be solved, asked for ever."""
    with pytest.raises(ValueError, match=message):
        Sudoku(data=write(tmp_path, [row])).problems("test")
