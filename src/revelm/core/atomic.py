"""Files and directories that appear complete or not at all, even when the process is killed or the disk is full.

Everything is written beside its final place, flushed to the disk, then renamed over it (POSIX rename is atomic
within one file system); the parent folder is flushed last, so that the new name itself survives a power cut.
"""

import errno
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path``; parent folders are created.

    Raises OSError, with the old file untouched and no temporary file left, when the write fails (disk full, rights).
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        raise _explain(error, target) from error
    _sync(target.parent)


def append_text(path: str | Path, text: str) -> None:
    """Append ``text`` (UTF-8) to the file ``path``, all of it or nothing.

    Raises OSError, with the file as it was, when the write fails (disk full, rights).
    """
    target = Path(path)
    size = target.stat().st_size if target.exists() else 0
    try:
        with target.open("ab") as file:
            file.write(text.encode("utf-8"))
    except BaseException as error:
        with suppress(OSError):
            os.truncate(target, size)
        raise _explain(error, target) from error


def write_json_atomic(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``; errors as in ``write_text_atomic``, before anything is touched.

    Numbers that are not finite, which JSON does not have, are written as null.
    """
    write_text_atomic(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """``value`` with None for every number in it that is not finite."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def replace_directory(temporary: str | Path, final: str | Path) -> None:
    """Make the complete directory ``temporary`` appear as ``final``; both lie on one file system.

    All files below ``temporary`` are flushed to the disk first; if that fails, ``temporary`` is removed, ``final``
    stays as it was and OSError is raised. A directory already at ``final`` is set aside as ``.<name>.old`` and
    removed at the end: a kill between the two renames leaves the old one, complete, under that name.
    """
    source, target = Path(temporary), Path(final)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.old")
    try:
        for folder, _, names in os.walk(source):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
            target.rename(aside)
        source.rename(target)
    except BaseException as error:
        shutil.rmtree(source, ignore_errors=True)
        if aside.exists() and not target.exists():
            aside.rename(target)
        raise _explain(error, target) from error
    _sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def atomic_directory(final: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside ``final`` to fill; it becomes ``final`` when the block ends without an error.

    On any error the folder is removed and what was at ``final`` stays. Folders left by a killed process
    (``.<name>.tmp``) are cleared by the next attempt; no reader takes their name for a finished directory.
    """
    target = Path(final)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _explain(error, target) from error
    replace_directory(temporary, target)


@contextmanager
def atomic_files(folder: str | Path, *, last: str, obsolete: Iterable[str] = ()) -> Iterator[Path]:
    """Yield an empty folder to fill; its files take their places in ``folder`` when the block ends without an error.

    What else is in ``folder`` stays, but for the files named in ``obsolete``. ``last`` is a file that the block must
    write, and without which readers take ``folder`` for unfinished: a kill between the renames leaves it absent, never
    new files mixed with old ones. On any error ``folder`` is as before; for a while the disk holds both versions.
    """
    target = Path(folder)
    temporary, is_new = target / ".saving.tmp", not target.exists()
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_new:
            with suppress(OSError):
                target.rmdir()
        raise _explain(error, target) from error
    for name in (last, *obsolete):
        (target / name).unlink(missing_ok=True)
    for file in sorted(temporary.iterdir(), key=lambda file: file.name == last):
        if file.is_dir():
            shutil.rmtree(target / file.name, ignore_errors=True)
        file.replace(target / file.name)
    temporary.rmdir()
    _sync(target)


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(error: BaseException, target: Path) -> BaseException:
    """The same error, with the name of the file; for a full disk it says what happened to ``target``."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = "disk full: nothing was written, what was there before is untouched; free some space and run again"
        return OSError(error.errno, reason, str(target))
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        return OSError(error.errno, error.strerror, str(target))
    return error
