"""Trajectories on disk: Parquet, one row each, arrays as lists, settings as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from revelm.trajectories.record import SCHEMA_VERSION, Event, Trajectory

_INTEGERS = ("prompt_ids", "completion_ids", "step", "forward")
_REALS = ("logprob", "logprob_t1", "confidence")
_NUMBERS = ("num_steps", "block_size", "grid_offset", "stop_length", "weights_version", "schema_version")
_FLAGS = ("is_filtered", "approximate_cache")
_JSON = ("rule", "sampling", "info")
SCHEMA = pa.schema(
    [(name, pa.list_(pa.int32())) for name in _INTEGERS]
    + [(name, pa.list_(pa.float64())) for name in _REALS]
    + [(name, pa.int64()) for name in _NUMBERS]
    + [(name, pa.bool_()) for name in _FLAGS]
    + [("finish_reason", pa.string())]
    + [(name, pa.string()) for name in (*_JSON, "edits")]
)


def write_trajectories(path: str | Path, trajectories: Sequence[Trajectory]) -> None:
    """Write ``trajectories`` to one Parquet file, whole or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([_to_row(t) for t in trajectories], schema=SCHEMA)
    partial = target.with_name(target.name + ".partial")
    pq.write_table(table, partial)
    partial.replace(target)


def read_trajectories(path: str | Path) -> list[Trajectory]:
    """Read what ``write_trajectories`` wrote. ValueError for a file that is missing, damaged or of another schema."""
    source = Path(path)
    if not source.is_file():
        raise ValueError(f"trajectory file {str(source)!r} does not exist")
    try:
        table = pq.read_table(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{source} is not a readable Parquet file ({error})") from error
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise ValueError(f"{source} lacks the column {missing[0]!r}: not a trajectory file")
    try:
        return [_from_row(row, source) for row in table.to_pylist()]
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{source} holds a damaged trajectory ({error})") from error


def _to_row(t: Trajectory) -> dict[str, object]:
    row: dict[str, object] = {name: vars(t)[name].tolist() for name in (*_INTEGERS, *_REALS)}
    row |= {name: vars(t)[name] for name in (*_NUMBERS, *_FLAGS, "finish_reason")}
    row |= {name: json.dumps(dict(vars(t)[name]), sort_keys=True) for name in _JSON}
    return row | {"edits": json.dumps([vars(e) for e in t.edits])}


def _from_row(row: dict[str, object], source: Path) -> Trajectory:
    if row["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"{source} has schema_version {row['schema_version']}, this release reads {SCHEMA_VERSION}")
    fields: dict[str, object] = {name: row[name] for name in (*_NUMBERS, *_FLAGS, "finish_reason")}
    fields |= {name: np.array(row[name], dtype=np.int32) for name in _INTEGERS}
    fields |= {name: np.array(row[name], dtype=np.float64) for name in _REALS}
    fields |= {name: json.loads(str(row[name])) for name in _JSON}
    return Trajectory(**fields, edits=tuple(Event(**e) for e in json.loads(str(row["edits"]))))  # type: ignore[arg-type]
