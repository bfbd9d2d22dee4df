"""Where the answers stand in a row of a file that is to be scored."""

from collections.abc import Sequence
from dataclasses import replace

from revelm.core.types import Completion
from revelm.data.rows import Row
from revelm.tasks.problem_files import find_fields

PREDICTIONS = ("prediction", "completion", "response")
LISTS = {"predictions": "prediction", "completions": "completion", "responses": "response"}


def said(row: Row, field: str | None = None) -> Completion:
    """The answer in ``field``, or in the first of ``PREDICTIONS``: any text, also an empty one, or a number.

    ValueError, with row and field, where there is none.
    """
    names = PREDICTIONS if field is None else (field,)
    (field,) = find_fields(row, [(name,) for name in names], remedy="; name the field with prediction_field=NAME")
    _check(row, field, row.get(field))
    value = row.get(field)
    return Completion(value if isinstance(value, str) else row.number_or_text(field), 0, 0, "stop")


def answer_rows(row: Row, field: str | None = None) -> Sequence[Row] | None:
    """The row once for each of its answers, where it has a list of them: in ``field``, or else in the first of
    ``PREDICTIONS`` and ``LISTS``. None where it has one answer, or none at all.

    ValueError, with row and field, for a list of nothing, and for what is neither text nor a number in it.
    """
    names = (*PREDICTIONS, *LISTS) if field is None else (field,)
    found = next((name for name in names if row.has(name)), None)
    answers = None if found is None else row.get(found)
    if found is None or not isinstance(answers, list):
        return None
    if not answers:
        raise row.error(found, "a list without answers; give one, or remove the row")
    for i, answer in enumerate(answers):
        _check(row, f"{found}[{i}]", answer)
    name = LISTS.get(found, found) if field is None else found
    kept = {other: value for other, value in row.fields.items() if other != found}
    return [replace(row, fields={**kept, name: answer}) for answer in answers]


def _check(row: Row, field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise row.error(field, f"expected text, not {value!r:.80}; an answer that is missing is an empty text")
