"""Sudoku4: grids, well-posed puzzles, disjoint orbits, verdicts and public files."""

import pickle
from collections import Counter
from itertools import combinations
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revelm.core.types import Completion, Problem
from revelm.tasks.sudoku4 import Sudoku4
from revelm.tasks.sudoku_grids import all_grids, draw_puzzle, orbit_of, solutions
from revelm.tasks.sudoku_rules import is_solved, keeps_givens
from revelm.tasks.task import DemonstrationTask

SMALL = Sudoku4(num_train=2000, num_test=300)
PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "data" / "sudoku"


def answer(text: str) -> Completion:
    return Completion(text, num_tokens=len(text), num_forwards=1, finish_reason="stop")


def cells(rows: str) -> str:
    return "".join(rows.split())


def intercalates(grid: str) -> int:
    """2x2 subsquares of two digits: their number is unchanged by any exchange of rows, columns or digits."""
    pairs = list(combinations(range(4), 2))
    at = [grid[start : start + 4] for start in range(0, 16, 4)]
    return sum(at[r][c] == at[s][d] and at[r][d] == at[s][c] for r, s in pairs for c, d in pairs)


def test_there_are_288_grids_in_12_orbits() -> None:
    """The split rests on these numbers."""
    grids = all_grids()
    assert len(set(grids)) == 288
    assert all(is_solved(grid) for grid in grids)
    assert sorted(Counter(map(orbit_of, grids)).values()) == [24] * 12
    assert not is_solved("1234341221434312")
    assert not is_solved("1234")
    assert not is_solved("1234234134124123")  # rows and columns alone


def test_drawn_puzzles_have_one_solution() -> None:
    """Checked against the enumeration: the difference masks leave nothing out."""
    rng = Random(0)
    for grid in rng.sample(all_grids(), 60):
        for num_given in (5, 6, 8, 12):
            puzzle = draw_puzzle(grid, num_given, rng)
            if puzzle is not None:
                assert solutions(puzzle) == [grid]
                assert 16 - puzzle.count("0") == num_given
    assert draw_puzzle(all_grids()[0], 3, rng) is None
    assert len(solutions("0" * 16)) == 288


def test_every_generated_problem_is_well_posed() -> None:
    """A puzzle of several solutions would punish right deductions."""
    for problem in (*SMALL.problems("train"), *SMALL.problems("test")):
        puzzle, grid = cells(problem.question), cells(problem.reference)
        assert solutions(puzzle) == [grid]
        assert 6 <= problem.info["num_given"] == 16 - puzzle.count("0") <= 10
        assert len(problem.reference) == 20


def test_train_and_test_share_no_orbit_and_test_has_both_kinds() -> None:
    """A relabelled training grid in the test set would reward memory."""
    train = {orbit_of(cells(problem.reference)) for seed in (0, 1) for problem in Sudoku4(seed=seed).problems("train")}
    test = {orbit_of(cells(problem.reference)) for seed in (0, 1) for problem in Sudoku4(seed=seed).problems("test")}
    assert (len(train), len(test)) == (10, 2)
    assert not train & test
    assert {intercalates(orbit) for orbit in test} == {4, 12}


def test_problems_are_distinct_and_determined_by_the_seed() -> None:
    """Set order or a shared generator would make two processes disagree."""
    train = SMALL.problems("train")
    assert len({problem.question for problem in train}) == len({problem.id for problem in train}) == 2000
    assert Sudoku4(num_train=50).problems("train") == train[:50]
    assert Sudoku4(num_train=50, seed=1).problems("train") != train[:50]
    assert train[0].id == "sudoku4:0300100030140003"


def test_score_accepts_any_solution_and_nothing_else() -> None:
    """Some public puzzles have several solutions, of which their files list one."""
    grid = "1234\n3412\n2143\n4321\n"
    problem = Problem("x", "0000\n0000\n0000\n4321", grid)
    other = "2143\n4312\n1234\n3421"  # solved, but does not keep the givens
    assert is_solved(cells(other))
    assert SMALL.score(problem, answer(grid)).breakdown == {"correct": 1.0, "cells": 1.0, "format": 1.0}
    assert SMALL.score(problem, answer("2143\n4312\n1234\n4321")).value == 0.0  # a column repeats
    second = next(found for found in solutions(cells(problem.question)) if found != cells(grid))
    rows = "\n".join(second[start : start + 4] for start in range(0, 16, 4))
    verdict = SMALL.score(problem, answer(rows))
    assert verdict.value == 1.0
    assert verdict.breakdown["cells"] < 1.0
    assert SMALL.score(problem, answer(other)).breakdown["correct"] == 0.0
    for text in ("", "1234\n3412\n2143", cells(grid), f"{grid}1234", f"grid:\n{grid}", grid.replace("4", "5")):
        assert SMALL.score(problem, answer(text)).breakdown == {"correct": 0.0, "cells": 0.0, "format": 0.0}


@given(st.text() | st.text(alphabet="1234\n 05", max_size=24))
def test_score_never_raises(text: str) -> None:
    """A half-trained model writes anything."""
    problem = SMALL.problems("test")[0]
    score = SMALL.score(problem, answer(text))
    assert score.value == score.breakdown["correct"] in (0.0, 1.0)
    assert 0.0 <= score.breakdown["cells"] <= score.breakdown["format"] <= 1.0


