"""Rows of users' files and of data sets on the hub: fields, with errors that name the file, the row and the field.

The formats are those of ``revelm.data.record_files``, the notation for the hub that of ``revelm.data.hub_records``. A
field inside another one is named with a dot, ``reward_model.ground_truth``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from math import isfinite, isnan
from pathlib import Path

from revelm.data.file_sets import files_of
from revelm.data.hub_records import hub_rows, parse_reference
from revelm.data.record_files import FORMATS, format_of, place_of, read_records

SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Row:
    """One row: where it stands (``number`` counts rows from 1, without a header) and its fields.

    ``line``: None where the format has no lines.
    """

    path: str
    number: int
    line: int | None
    fields: Mapping[str, object]

    @property
    def name(self) -> str:
        """The file's name without folder and suffixes, or the data set's, its configuration and split: for ids."""
        if format_of(self.path) is None and (found := parse_reference(self.path)):
            parts = (found.name.rpartition("/")[2], found.config, found.split)
            return ".".join(part for part in parts if part)
        return Path(self.path).name.removesuffix(".gz").rpartition(".")[0]

    @property
    def place(self) -> str:
        """The file and the row, as errors say it."""
        return place_of(self.path, self.number, self.line)

    def error(self, field: str, message: str) -> ValueError:
        """An error about one field of this row, to be raised by the caller."""
        return ValueError(f"{self.place}, field {field!r}: {message}")

    def get(self, field: str) -> object:
        """The value of a field, which may be inside others (``a.b``); None where it is missing."""
        if field in self.fields:
            return self.fields[field]
        value: object = self.fields
        for part in field.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def has(self, field: str) -> bool:
        """Whether the row has the field, be its value null."""
        outer, dot, inner = field.rpartition(".")
        found = self.get(outer) if dot else None
        return field in self.fields or (isinstance(found, Mapping) and inner in found)

    def text(self, field: str) -> str:
        """The field as text, stripped.

        Raises ValueError where it is missing, empty, neither text nor a number, or no text that can be written.
        """
        if not self.has(field):
            found = ", ".join(sorted(map(str, self.fields))) or "none"
            raise self.error(field, f"missing; the row has: {found}. Add the field or rename a column")
        value = self.get(field)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.error(field, f"expected text, not {shortened(value)}")
        text = str(value).strip()
        if not text:
            raise self.error(field, "empty; fill it in or remove the row")
        if half := SURROGATE.search(text):
            raise self.error(field, f"character {half.start() + 1} is half of one (a lone surrogate); correct it")
        return text

    def optional_text(self, field: str) -> str:
        """The field as text; "" where it is missing, empty, null or nan. Raises ValueError as ``text`` does."""
        value = self.get(field)
        is_absent = value is None or (isinstance(value, float) and isnan(value)) or not str(value).strip()
        return "" if is_absent else self.text(field)

    def number_or_text(self, field: str) -> str:
        """The field as text where it may also be a decimal number; whole ones lose their point (27.0 is "27").

        A list is what it holds, joined by commas. Raises ValueError as ``text`` does, and for nan and infinity.
        """
        value = self.get(field)
        if isinstance(value, list) and value:
            parts = [replace(self, fields={field: part}).number_or_text(field) for part in value]
            return ", ".join(parts)
        if isinstance(value, float | Decimal):
            if not isfinite(value):
                raise self.error(field, f"{value} is no answer; correct it or remove the row")
            return decimal_text(value)
        return self.text(field)

    def texts(self, field: str) -> tuple[str, ...]:
        """The field as a list of texts. Raises ValueError where it is none, or one of them is not text or empty."""
        value = self.get(field)
        if self.has(field) and not isinstance(value, list):
            raise self.error(field, f"expected a list of texts, not {shortened(value)}")
        items = value if isinstance(value, list) else [self.text(field)]
        return tuple(replace(self, fields={field: item}).number_or_text(field) for item in items)


def read_rows(path: str, *, field: str = "data", limit: int | None = None) -> list[Row]:
    """The rows of a file, of several, or of a data set on the hub (``owner/name:config[split]``), at least one.

    ``limit``: only the first ones. Several files are a folder or a pattern (``revelm.data.file_sets``); what exists as
    a file is read as one. Raises ValueError, which calls the path ``field``, for what cannot be read, with the remedy.
    """
    rows: list[Row] = []
    for file in files_of(path, field=field):
        left = None if limit is None else limit - len(rows)
        if left == 0:
            break
        records = enumerate(read_records(file, field=field, limit=left), start=1)
        rows += [Row(file, number, line, fields) for number, (line, fields) in records]
    if rows:
        return rows
    if parse_reference(path) is not None:
        found = hub_rows(path, field=field)[:limit]
        return [Row(path, number, None, fields) for number, fields in enumerate(found, start=1)]
    raise ValueError(
        f"{field}={path!r}: expected a file name that ends in one of {', '.join(FORMATS)}, a folder or pattern of such "
        "files, or a data set of the hub, owner/name:config[split]"
    )


def decimal_text(value: float | Decimal) -> str:
    """A finite decimal number as it is written; a whole one without its point."""
    if value == int(value):
        return str(int(value))
    return repr(value) if isinstance(value, float) else f"{value:f}".rstrip("0")


def shortened(value: object) -> str:
    """A value as errors show it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
