"""Problems from rows: which fields a row has, and what its problem is called.

Rows are those of `revelm.data.rows`; the tasks check what their text means.
"""

from collections.abc import Sequence

from revelm.data.rows import Row


def find_fields(row: Row, choices: Sequence[tuple[str, ...]], *, remedy: str = "") -> tuple[str, ...]:
    """The first of the ``choices`` of which ``row`` has every field.

    Raises ValueError, which ends in the ``remedy``, where it has none.
    """
    for fields in choices:
        if all(row.has(field) for field in fields):
            return fields
    wanted = " or ".join(", ".join(fields) for fields in choices)
    found = ", ".join(sorted(map(str, row.fields))) or "none"
    raise ValueError(f"{row.place}: expected fields {wanted}; found: {found}{remedy}")


def row_ids(rows: Sequence[Row], task: str, *, field: str | None = None) -> tuple[str, ...]:
    """An id for each row: ``task``, the file's name and the ``field`` (None: the number of the row).

    Files of one name in several folders are told apart by their paths.

    Raises ValueError for an id that comes twice: answers are drawn by the problem's id, so two would share them.
    """
    files = {row.path: row.name for row in rows}
    if len(set(files.values())) < len(files):
        files = {path: path for path in files}
    ids: dict[str, Row] = {}
    for row in rows:
        own = str(row.number) if field is None else row.number_or_text(field)
        name = f"{task}:{files[row.path]}:{own}"
        if name in ids:
            remedy = "give each row its own, or set id_field to null to number the rows"
            other = ids[name]
            twin = f"row {other.number}" if other.path == row.path else other.place
            raise row.error(field or "id", f"{own!r} is also the id of {twin}; {remedy}")
        ids[name] = row
    return tuple(ids)
