"""Where the answer stands in a row of a file that is to be scored."""

from revelm.core.types import Completion
from revelm.data.rows import Row
from revelm.tasks.problem_files import find_fields

PREDICTIONS = ("prediction", "completion", "response")


def said(row: Row, field: str | None = None) -> Completion:
    """The answer in ``field``, or in the first of ``PREDICTIONS``: any text, also an empty one, or a number.

    ValueError, with row and field, where there is none.
    """
    names = PREDICTIONS if field is None else (field,)
    (field,) = find_fields(row, [(name,) for name in names], remedy="; name the field with prediction_field=NAME")
    value = row.get(field)
    if not isinstance(value, str):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number:
            raise row.error(field, f"expected text, not {value!r:.80}; an answer that is missing is an empty text")
        value = row.number_or_text(field)
    return Completion(value, 0, 0, "stop")
