"""Files that git left out: a clone without git-lfs holds three lines of text where large files should be."""

from pathlib import Path

POINTER = b"version https://git-lfs"


def refuse_pointer(file: Path) -> None:
    """ValueError when ``file`` is such a placeholder; OSError when it cannot be read."""
    with file.open("rb") as source:
        if source.read(len(POINTER)) == POINTER:
            raise ValueError(f"{file} is a placeholder of git-lfs, not the file itself; run `git lfs pull` there")
