"""Trajectories on disk."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.trajectories.record import SCHEMA_VERSION, Trajectory
from revelm.trajectories.store import SCHEMA, join_trajectories, read_trajectories, write_trajectories
from tests.editing import block_records, canvas_records
from tests.models import assert_same, mixed_requests, sharp_model


@pytest.fixture(scope="module")
def records() -> list[Trajectory]:
    prompts, settings = mixed_requests(Static(1), range(1, 6))
    records = Engine(sharp_model(), num_slots=8).generate(prompts, settings)
    first = replace(records[0], info={"problem": "a<b>é", "score": 0.5}, weights_version=7, approximate_cache=True)
    size = len(first.step)
    mixed = replace(first, versions=np.arange(size, dtype=np.int32) - 1, forwards=99, weights_version=size)
    cut = replace(records[1], finish_reason="cancelled", stop_length=1)
    return [first, mixed, cut, *records, *block_records(), *canvas_records()]


def plain(value: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(dict(value)))


def test_records_come_back_as_they_were(records: list[Trajectory], tmp_path: Path) -> None:
    """Catches a column that is lost, rounded to single precision, or read back as another type."""
    path = tmp_path / "deep" / "rollout.parquet"
    write_trajectories(path, records)
    write_trajectories(path, records)
    for one, other in zip(read_trajectories(path), records, strict=True):
        assert_same(one, other, tolerance=0.0)
        assert one.token_arrays().keys() == other.token_arrays().keys()
        for name, array in other.token_arrays().items():
            assert one.token_arrays()[name].dtype == array.dtype
            assert one.token_arrays()[name].tobytes() == array.tobytes()
        for name in ("weights_version", "edits", "approximate_cache", "schema_version", "forwards"):
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
    with pytest.raises(ValueError, match="schema_version 99, this release reads 1 and 2"):
        read_trajectories(path)
    later = [replace(r, schema_version=3) for r in records[:2]]
    write_trajectories(path, later)
    table = pq.read_table(path)
    pq.write_table(table.append_column("entropy", pa.array([0.5, 0.5])).drop_columns(["edits"]), path)
    with pytest.raises(ValueError, match="schema_version 3, this release reads 1 and 2"):
        read_trajectories(path)


def test_foreign_columns_and_contradictions_are_named(records: list[Trajectory], tmp_path: Path) -> None:
    """Catches numbers that vanish on the way through, and records spoilt by another program that train in silence."""
    path = tmp_path / "rollout.parquet"
    write_trajectories(path, records[:2])
    table = pq.read_table(path)
    pq.write_table(table.append_column("reward", pa.array([0.5, 1.0])), path)
    with pytest.raises(ValueError, match="has the column 'reward', which trajectories of schema_version 2 have not"):
        read_trajectories(path)
    for name in ("versions", "forwards"):
        pq.write_table(table.drop_columns([name]), path)
        with pytest.raises(ValueError, match=f"lacks the column '{name}'"):
            read_trajectories(path)
    place = table.column_names.index("stop_length")
    pq.write_table(table.set_column(place, "stop_length", pa.array([1, 999])), path)
    with pytest.raises(ValueError, match=r"rollout\.parquet holds .* cannot be replayed: .*stop_length is 999"):
        read_trajectories(path)


def as_version_1(table: pa.Table, edits: str) -> pa.Table:
    """The table as the first release wrote it."""
    table = table.drop_columns(["versions", "forwards", "edits"])
    rows = len(table)
    table = table.append_column("edits", pa.array([edits] * rows, pa.string()))
    place = table.column_names.index("schema_version")
    return table.set_column(place, "schema_version", pa.array([1] * rows, pa.int64()))


def test_files_of_the_first_release_are_read(records: list[Trajectory], tmp_path: Path) -> None:
    """Catches rollouts that an update of the package makes unreadable, or that come back as another version's."""
    path, plain_records = tmp_path / "old.parquet", [t for t in records if not t.edits and t.versions is None]
    write_trajectories(path, plain_records)
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMA)
    pq.write_table(as_version_1(table, "[]"), path)
    for one, other in zip(read_trajectories(path), plain_records, strict=True):
        assert_same(one, replace(other, forwards=None), tolerance=0.0)
        assert one.schema_version == SCHEMA_VERSION
        assert (one.forwards, one.versions, one.edits) == (None, None, ())
    write_trajectories(path, read_trajectories(path))
    assert len(read_trajectories(path)) == len(plain_records)
    pq.write_table(as_version_1(table[:0], "[]"), path)
    assert read_trajectories(path) == []
    edit = {"step": 3, "position": 1, "token": 9, "logprob": -0.25, "kind": "edit"}
    pq.write_table(as_version_1(table, json.dumps([edit])), path)
    with pytest.raises(ValueError, match="edits of schema_version 1, which do not tell what they replaced"):
        read_trajectories(path)


def test_numbers_of_numpy_in_edits_are_written(tmp_path: Path) -> None:
    """Catches edits made from array elements, which are no Python numbers, refused or rounded."""
    record = next(t for t in block_records() if t.edits)
    edits = tuple(
        replace(e, step=np.int64(e.step), token=np.int32(e.token), logprob=np.float64(e.logprob)) for e in record.edits
    )
    write_trajectories(tmp_path / "x.parquet", [replace(record, edits=edits)])
    assert read_trajectories(tmp_path / "x.parquet")[0].edits == record.edits


def test_a_record_that_cannot_be_replayed_is_refused(records: list[Trajectory]) -> None:
    """Catches arrays of different lengths, which replay would pair up wrongly."""
    with pytest.raises(ValueError, match=r"trajectory\.step has shape"):
        replace(records[0], step=np.zeros(2, dtype=np.int32))
    with pytest.raises(ValueError, match=r"trajectory\.stop_length is 999"):
        replace(records[0], stop_length=999)
    with pytest.raises(ValueError, match=r"trajectory\.block_size is 0"):
        replace(records[0], block_size=0)


def test_files_are_joined_in_any_order(records: list[Trajectory], tmp_path: Path) -> None:
    """Catches rows of the second file counted from its own beginning, and nested columns that shift against others."""
    write_trajectories(tmp_path / "a.parquet", records[:4])
    write_trajectories(tmp_path / "b.parquet", records[4:9])
    order = [8, 0, 5, 3, 4, 1, 7, 2, 6]
    join_trajectories(tmp_path / "all" / "c.parquet", [tmp_path / "a.parquet", tmp_path / "b.parquet"], order)
    for one, place in zip(read_trajectories(tmp_path / "all" / "c.parquet"), order, strict=True):
        assert_same(one, records[place], tolerance=0.0)
        assert plain(one.info) == plain(records[place].info)
    assert [file.name for file in (tmp_path / "all").iterdir()] == ["c.parquet"]
