"""Where a response first contains one of its stop strings."""

from collections.abc import Sequence
from typing import Any


def stop_string_end(tokenizer: Any, ids: Sequence[int], stop_strings: Sequence[str]) -> int | None:
    """The smallest number of leading tokens whose text contains a stop string, or None.

    ``ids`` are the response tokens decided so far without a gap. The text is that of the completion: special tokens
    have none.
    """
    text = tokenizer.decode(ids, skip_special_tokens=True)
    if not any(stop in text for stop in stop_strings):
        return None
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        part = tokenizer.decode(ids[:middle], skip_special_tokens=True)
        low, high = (low, middle) if any(stop in part for stop in stop_strings) else (middle + 1, high)
    return low
