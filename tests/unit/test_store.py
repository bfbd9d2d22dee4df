"""Trajectories on disk."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.trajectories.record import Event, Trajectory
from revelm.trajectories.store import read_trajectories, write_trajectories
from tests.models import assert_same, mixed_requests, sharp_model


@pytest.fixture(scope="module")
def records() -> list[Trajectory]:
    prompts, settings = mixed_requests(Static(1), range(1, 6))
    records = Engine(sharp_model(), num_slots=8).generate(prompts, settings)
    edit = Event(step=3, position=1, token=9, logprob=-0.25, kind="edit")
    return [replace(records[0], edits=(edit,), info={"problem": "a<b>é", "score": 0.5}, weights_version=7), *records]


def plain(value: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(dict(value)))


def test_records_come_back_as_they_were(records: list[Trajectory], tmp_path: Path) -> None:
    """Catches a column that is lost, rounded to single precision, or read back as another type."""
    path = tmp_path / "deep" / "rollout.parquet"
    write_trajectories(path, records)
    write_trajectories(path, records)
    for one, other in zip(read_trajectories(path), records, strict=True):
        assert_same(one, other, tolerance=0.0)
        for name, array in other.token_arrays().items():
            assert one.token_arrays()[name].dtype == array.dtype
        for name in ("weights_version", "edits", "approximate_cache", "schema_version"):
            assert vars(one)[name] == vars(other)[name]
        for name in ("rule", "sampling", "info"):
            assert plain(vars(one)[name]) == plain(vars(other)[name])
        assert one.events == other.events
    assert [p.name for p in path.parent.iterdir()] == ["rollout.parquet"]
    write_trajectories(tmp_path / "none.parquet", [])
    assert read_trajectories(tmp_path / "none.parquet") == []


def test_a_failed_write_leaves_the_old_file(records: list[Trajectory], tmp_path: Path) -> None:
    """Catches a file that is truncated first and written afterwards: a full disk would cost the rollouts before."""
    path = tmp_path / "rollout.parquet"
    write_trajectories(path, records[:2])
    with pytest.raises(TypeError):
        write_trajectories(path, [replace(records[0], info={"problem": object()})])
    assert len(read_trajectories(path)) == 2


def test_damaged_files_are_named(records: list[Trajectory], tmp_path: Path) -> None:
    """Catches a traceback from inside a library, or half of the rows without a word."""
    path = tmp_path / "rollout.parquet"
    with pytest.raises(ValueError, match=r"rollout\.parquet' does not exist"):
        read_trajectories(path)
    write_trajectories(path, records)
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:-100], whole[: len(whole) // 2], b"not parquet at all" * 9):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"rollout\.parquet is not a readable Parquet file"):
            read_trajectories(path)
    write_trajectories(path, records)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["step"]), path)
    with pytest.raises(ValueError, match="lacks the column 'step'"):
        read_trajectories(path)
    write_trajectories(path, [replace(records[0], schema_version=99)])
    with pytest.raises(ValueError, match="schema_version 99, this release reads 1"):
        read_trajectories(path)


def test_a_record_that_cannot_be_replayed_is_refused(records: list[Trajectory]) -> None:
    """Catches arrays of different lengths, which replay would pair up wrongly."""
    with pytest.raises(ValueError, match=r"trajectory\.step has shape"):
        replace(records[0], step=np.zeros(2, dtype=np.int32))
    with pytest.raises(ValueError, match=r"trajectory\.stop_length is 999"):
        replace(records[0], stop_length=999)
    with pytest.raises(ValueError, match=r"trajectory\.block_size is 0"):
        replace(records[0], block_size=0)
