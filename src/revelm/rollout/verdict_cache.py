"""Verdicts that were given once, by what was asked: the same question is not asked, and not paid for, again.

On disk it is one JSON object a line, appended as verdicts arrive. Several processes may share the file; a line that a
crash cut off is passed over.
"""

import json
import os
from collections import OrderedDict
from math import isfinite
from pathlib import Path

MAX_ENTRIES = 1_000_000


class VerdictCache:
    """Keys to verdicts, the least recently used ones forgotten beyond ``MAX_ENTRIES``. Used by one thread."""

    def __init__(self, path: str | None) -> None:
        """``path``: the file to go on with, created when needed; None keeps verdicts in memory alone.

        ValueError for one that cannot be read or written: found out now, not at the first verdict.
        """
        self._file = None if path is None else Path(path)
        self._verdicts: OrderedDict[str, float] = OrderedDict()
        self._is_torn = False
        if self._file is not None:
            self._load(_opened(self._file))

    def __len__(self) -> int:
        return len(self._verdicts)

    def find(self, key: str) -> float | None:
        """The verdict, None where there is none."""
        if key in self._verdicts:
            self._verdicts.move_to_end(key)
        return self._verdicts.get(key)

    def add(self, key: str, verdict: float) -> None:
        """Remember a verdict. OSError when the file cannot be written."""
        self._keep(key, verdict)
        if self._file is None:
            return
        line = json.dumps({"key": key, "verdict": verdict}) + "\n"
        with self._file.open("a", encoding="utf-8") as out:
            out.write("\n" + line if self._is_torn else line)
        self._is_torn = False

    def _load(self, data: bytes) -> None:
        self._is_torn = bool(data) and not data.endswith(b"\n")
        for line in data.split(b"\n"):
            try:
                entry = json.loads(line)
                key, verdict = str(entry["key"]), float(entry["verdict"])
            except (ValueError, LookupError, TypeError):
                continue
            if isfinite(verdict):
                self._keep(key, verdict)

    def _keep(self, key: str, verdict: float) -> None:
        self._verdicts[key] = verdict
        self._verdicts.move_to_end(key)
        if len(self._verdicts) > MAX_ENTRIES:
            self._verdicts.popitem(last=False)


def check_cache(path: str | None) -> None:
    """ValueError for a file that could not be created or added to, as far as that is known without trying."""
    if path is None:
        return
    file = Path(path)
    nearest = next(place for place in (file, *file.absolute().parents) if place.exists())
    if file.is_dir() or (nearest != file and not nearest.is_dir()) or not os.access(nearest, os.W_OK):
        raise ValueError(_refusal(file, f"{nearest} stands in the way"))


def _refusal(file: Path, reason: object) -> str:
    return f"cache: {file} cannot be written ({reason}); name a file that can, or leave it out"


def _opened(file: Path) -> bytes:
    """What ``file`` holds, as one that can be appended to."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a+b") as opened:
            opened.seek(0)
            return opened.read()
    except OSError as error:
        raise ValueError(_refusal(file, error)) from error
