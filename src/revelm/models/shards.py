"""Tensors in safetensors files, one or many: read from their headers first, streamed into place afterwards.

Everything that can be wrong with the files is found from the headers (8 bytes of length, then JSON; the safetensors
format), before any memory is spent. Data is read straight into the destination: a mapped file would count twice while
its pages are in use.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from revelm.core.git_lfs import refuse_pointer

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
STORED_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
QUANTISED = {"F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "I4", "U4", "F4"}
CHUNK_BYTES = 1 << 24
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
SHARD = re.compile(r"model.*-of-.*\.safetensors")


@dataclass(frozen=True)
class Stored:
    """One tensor on disk: bytes ``begin`` to ``end`` of ``file``."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int

    def read_into(self, target: Tensor) -> None:
        """Fill ``target``, a contiguous tensor of the same shape on any device, converting its dtype if it differs."""
        with self.file.open("rb", buffering=0) as source:
            source.seek(self.begin)
            if target.dtype == self.dtype and target.device.type == "cpu":
                _read(source, target.view(-1).view(torch.uint8), self.file)
                return
            flat, step = target.view(-1), CHUNK_BYTES // self.dtype.itemsize
            chunk = torch.empty(min(step, flat.numel()), dtype=self.dtype)
            for first in range(0, flat.numel(), step):
                part = flat[first : first + step]
                piece = chunk[: part.numel()]
                _read(source, piece.view(torch.uint8), self.file)
                part.copy_(piece)

    def has_bytes_of(self, other: "Stored") -> bool:
        """Whether two tensors on disk are the same, compared chunk by chunk."""
        if self.dtype != other.dtype or self.shape != other.shape:
            return False
        with self.file.open("rb") as one, other.file.open("rb") as two:
            one.seek(self.begin)
            two.seek(other.begin)
            for left in range(self.end - self.begin, 0, -CHUNK_BYTES):
                size = min(left, CHUNK_BYTES)
                if one.read(size) != two.read(size):
                    return False
        return True


def _read(source: Any, target: Tensor, file: Path) -> None:
    """Fill ``target`` (uint8) from an unbuffered file."""
    view, done = memoryview(target.numpy()), 0
    while done < len(view):
        count = source.readinto(view[done : done + (1 << 30)])
        if not count:
            raise ValueError(f"{file} ended while it was read; something is changing the checkpoint")
        done += count


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of the checkpoint in ``folder`` by official name.

    Raises ValueError when a shard or the index is missing, when a file is damaged or no safetensors file, when the
    index and the shards disagree, and for quantised weights.
    """
    index = folder / INDEX
    homes = read_index(index) if index.is_file() else None
    names = sorted(set(homes.values())) if homes is not None else [WEIGHTS]
    absent = [name for name in names if not (folder / name).is_file()]
    if absent and homes is None:
        raise ValueError(_no_weights(folder))
    if absent:
        raise ValueError(f"{index} names {absent[0]}, which is missing; the download is incomplete")
    found: dict[str, Stored] = {}
    for name in names:
        held = _header(folder / name)
        listed = set(held) if homes is None else {tensor for tensor, home in homes.items() if home == name}
        lost = sorted(listed - set(held))
        if lost:
            where = f"{folder / name} lacks {lost[0]!r}"
            raise ValueError(f"{where}, which {INDEX} puts there; the checkpoint is incomplete")
        found |= {tensor: held[tensor] for tensor in sorted(listed)}
    return found


def _no_weights(folder: Path) -> str:
    if any(SHARD.fullmatch(file.name) for file in folder.glob("model*.safetensors")):
        return f"{folder / INDEX} is missing, although the weights are in several files; copy it from the release"
    old = next((p.name for p in sorted(folder.glob("*.bin"))), None) or next(
        (p.name for p in sorted(folder.glob("*.pt*"))), None
    )
    if old is not None:
        return f"{folder} has {old} but no {WEIGHTS}; only safetensors are read: save the model again in that format"
    return f"{folder / WEIGHTS} is missing: not a checkpoint directory, or one that was only half written"


def read_index(file: Path) -> dict[str, str]:
    """Shard by official name of the tensor. ValueError when ``file`` is not an index of files beside it."""
    refuse_pointer(file)
    try:
        homes = dict(json.loads(file.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is not an index of tensor names; the checkpoint is damaged") from error
    strange = [str(home) for home in homes.values() if not isinstance(home, str) or Path(home).name != home]
    if strange:
        raise ValueError(f"{file} names the shard {strange[0]!r}, expected the name of a file beside it")
    return homes


def _header(file: Path) -> dict[str, Stored]:
    """Tensors of one file from its header, checked against the file's size."""
    refuse_pointer(file)
    size, damaged = file.stat().st_size, f"{file} is damaged or truncated"
    with file.open("rb") as source:
        length = int.from_bytes(source.read(8), "little")
        if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            raise ValueError(f"{damaged} (no safetensors header); copy the checkpoint again")
        header = source.read(length)
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        found = {name: _stored(file, 8 + length, entry) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ValueError) and str(error).startswith(str(file)):
            raise
        raise ValueError(f"{damaged} (its header is not readable); copy the checkpoint again") from error
    end = 8 + length
    for name, entry in sorted(found.items(), key=lambda item: (item[1].begin, item[1].end)):
        count = math.prod(entry.shape) * entry.dtype.itemsize
        if not end <= entry.begin <= entry.end <= size or entry.end - entry.begin != count:
            place = f"{name} begins at byte {entry.begin} and ends at byte {entry.end} of {size}"
            raise ValueError(f"{damaged} ({place}, its shape needs {count}); copy the checkpoint again")
        end = entry.end
    return found


def _stored(file: Path, base: int, entry: Mapping[str, Any]) -> Stored:
    """One entry of a header. ValueError for numbers that are not whole, or that are negative."""
    name, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if name not in STORED_DTYPES:
        what = "quantised weights" if name in QUANTISED else "numbers of an unknown kind"
        known = ", ".join(STORED_DTYPES)
        raise ValueError(f"{file} holds {what} ({name}), which are not supported; allowed: {known}")
    if not isinstance(shape, list) or any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise ValueError("sizes and places are whole numbers")
    return Stored(file, STORED_DTYPES[name], tuple(shape), base + begin, base + end)
