"""Digests by which a resume knows weights and problems again.

Of weights every tensor counts with a piece from its middle: training that spares some of them changes others, and 16 GB
are not read twice. What else lies beside them (tokenizer, chat template, configuration) is read whole.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from revelm.core.types import COLUMNS, Problem
from revelm.tasks.task import Task

WEIGHTS = ".safetensors"
READ_WHOLE = (".json", ".jinja", ".txt", ".model")
PIECE = 4096
"""Bytes of each tensor, and the length of a file's middle that counts where it has no table of tensors."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def digest_of_weights(folder: Path) -> str:
    """Of the checkpoint in ``folder``: its files by name, not where it is."""
    return _digest(_pieces(folder))


def digest_of_problems(task: Task, problems: Sequence[Problem]) -> str:
    """Of ``problems`` as they are asked and judged; columns that neither needs do not count."""
    known = [{name: value for name, value in one.info.items() if name != COLUMNS} for one in problems]
    pairs = zip(problems, known, strict=True)
    return _digest(json.dumps([one.id, task.prompt(one), one.reference, spelt(info)]).encode() for one, info in pairs)


def spelt(value: Any) -> str:
    """``value`` as text that is the same in every process: sets have an order, and objects no address."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(sorted(f"{spelt(key)}: {spelt(item)}" for key, item in value.items())) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(spelt, value))) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(spelt, value)) + "]"
    return _ADDRESS.sub("", repr(value))


def _pieces(folder: Path) -> Iterator[bytes]:
    for file in sorted(folder.iterdir()):
        if file.suffix == WEIGHTS:
            yield f"{file.name} {file.stat().st_size}".encode()
            with file.open("rb") as content:
                yield from _tensors(content, file.stat().st_size)
        elif file.suffix in READ_WHOLE:
            yield file.name.encode()
            yield file.read_bytes()


def _tensors(content: BinaryIO, size: int) -> Iterator[bytes]:
    """The table of a safetensors file, and a piece of each tensor; of a file that is none, its middle."""
    length = int.from_bytes(content.read(8), "little")
    places = [(0, size)]
    if 0 < length <= size - 8:
        table = content.read(length)
        yield table
        places = [(8 + length + begin, 8 + length + end) for begin, end in _places(table)]
    for begin, end in places:
        content.seek(max(begin, (begin + end - PIECE) // 2))
        yield content.read(min(PIECE, end - begin))


def _places(table: bytes) -> list[tuple[int, int]]:
    """First and last byte of each tensor behind the table."""
    found = json.loads(table)
    return sorted(tuple(one["data_offsets"]) for name, one in found.items() if name != "__metadata__")


def _digest(parts: Iterator[bytes]) -> str:
    found = blake2b(digest_size=16)
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()
