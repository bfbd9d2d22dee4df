"""Which shape the columns of a user's file have, and what its rows say.

The first shape of ``SHAPES`` whose columns a file has is the file's: a chat before a question, a question before a bare
text. A column counts where at least one row has a value in it. All rows are of that shape; only chats may be
``messages`` in one row and ``prompt`` and ``completion`` in another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

from revelm.core.validation import choices
from revelm.data import shapes
from revelm.data.rows import Row
from revelm.data.shapes import Fields, Sample, Shape, is_absent

SHAPES = (
    Shape("messages", (("messages",), ("conversations",)), shapes.read_messages),
    Shape("prompt_completion", (("prompt", "completion"),), shapes.read_prompt_completion, (("prompt", "response"),)),
    Shape("prompt_response", (("prompt", "response"),), shapes.read_prompt_response),
    Shape("chosen", (("chosen", "rejected"),), shapes.refuse_preferences),
    Shape("code", (("test_method",), ("test_list",), ("test_input", "test_output")), shapes.read_code),
    Shape("verl", (("prompt", "reward_model"),), shapes.read_verl),
    Shape("question_answer", tuple(product(shapes.QUESTIONS, shapes.ANSWERS)), shapes.read_question_answer),
    Shape("instruction", (("instruction", "output"), ("instruction", "response")), shapes.read_instruction),
    Shape("text", (("text",),), shapes.read_text),
)
NAMED = {shape.name: shape for shape in SHAPES} | {
    "chosen": Shape("chosen", (("prompt", "chosen"), ("chosen",)), shapes.read_chosen),
    "rendered": Shape("rendered", (("prompt", "response"),), shapes.read_rendered),
}
CHATS = SHAPES[:2]  # shapes that may change from row to row
Layout = tuple[Shape, Fields]


def selected(rows: Sequence[Row], columns: Mapping[str, str]) -> list[Row]:
    """``rows`` with the fields of ``columns`` alone: the name they get, and the one they have in the file (``a.b``).

    ValueError for a column that no row has. Without ``columns`` the rows as they are.
    """
    for name in columns.values():
        if not any(row.has(name) for row in rows):
            raise ValueError(
                f"{rows[0].path}: columns: no row has the field {name!r}; found: {_listed(_columns(rows))}"
            )
    return [
        replace(row, fields={new: row.get(old) for new, old in columns.items()}) if columns else row for row in rows
    ]


def find_layout(rows: Sequence[Row], name: str | None = None) -> Layout:
    """The shape of ``rows``, at least one, and their columns that make it; ``name``: of the shape, where it is told.

    ValueError with the columns that are there and those that are understood.
    """
    found = _columns(rows)
    if name is not None and name not in NAMED:
        raise ValueError(f"format: {name!r} is not known{choices(name, NAMED)}")
    for shape in SHAPES if name is None else (NAMED[name],):
        for fields in shape.choices if name is None else (*shape.choices, *shape.also):
            if set(fields) <= set(found):
                return shape, fields
    wanted = SHAPES if name is None else (NAMED[name],)
    known = "; ".join(f"{shape.name}: {_alternatives(shape, is_told=name is not None)}" for shape in wanted)
    raise ValueError(
        f"{rows[0].path}: has the columns {_listed(found)}, and none of the sets of columns that are understood "
        f"({known}); rename columns with columns: {{OURS: THEIRS}}, or name the shape with format"
    )


def read_sample(row: Row, layout: Layout) -> Sample:
    """What ``row`` says. ValueError, naming file, row and field, where it is not of the file's shape."""
    shape, fields = layout
    missing = next((field for field in fields if is_absent(row, field)), None)
    if shape.name == "prompt_completion" and str(row.get("label")).lower() == "false":  # of KTO: a bad answer
        raise row.error("label", "is false: an answer to keep from; remove the row, or say with columns what is read")
    if missing is None:
        return shape.read(row, fields)
    for other in CHATS if shape in CHATS else ():
        for own in other.choices:
            if not any(is_absent(row, field) for field in own):
                return other.read(row, own)
    has = _listed([name for name in row.fields if not is_absent(row, name)])
    raise row.error(missing, f"missing or null, and rows of this file are {shape.name}; this one has: {has}")


def _columns(rows: Sequence[Row]) -> list[str]:
    """Columns in which at least one row has a value, in the order they come."""
    found: dict[str, None] = {}
    for row in rows:
        found.update((name, None) for name in row.fields if name not in found and not is_absent(row, name))
    return list(found)


def _alternatives(shape: Shape, *, is_told: bool) -> str:
    sets = (*shape.choices, *(shape.also if is_told else ()))
    if shape.name == "question_answer":
        return f"{' or '.join(shapes.QUESTIONS)}, with {' or '.join(shapes.ANSWERS)}"
    return " or ".join(" + ".join(fields) for fields in sets)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
