"""Rows of plain values from files: JSON Lines, JSON, CSV (each also packed with gzip) and Parquet.

A record is the line it stands on (None where the format has no lines) and its fields. Text stays text (a Sudoku keeps
its leading zeros); what the fields mean is checked by those who ask for them. Errors name the file, the row and what
to do.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO, StringIO
from pathlib import Path

from revelm.core.git_lfs import POINTER

Record = tuple[int | None, Mapping[str, object]]
PACKED = ".gz"
PARQUET = ".parquet"
FORMATS = (".jsonl", ".json", ".csv", PARQUET)


def format_of(path: str) -> str | None:
    """The suffix among ``FORMATS`` that says how a file is read, without ``.gz``; None where no suffix does."""
    name = path.lower()
    inner = name.removesuffix(PACKED)
    found = next((suffix for suffix in FORMATS if inner.endswith(suffix)), None)
    return None if found == PARQUET and inner != name else found


def read_records(path: str, *, field: str = "data") -> list[Record]:
    """All rows of a file, at least one.

    Raises ValueError, which calls the path ``field``, for a file that is missing, a placeholder of git-lfs, not UTF-8,
    damaged, malformed, without rows, or of another kind.
    """
    where = f"{field}={path!r}"
    kind = format_of(path)
    if kind is None:
        known = ", ".join(FORMATS)
        raise ValueError(f"{where}: expected a file name that ends in one of {known} (all but {PARQUET} also {PACKED})")
    content = _content(path, where)
    if kind == PARQUET:
        records = _parquet_records(content, where)
    else:
        text = _text(content, where)
        readers = {".csv": _csv_records, ".jsonl": _jsonl_records, ".json": _json_records}
        records = list(readers[kind](path, text))
    if not records:
        raise ValueError(f"{where}: has no rows; expected at least one")
    return records


def place_of(path: str, number: int, line: int | None) -> str:
    """How errors call row ``number`` (from 1, without a header) of a file."""
    return f"{path}, row {number}" if line is None else f"{path}, row {number} (line {line})"


def _content(path: str, where: str) -> bytes:
    """The bytes of a file, unpacked."""
    try:
        content = Path(path).read_bytes()
        if content.startswith(POINTER):
            raise ValueError(f"{where}: a placeholder of git-lfs, not the file itself; run `git lfs pull` there")
        return gzip.decompress(content) if path.lower().endswith(PACKED) else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{where}: not a whole gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise ValueError(f"{where}: cannot be read ({error.strerror}); give the path of a file") from error


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _csv_records(path: str, text: str) -> Iterator[Record]:
    header: list[str] | None = None
    number = 0
    for line, values in _csv_lines(path, text):
        if not any(value.strip() for value in values):
            continue
        if header is None:
            header = _header(path, line, values)
            continue
        number += 1
        if len(values) != len(header):
            raise ValueError(
                f"{place_of(path, number, line)}: has {len(values)} values, the header has "
                f"{len(header)} ({', '.join(header)}); make them equal"
            )
        yield line, dict(zip(header, values, strict=True))


def _header(path: str, line: int, values: Sequence[str]) -> list[str]:
    header = [value.strip() for value in values]
    twice = next((name for i, name in enumerate(header) if name and name in header[:i]), None)
    if twice is not None:
        raise ValueError(f"{path}, line {line}: the header has {twice!r} twice; rename one of these columns")
    return header


def _csv_lines(path: str, text: str) -> list[tuple[int, list[str]]]:
    """The lines of a CSV file with their numbers. Fields may be as long as the file: the usual limit is 128 KiB."""
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    former = csv.field_size_limit(max(len(text), csv.field_size_limit()))
    try:
        return [(reader.line_num, values) for values in reader]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
    finally:
        csv.field_size_limit(former)


def _jsonl_records(path: str, text: str) -> Iterator[Record]:
    number = 0
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        number += 1
        try:
            fields = json.loads(content)
        except (ValueError, RecursionError) as error:
            place = place_of(path, number, line)
            raise ValueError(f"{place}: not JSON ({error}); write one object a line") from error
        yield line, _object(fields, place_of(path, number, line))


def _json_records(path: str, text: str) -> Iterator[Record]:
    """A list of objects; an object that holds one, or a list for each field; or, misnamed, JSON Lines."""
    if not text.strip():
        return
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            yield from _jsonl_records(path, text)
            return
        raise ValueError(f"{path}: not JSON ({error})") from error
    rows = found if isinstance(found, list) else _inner_rows(path, found)
    for number, fields in enumerate(rows, start=1):
        yield None, _object(fields, place_of(path, number, None))


def _inner_rows(path: str, found: object) -> Sequence[object]:
    """The rows in an object: its only list of objects, or one row for each place in its lists."""
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list)]
        tables = [value for value in lists if value and isinstance(value[0], dict)]
        if len(tables) == 1 and ("data" in found or len(found) == 1):
            return tables[0]
        if found and len(lists) == len(found) and len({len(value) for value in lists}) == 1:
            return [dict(zip(found, values, strict=True)) for values in zip(*lists, strict=True)]
        if found and not lists:
            return [found]  # one row alone, as a file of JSON Lines with one line would have it
    remedy = 'a list of objects, {"data": [...]}, or an object with an equally long list for each field'
    raise ValueError(f"{path}: expected {remedy}, not {json.dumps(found)[:60]}")


def _object(fields: object, place: str) -> Mapping[str, object]:
    if not isinstance(fields, dict):
        raise ValueError(f"{place}: expected a JSON object, not {json.dumps(fields)[:40]}")
    return fields


def _parquet_records(content: bytes, where: str) -> list[Record]:
    import pyarrow  # of use to those alone who have such files
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(BytesIO(content)).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ValueError(f"{where}: not a Parquet file, or a damaged one ({reason}); fetch it again") from error
    return [(None, fields) for fields in rows]
