"""Trajectories on disk: Parquet, one row each, arrays as lists, edits as lists of structs, settings as JSON.

Files of schema version 1, which knew no edits, are read as well: records come back in the present version.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from revelm.trajectories.record import SCHEMA_VERSION, Event, Trajectory

READABLE = (1, SCHEMA_VERSION)
_ROWS = 256
_INTEGERS = ("prompt_ids", "completion_ids", "step", "forward")
_REALS = ("logprob", "logprob_t1", "confidence")
_NUMBERS = ("num_steps", "block_size", "grid_offset", "stop_length", "weights_version", "schema_version")
_FLAGS = ("is_filtered", "approximate_cache")
_JSON = ("rule", "sampling", "info")
_LATER = ("versions", "forwards")
_EDIT_INTEGERS = ("step", "position", "token", "replaced")
_EDIT = pa.struct([(name, pa.int32()) for name in _EDIT_INTEGERS] + [("logprob", pa.float64())])
SCHEMA = pa.schema(
    [(name, pa.list_(pa.int32())) for name in _INTEGERS]
    + [(name, pa.list_(pa.float64())) for name in _REALS]
    + [(name, pa.int64()) for name in _NUMBERS]
    + [(name, pa.bool_()) for name in _FLAGS]
    + [("finish_reason", pa.string())]
    + [(name, pa.string()) for name in _JSON]
    + [("edits", pa.list_(_EDIT)), ("versions", pa.list_(pa.int32())), ("forwards", pa.int64())]
)


def write_trajectories(path: str | Path, trajectories: Sequence[Trajectory]) -> None:
    """Write ``trajectories`` to one Parquet file, whole or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([_to_row(t) for t in trajectories], schema=SCHEMA)
    partial = target.with_name(target.name + ".partial")
    pq.write_table(table, partial)
    partial.replace(target)


def join_trajectories(target: str | Path, sources: Sequence[str | Path], order: Sequence[int]) -> None:
    """Write the rows of several files to one, whole or not at all; row i of it is row ``order[i]`` of them all.

    Rows are copied as they are and never become objects, so that files larger than memory as objects can be joined.
    """
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.concat_tables([pq.read_table(source, schema=SCHEMA) for source in sources])
    partial = path.with_name(path.name + ".partial")
    with pq.ParquetWriter(partial, SCHEMA) as writer:
        for start in range(0, len(order), _ROWS):
            writer.write_table(table.take(list(order[start : start + _ROWS])))
    partial.replace(path)


def read_trajectories(path: str | Path) -> list[Trajectory]:
    """Read what ``write_trajectories`` wrote. ValueError for a file that is missing, damaged or of another schema."""
    source = Path(path)
    if not source.is_file():
        raise ValueError(f"trajectory file {str(source)!r} does not exist")
    try:
        table = pq.read_table(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{source} is not a readable Parquet file ({error})") from error
    _check_columns(table, source)
    try:
        return [_from_row(row) for row in table.to_pylist()]
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{source} holds a damaged trajectory ({error})") from error
    except ValueError as error:
        raise ValueError(f"{source} holds a trajectory that cannot be replayed: {error}") from error


def count_trajectories(path: str | Path) -> int:
    """Rows of a file, by what its end says of it; 0 where it is missing or not whole."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowInvalid, OSError):
        return 0


def _check_columns(table: pa.Table, source: Path) -> None:
    """ValueError for versions this release does not know, and for columns that are missing or foreign to them."""
    versions = table["schema_version"].to_pylist() if "schema_version" in table.column_names else []
    unknown = [version for version in versions if version not in READABLE]
    if unknown:
        readable = " and ".join(map(str, READABLE))
        raise ValueError(f"{source} has schema_version {unknown[0]}, this release reads {readable}")
    is_old = SCHEMA_VERSION not in versions
    for name in SCHEMA.names:
        if name not in table.column_names and not (is_old and name in _LATER):
            raise ValueError(f"{source} lacks the column {name!r}: not a trajectory file")
    foreign = [name for name in table.column_names if name not in SCHEMA.names]
    if foreign:
        raise ValueError(
            f"{source} has the column {foreign[0]!r}, which trajectories of schema_version {SCHEMA_VERSION} have not; "
            "attach numbers of your own as info"
        )


def _to_row(t: Trajectory) -> dict[str, object]:
    row: dict[str, object] = {name: vars(t)[name].tolist() for name in (*_INTEGERS, *_REALS)}
    row |= {name: vars(t)[name] for name in (*_NUMBERS, *_FLAGS, "finish_reason", "forwards")}
    row |= {name: json.dumps(dict(vars(t)[name]), sort_keys=True) for name in _JSON}
    row["versions"] = None if t.versions is None else t.versions.tolist()
    return row | {"edits": [{name: vars(e)[name] for name in (*_EDIT_INTEGERS, "logprob")} for e in t.edits]}


def _from_row(row: dict[str, object]) -> Trajectory:
    fields: dict[str, object] = {name: row[name] for name in (*_NUMBERS, *_FLAGS, "finish_reason")}
    fields |= {name: np.array(row[name], dtype=np.int32) for name in _INTEGERS}
    fields |= {name: np.array(row[name], dtype=np.float64) for name in _REALS}
    fields |= {name: json.loads(str(row[name])) for name in _JSON}
    edits = row["edits"]
    if isinstance(edits, str):  # version 1 wrote JSON, without the tokens that were replaced
        if json.loads(edits):
            raise ValueError("it has edits of schema_version 1, which do not tell what they replaced")
        edits = []
    versions = row.get("versions")
    return Trajectory(
        **fields | {"schema_version": SCHEMA_VERSION},  # type: ignore[arg-type]
        edits=tuple(Event(**edit, kind="edit") for edit in edits),  # type: ignore[attr-defined]
        versions=None if versions is None else np.array(versions, dtype=np.int32),
        forwards=row.get("forwards"),  # type: ignore[arg-type]
    )
