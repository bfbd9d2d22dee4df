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
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from revelm.core.git_lfs import POINTER

Record = tuple[int | None, Mapping[str, object]]
PACKED = ".gz"
PARQUET = ".parquet"
FORMATS = (".jsonl", ".json", ".csv", PARQUET)
_GZIP_MARK, _PARQUET_MARK = b"\x1f\x8b", b"PAR1"


def format_of(path: str) -> str | None:
    """The suffix among ``FORMATS`` that says how a file is read, without ``.gz``; None where no suffix does."""
    name = path.lower()
    inner = name.removesuffix(PACKED)
    found = next((suffix for suffix in FORMATS if inner.endswith(suffix)), None)
    return None if found == PARQUET and inner != name else found


def read_records(path: str, *, field: str = "data", limit: int | None = None) -> list[Record]:
    """The rows of a file, at least one; ``limit``: only the first ones.

    What a file begins with counts before its name: a packed file is unpacked and Parquet is read as such, whatever they
    are called. Raises ValueError, which calls the path ``field``, for a file that is missing, a placeholder of git-lfs,
    not UTF-8, damaged, malformed, without rows, or of another kind.
    """
    where = f"{field}={path!r}"
    kind = format_of(path)
    if kind is None:
        known = ", ".join(FORMATS)
        raise ValueError(f"{where}: expected a file name that ends in one of {known} (all but {PARQUET} also {PACKED})")
    try:
        with _opened(path, where) as file:
            kind = PARQUET if _beginning(file).startswith(_PARQUET_MARK) else kind
            records = list(islice(_records(path, where, kind, file), limit))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{where}: not a whole gzip file ({error}); fetch it again") from error
    except OSError as error:
        remedy = "download it first" if "://" in path else "give the path of a file"
        raise ValueError(f"{where}: cannot be read ({error.strerror}); {remedy}") from error
    if not records:
        raise ValueError(f"{where}: has no rows; expected at least one")
    return records


def place_of(path: str, number: int, line: int | None) -> str:
    """How errors call row ``number`` (from 1, without a header) of a file."""
    return f"{path}, row {number}" if line is None else f"{path}, row {number} (line {line})"


def _opened(path: str, where: str) -> BinaryIO:
    """A file, unpacked while it is read."""
    with Path(path).open("rb") as file:
        beginning = _beginning(file)
    if beginning.startswith(POINTER):
        raise ValueError(f"{where}: a placeholder of git-lfs, not the file itself; run `git lfs pull` there")
    is_packed = path.lower().endswith(PACKED) or beginning.startswith(_GZIP_MARK)
    return cast("BinaryIO", gzip.open(path)) if is_packed else Path(path).open("rb")


def _beginning(file: BinaryIO) -> bytes:
    found = file.read(len(POINTER))
    file.seek(0)
    return found


def _records(path: str, where: str, kind: str, file: BinaryIO) -> Iterator[Record]:
    if kind == PARQUET:
        return _parquet_records(file.read(), where)
    if kind == ".jsonl":
        return _jsonl_records(path, where, file)
    text = _text(file.read(), where)
    return _csv_records(path, text) if kind == ".csv" else _json_records(path, where, text)


def _text(content: bytes, where: str, *, start: int = 0) -> str:
    """Text without a byte order mark. ``start``: how many bytes of the file come before it."""
    try:
        return content.decode("utf-8" if start else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 text (byte {start + error.start}); save it as UTF-8") from error


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
    if len(header) == 1 and (sign := next((sign for sign in ";\t|" if sign in header[0]), None)):
        raise ValueError(
            f"{path}, line {line}: the header is one column, {header[0]!r}; save it with commas, not {sign!r}"
        )
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


def _jsonl_records(path: str, where: str, file: BinaryIO) -> Iterator[Record]:
    """An object a line; or, misnamed, a list of objects. One line at a time is in memory."""
    number = place = 0
    for line, content in enumerate(file, start=1):
        text = _text(content, where, start=place)
        place += len(content)
        if not text.strip():
            continue
        if not number and text.lstrip().startswith("["):
            yield from _json_records(path, where, text + _text(file.read(), where, start=place))
            return
        number += 1
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            found = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
            said = f"{place_of(path, number, line)}: not JSON ({found})"
            remedy = "; an object over several lines is read from a name in .json" if text.strip() == "{" else ""
            raise ValueError(f"{said}; write one object a line{remedy}") from error
        yield line, _object(fields, place_of(path, number, line))


def _json_records(path: str, where: str, text: str) -> Iterator[Record]:
    """A list of objects; an object that holds one, or a list for each field; or, misnamed, JSON Lines."""
    if not text.strip():
        return
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data" and text.lstrip()[0] == "{":
            yield from _jsonl_records(path, where, BytesIO(text.encode()))
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


def _parquet_records(content: bytes, where: str) -> Iterator[Record]:
    import pyarrow  # of use to those alone who have such files
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(BytesIO(content)).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ValueError(f"{where}: not a Parquet file, or a damaged one ({reason}); fetch it again") from error
    return ((None, fields) for fields in rows)
