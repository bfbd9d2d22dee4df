"""Texts with the order in which a model reveals them, on disk: the data of trace SFT.

One row per text, as token ids, never through text: ``ids``, ``prompt_length``, ``step`` (for every response token the
denoising step that reveals it, from 1), ``source`` (number of the row it was made from) and ``settings`` (JSON: how it
was made). Parquet, or JSON Lines with the same fields; the file's ending says which.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from revelm.core.atomic import write_text_atomic

ENDINGS = (".parquet", ".jsonl")
SCHEMA = pa.schema(
    [
        ("ids", pa.list_(pa.int32())),
        ("prompt_length", pa.int64()),
        ("step", pa.list_(pa.int32())),
        ("source", pa.int64()),
        ("settings", pa.string()),
    ]
)


@dataclass(frozen=True, eq=False)
class TraceRow:
    """One text: ids int64 [L], of which the first ``prompt_length`` are given, and steps int32 [L - prompt_length].

    ValueError when they do not fit each other.
    """

    ids: np.ndarray
    prompt_length: int
    step: np.ndarray
    source: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = len(self.ids) - self.prompt_length
        if self.prompt_length < 0 or size < 1:
            raise ValueError(f"prompt_length is {self.prompt_length} of {len(self.ids)} ids, which leaves no response")
        if self.step.shape != (size,):
            raise ValueError(f"step has {len(self.step)} entries for {size} response tokens")
        if (self.step < 1).any():
            raise ValueError(f"step has the entry {int(self.step.min())}; steps count from 1")
        if (self.ids < 0).any():
            raise ValueError(f"ids has the entry {int(self.ids.min())}; ids count from 0")


def holds_traces(path: str | Path) -> bool:
    """Whether ``path`` is a file of collected orders, or of trajectories that could be made into one: by its fields."""
    file = Path(path)
    if file.suffix not in ENDINGS or not file.is_file():
        return False
    if file.suffix == ".parquet":
        names = _parquet_names(file)
        return {"ids", "step"} <= names or "completion_ids" in names
    with file.open(encoding="utf-8", errors="replace") as lines:
        first = next((line for line in lines if line.strip()), "")
    try:
        row = json.loads(first)
    except json.JSONDecodeError:
        return False
    return isinstance(row, dict) and "ids" in row and "step" in row


def read_traces(path: str | Path) -> list[TraceRow]:
    """All rows of a file that ``write_traces`` wrote. FileNotFoundError, or ValueError that names file and row."""
    file = Path(path)
    check_ending(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such trace file")
    rows = _parquet_rows(file) if file.suffix == ".parquet" else _json_rows(file)
    if not rows:
        raise ValueError(f"{file}: empty, at least one trace is needed")
    return [_from_row(row, f"{file}, row {number}") for number, row in enumerate(rows, 1)]


def write_traces(path: str | Path, rows: Sequence[TraceRow]) -> None:
    """Write ``rows`` to one file, whole or not at all; parent folders are created. ValueError for another ending."""
    file = Path(path)
    check_ending(file)
    plain = [
        {
            "ids": row.ids.tolist(),
            "prompt_length": row.prompt_length,
            "step": row.step.tolist(),
            "source": row.source,
            "settings": json.dumps(dict(row.settings), sort_keys=True),
        }
        for row in rows
    ]
    if file.suffix == ".jsonl":
        write_text_atomic(file, "".join(json.dumps(row) + "\n" for row in plain))
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    pq.write_table(pa.Table.from_pylist(plain, schema=SCHEMA), partial)
    partial.replace(file)


def check_ending(path: str | Path) -> None:
    """ValueError for a file whose ending does not say what it is."""
    if Path(path).suffix not in ENDINGS:
        raise ValueError(f"{path}: a file of traces ends in {' or '.join(ENDINGS)}")


def _parquet_names(file: Path) -> set[str]:
    """The columns; none of a file that cannot be read, of which those who read it tell more."""
    try:
        return set(pq.read_schema(file).names)
    except (pa.ArrowInvalid, OSError):
        return set()


def _parquet_rows(file: Path) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file} is not a readable Parquet file ({error})") from error
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if "completion_ids" in table.column_names:
        raise ValueError(f"{file} holds trajectories; turn them into traces with `revelm trace collect --from {file}`")
    if missing:
        raise ValueError(f"{file} lacks the column {missing[0]!r}: not a file of traces")
    return list(table.select(SCHEMA.names).to_pylist())


def _json_rows(file: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}, row {number}: not valid JSON ({error})") from error
    return rows


def _from_row(row: Any, where: str) -> TraceRow:
    if not isinstance(row, dict) or not {"ids", "prompt_length", "step"} <= row.keys():
        raise ValueError(f"{where}: needs 'ids', 'prompt_length' and 'step'")
    try:
        ids, step = (np.array(_integers(row[name], name), dtype=np.int32) for name in ("ids", "step"))
        (length,) = _integers([row["prompt_length"]], "prompt_length")
        (source,) = _integers([row.get("source") or 0], "source")
        return TraceRow(ids.astype(np.int64), length, step, source, _settings(row.get("settings") or "{}"))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from error


def _integers(values: Any, name: str) -> list[int]:
    """``values``, which are to be a list of integers: a float would be cut, a bool or a string taken for a number."""
    if not isinstance(values, list):
        raise ValueError(f"{name} is {str(values)[:40]!r}, expected a list of integers")
    wrong = next((value for value in values if type(value) is not int), None)
    if wrong is not None or None in values:
        raise ValueError(f"{name} holds {wrong!r}, expected integers alone")
    return values


def _settings(text: Any) -> dict[str, Any]:
    """How a trace was made. ValueError for what is no JSON object, and for blocks of no size."""
    settings = json.loads(text)
    if not isinstance(settings, dict):
        raise ValueError(f"settings is {str(settings)[:40]!r}, expected an object")
    size = settings.get("block_size")
    if size is not None and (type(size) is not int or size < 1):
        raise ValueError(f"settings.block_size is {size!r}, expected a whole number from 1, or null")
    return settings
