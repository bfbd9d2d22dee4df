"""Which files a path means: one, those of a folder, or those that a pattern such as ``shards/*.parquet`` finds.

Several files are one set of rows, in the order of their names. Nothing is mixed up in silence: the files of a folder
are of one format, and where their names say that they are different splits, a pattern has to choose.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from revelm.data.record_files import FORMATS, format_of

_PATTERN = re.compile("[*?]")
_SPLITS = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation"}
_SPLIT = re.compile(rf"(?:.*[-_.])?({'|'.join(_SPLITS)}|dev|eval)(?:[-_.].*)?", re.IGNORECASE)


def files_of(path: str, *, field: str = "data") -> Sequence[str]:
    """The files that ``path`` means, in order; none where it can only be a data set of the hub, or nothing at all.

    ``~`` is the home directory. Raises ValueError, which calls the path ``field``, for a pattern that finds nothing and
    a folder without files of data, or with several formats or splits.
    """
    given = str(Path(path).expanduser()) if path.startswith("~/") and format_of(path) else path
    place = Path(given)
    if given and place.is_dir():
        return _files_in(place, f"{field}={path!r}")
    if given and place.exists():
        return [given]
    if _PATTERN.search(given):
        return _matches(given, f"{field}={path!r}")
    return [] if format_of(given) is None else [given]


def _matches(pattern: str, where: str) -> list[str]:
    """The files of data that a pattern finds."""
    anchor = Path(pattern).anchor
    found = sorted(str(file) for file in Path(anchor or ".").glob(pattern.removeprefix(anchor)) if file.is_file())
    if not found:
        raise ValueError(f"{where}: no file fits this pattern, from {Path.cwd()}; correct it")
    return found


def _files_in(folder: Path, where: str) -> list[str]:
    """The files of data in a folder, not in those inside it."""
    if (folder / "state.json").is_file() and any(folder.glob("*.arrow")):
        raise ValueError(f"{where}: was written by save_to_disk of datasets; write it with to_parquet or to_json")
    names = sorted(file.name for file in folder.iterdir() if file.is_file() and format_of(file.name))
    formats = {format_of(name) for name in names}
    splits = {found[1].lower() for name in names if (found := _SPLIT.fullmatch(name))}
    example = f"{folder}/{'train' if 'train' in splits else ''}*{max(formats, key=str) if formats else FORMATS[-1]}"
    if not names:
        inside = ", ".join(sorted(entry.name for entry in folder.iterdir() if entry.is_dir())[:8]) or "none"
        kinds = ", ".join(FORMATS)
        raise ValueError(
            f"{where}: a folder without files in {kinds} (folders inside: {inside}); give one that has some"
        )
    if len(formats) > 1 or len({_SPLITS.get(split, split) for split in splits}) > 1:
        told = ", ".join(names[:6])
        raise ValueError(f"{where}: holds several sets of files ({told}); choose by a pattern, such as {example!r}")
    return [str(folder / name) for name in names]
