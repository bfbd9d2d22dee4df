"""What an evaluation keeps: parts that are whole, errors that say what to do."""

import resource
from pathlib import Path

import numpy as np
import pytest

from revelm.eval.batches import times
from revelm.eval.identity import alone_in
from revelm.eval.store import Part, Spent, join_parts, read_parts, save_part
from revelm.trajectories.record import Trajectory
from revelm.trajectories.store import count_trajectories
from tests.unit.test_eval_metrics import sample


def trajectory() -> Trajectory:
    """Two tokens."""
    return Trajectory(
        prompt_ids=np.array([3], dtype=np.int32),
        completion_ids=np.array([5, 2], dtype=np.int32),
        step=np.array([1, 2], dtype=np.int32),
        forward=np.array([1, 2], dtype=np.int32),
        logprob=np.zeros(2),
        logprob_t1=np.zeros(2),
        confidence=np.ones(2),
        num_steps=2,
        block_size=2,
        grid_offset=0,
        stop_length=2,
        finish_reason="stop",
        rule={"kind": "static"},
        sampling={"temperature": 0.0},
    )


def kept(folder: Path, group: int) -> Part:
    part = Part(0, Spent(1.0, 1.0), (sample(group, 0, 1.0),), f"{group:06d}")
    save_part(folder, "static", part, [trajectory()])
    return part


@pytest.mark.parametrize("damage", ["empty", "cut", "missing"])
def test_a_part_without_its_trajectories_is_asked_again(tmp_path: Path, damage: str) -> None:
    """Catches a power cut that leaves a part's text and not its arrays, from which no resume comes away."""
    parts = [kept(tmp_path, group) for group in range(2)]
    assert read_parts(tmp_path, "static") == parts
    file = tmp_path / "parts" / "static" / "000000.parquet"
    assert count_trajectories(file) == 1
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"" if damage == "empty" else file.read_bytes()[:-9])
    assert count_trajectories(file) == 0
    assert read_parts(tmp_path, "static") == parts[1:]
    kept(tmp_path, 0)
    join_parts(tmp_path, "static", parts, [one.samples[0] for one in parts])
    assert count_trajectories(tmp_path / "trajectories" / "static.parquet") == 2


@pytest.mark.parametrize("limit", [100, 4000])
def test_a_full_disk_names_the_file_and_the_remedy(tmp_path: Path, limit: int) -> None:
    """Catches "Error writing bytes to file" of an hour's answers: which file, and what now?"""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    part = Part(0, Spent(1.0, 1.0), tuple(sample(group, 0, 1.0, text="x" * 50) for group in range(100)), "000000")
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match="answers so far are kept, --resume goes on") as found:
            save_part(tmp_path, "static", part, [trajectory()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(tmp_path / "parts" / "static" / "000000.") in str(found.value.filename)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """Catches "File exists" for --out that names a file."""
    (tmp_path / "x").touch()
    with pytest.raises(ValueError, match=r"out: .*x is no folder"), alone_in(tmp_path / "x"):
        pass


def test_speed_is_that_of_decoding() -> None:
    """Catches tokens per second that count the time of verdicts, of a sandbox say, and processes added up that work at
    the same time."""
    spent = [(0, Spent(1.0, 9.0)), (0, Spent(1.0, 1.0)), (1, Spent(3.0, 3.0))]
    parts = [Part(process, one, (sample(i, 0, 1.0, tokens=6),)) for i, (process, one) in enumerate(spent)]
    assert times(parts) == {"tokens_per_second": 6.0, "seconds": 10.0}
