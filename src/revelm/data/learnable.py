"""A user's file, or a data set of the hub, as samples to learn: read, sniffed, encoded and checked row by row."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from revelm.data.rows import Row, read_rows
from revelm.data.sample_ids import Ids, encode_sample, pieces, spells_marks
from revelm.data.shapes import Plain, Sample, is_absent
from revelm.data.sniff import Layout, find_layout, read_sample, selected

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where samples are: ``path``, a file or a reference to the hub.

    ``format``: the shape of its rows; None: as its columns say. ``columns``: our names of the fields to read, each with
    the file's; empty: all under their own names. ``num``: only the first rows. ``max_bad_rows``: how many may be
    unusable; they are left out and logged. ``setting``: what errors call the path.
    """

    path: str
    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    num: int | None = None
    max_bad_rows: int = 0
    setting: str = "data"


def read_source(source: Source) -> tuple[list[Row], Layout]:
    """The rows of ``source``, at least one, and their shape. ValueError for what cannot be read or understood."""
    limit = None if source.num is None else source.num + 1
    rows = read_rows(source.path, field=source.setting, limit=limit)
    if source.num is not None and len(rows) > source.num:
        _LOG.warning("%s: only the first %d rows are read (num: null reads all)", source.path, source.num)
    rows = selected(rows[: source.num], source.columns)
    return rows, find_layout(rows, source.format)


def learnable_ids(source: Source, tokenizer: Any, *, size: int | None, fault: Callable[[Ids], str]) -> Iterator[Ids]:
    """All samples of ``source``, at least one; raw texts in pieces of ``size`` tokens (None: whole), not blank ones.

    One after another, as their ids take more room than the array that is made of them.

    ``fault``: why a sample cannot be learnt, as the end of a sentence; "" when it can. ValueError with file, row and
    field for rows that cannot be used, beyond ``source.max_bad_rows``.
    """
    rows, layout = read_source(source)
    bad: list[ValueError] = []
    read = list(_samples(rows, layout, bad, source.max_bad_rows))
    is_rendered = layout[0].name == "rendered"
    if layout[0].name == "prompt_response":
        is_rendered = spells_marks(tokenizer, [sample for _, sample in read])
    num_found = 0
    cut: list[int] = []
    for row, sample in read:
        try:
            ids = encode_sample(tokenizer, sample, is_rendered=is_rendered)
        except ValueError as error:
            _tolerate(bad, ValueError(f"{row.place}: {error}"), source.max_bad_rows)
            continue
        parts = pieces(ids, size) if size is not None and isinstance(sample, Plain) else [ids]
        if reason := next((reason for part in parts if (reason := fault(part))), ""):
            _tolerate(bad, ValueError(f"{row.place} {reason}"), source.max_bad_rows)
            continue
        cut += [len(parts)] if len(parts) > 1 else []
        num_found += len(parts)
        yield from parts
    if bad:
        _LOG.warning("%s: %d of %d rows are left out; the first: %s", source.path, len(bad), len(rows), bad[0])
    if cut:
        _LOG.warning("%s: %d texts are longer than %d tokens: %d pieces", source.path, len(cut), size, sum(cut))
    if not num_found:
        raise ValueError(f"{source.setting}={source.path!r}: has no rows to learn from; expected at least one")


def _samples(rows: Sequence[Row], layout: Layout, bad: list[ValueError], limit: int) -> Iterator[tuple[Row, Sample]]:
    """What rows say, but for blank texts and for those that are ``bad``, which get longer."""
    shape, fields = layout
    for row in rows:
        if shape.name == "text" and _is_blank(row, fields[0]):
            continue
        try:
            yield row, read_sample(row, layout)
        except ValueError as error:
            _tolerate(bad, error, limit)


def _tolerate(bad: list[ValueError], error: ValueError, limit: int) -> None:
    bad.append(error)
    if len(bad) > limit:
        raise error


def _is_blank(row: Row, field: str) -> bool:
    value = row.get(field)
    return is_absent(row, field) or (isinstance(value, str) and not value.strip())