@pytest.mark.parametrize("order", ["random", "ascending"])
def test_habit_keeps_rows_and_is_usually_wrong(order: str) -> None:
    """The habit must look like an answer, respect rows and givens, and fail on columns and boxes."""
    task = Sudoku4(num_train=2000, habit_order=order)
    rng = Random(0)
    right = 0.0
    for problem in task.problems("train"):
        text = task.habit(problem, rng)
        assert all(sorted(row) == list("1234") for row in text.split())
        assert keeps_givens(cells(text), cells(problem.question))
        assert len(text) == 20
        right += task.score(problem, answer(text)).value
    assert 0.01 < right / 2000 < 0.12


def test_demonstrations_are_mixed_exactly_and_worked_ones_score_one() -> None:
    """Drawing each kind by a coin would make the habit rate vary from run to run."""
    shown = SMALL.demonstrations(101, seed=3)
    assert shown == SMALL.demonstrations(101, seed=3) != SMALL.demonstrations(101, seed=4)
    assert Counter(demonstration.kind for demonstration in shown) == {"habit": 71, "worked": 30}
    train = {problem.question: problem for problem in SMALL.problems("train")}
    for demonstration in shown:
        problem = train[demonstration.messages[0]["content"]]
        score = SMALL.score(problem, answer(demonstration.messages[-1]["content"]))
        assert score.breakdown["format"] == 1.0
        assert demonstration.kind == "habit" or score.value == 1.0


def test_prompt_takes_an_instruction() -> None:
    """The instruction must reach the prompt, and cost nothing when empty."""
    problem = SMALL.problems("test")[0]
    assert SMALL.prompt(problem) == [{"role": "user", "content": problem.question}]
    told = Sudoku4(instruction="Solve.").prompt(problem)
    assert told == [{"role": "user", "content": f"Solve.\n{problem.question}"}]


def test_task_and_problems_are_picklable() -> None:
    """Reward workers get both through a pipe."""
    assert isinstance(SMALL, DemonstrationTask)
    for thing in (SMALL, SMALL.problems("test"), SMALL.demonstrations(3, seed=0)):
        assert pickle.loads(pickle.dumps(thing)) == thing


def test_csv_keeps_leading_zeros_and_tells_seen_grids(tmp_path: Path) -> None:
    """A number parser turns 0402... into 402...; seen and unseen grids are reported apart."""
    known, unseen = SMALL.problems("train")[0], SMALL.problems("test")[0]
    assert known.question.startswith("0")
    path = tmp_path / "mine.csv"
    rows = "".join(f"{cells(problem.question)},{cells(problem.reference)}\r\n" for problem in (known, unseen))
    path.write_text(f"\ufeffPuzzle,Solution\r\n{rows}", encoding="utf-8")
    first, second = Sudoku4(num_train=2000, data=str(path)).problems("test")
    assert (first.id, first.question, first.reference) == ("sudoku4:mine:1", known.question, known.reference)
    assert first.info["seen"] is True
    assert second.info["seen"] is False


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("Puzzle,Answer\n1,2\n", ["row 1", "Puzzle, Solution", "Answer"]),
        ("Puzzle,Solution\n", ["no rows"]),
        (
            "Puzzle,Solution\n102000002003000,1234341221434321\n",
            ["row 1 (line 2)", "'Puzzle'", "15 characters", "zeros"],
        ),
        ("Puzzle,Solution\n5000000000000000,1234341221434321\n", ["row 1", "'Puzzle'", "digits 0"]),
        ("Puzzle,Solution\n1000000000000000,1234341221434320\n", ["row 1", "'Solution'", "digits 1 to 4"]),
        ("Puzzle,Solution\n1000000000000000,1234341221434312\n", ["row 1", "'Solution'", "repeats"]),
        ("Puzzle,Solution\n2000000000000000,1234341221434321\n", ["row 1", "'Solution'", "given"]),
    ],
)
def test_bad_file_names_file_row_and_field(tmp_path: Path, content: str, parts: list[str]) -> None:
    """A wrong reference would silently lower every reported accuracy."""
    path = tmp_path / "bad.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad\.csv") as error:
        Sudoku4(num_train=10, data=str(path)).problems("test")
    assert [part for part in parts if part not in str(error.value)] == []


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the public Sudoku files are not there")
def test_public_files_are_read_and_their_solutions_score_one() -> None:
    """The literature's CSV has 124 puzzles of several solutions; the reference must still score 1."""
    paths = sorted(PUBLIC.iterdir())
    assert paths
    for path in paths:
        task = Sudoku4(data=str(path))
        problems = task.problems("test")
        assert len({problem.id for problem in problems}) == len(problems)
        assert all(task.score(problem, answer(task.worked(problem))).value == 1.0 for problem in problems)
        assert {problem.info["seen"] for problem in problems} == {False, True}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_given": (3, 8)}, "num_given"),
        ({"num_given": (6, 16)}, "num_given"),
        ({"habit_rate": -0.1}, "habit_rate"),
        ({"habit_order": "descending"}, "habit_order='descending'"),
        ({"num_train": 0}, "num_train=0"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, object], message: str) -> None:
    """The message must name the field and its value."""
    with pytest.raises(ValueError, match=message):
        Sudoku4(**fields)


def test_impossible_requests_end_with_an_error() -> None:
    """Rejection sampling without an end would hang on more puzzles than there are."""
    with pytest.raises(ValueError, match="num_test=800: only"):
        Sudoku4(num_given=(15, 15), num_test=800).problems("test")
    with pytest.raises(ValueError, match="split='dev'"):
        SMALL.problems("dev")
