"""Rows of data sets on the Hugging Face hub, read by ``datasets``: fetched once, then from its local cache.

A reference is ``owner/name``, followed where needed by ``@revision``, ``:config`` and ``[split]``, in this order:
``openai/gsm8k:main[test]``. Without a split the data set's only one is meant. A split may be a part of one, in the
notation of ``datasets``: ``[train[:1000]]``, ``[train[10%:]]``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_REFERENCE = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(?:@(?P<revision>[^\s:\[\]]+))?(?::(?P<config>[^\s\[\]]+))?(?:\[(?P<split>[\w.-]+(?:\[[\d:%-]+\])?)\])?"
)


@dataclass(frozen=True)
class HubReference:
    """A data set, its revision (None: the newest), configuration (None: its only one) and split (None: likewise)."""

    name: str
    revision: str | None
    config: str | None
    split: str | None


def parse_reference(text: str) -> HubReference | None:
    """What a reference names; None where ``text`` cannot be one, such as a path with two slashes."""
    found = _REFERENCE.fullmatch(text)
    return None if found is None else HubReference(**found.groupdict())


def hub_rows(text: str, *, field: str = "data") -> tuple[dict[str, Any], ...]:
    """The rows of the split that ``text`` names; remembered by this process, at least one.

    Raises ValueError, which calls the reference ``field``, for a data set that the hub does not have or does not give,
    cannot be read, or has several splits of which none is named; and where the hub cannot be reached.
    """
    reference = parse_reference(text)
    if reference is None:
        raise ValueError(f"{field}={text!r}: expected owner/name, with @revision, :config and [split] where needed")
    try:
        splits = _fetch(reference)
    except Exception as error:  # a boundary: the network, and files of others
        raise ValueError(f"{field}={text!r}: {_reason(error)}, or give {field}=FILE, a copy of its rows") from error
    if len(splits) > 1:
        name = text.partition("[")[0]
        raise ValueError(
            f"{field}={text!r}: has the splits {', '.join(splits)}; name one, as {name}[{next(iter(splits))}]"
        )
    (rows,) = splits.values()
    if not rows:
        raise ValueError(f"{field}={text!r}: has no rows; expected at least one")
    return rows


@lru_cache(maxsize=16)
def _fetch(reference: HubReference) -> Mapping[str, tuple[dict[str, Any], ...]]:
    """The rows of the split, or of all splits, by name."""
    from datasets import Dataset, load_dataset

    found = load_dataset(reference.name, reference.config, split=reference.split, revision=reference.revision)
    splits = {str(reference.split): found} if isinstance(found, Dataset) else dict(found)
    return {str(name): tuple(split.to_list()) for name, split in splits.items()}


def _reason(error: Exception) -> str:
    """Why rows could not be had, and what to do, in a clause."""
    from datasets.exceptions import DatasetNotFoundError

    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
    if isinstance(error, DatasetNotFoundError):
        if "gated" in said:
            return "on the hub it is gated: accept its terms on its page and log in with `hf auth login`"
        return f"no such file, and no such data set on the hub ({said}); check the name, or log in with `hf auth login`"
    if isinstance(error, ConnectionError):
        return "is not in the local cache, and the hub cannot be reached from here; connect to it"
    return f"could not be read from the hub ({said}); check the name and its parts"
