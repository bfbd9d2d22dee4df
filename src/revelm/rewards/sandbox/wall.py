"""The walls that Landlock puts around programs: what is left open to them.

Without namespaces it is the same as with: the system's files and Python's, to read, a few devices, a folder to write.
A right to a folder is one to all that is below, and rights can only be given: to leave out the folders that packages
are installed in, what lies beside them is opened piece by piece. Names there can still be listed.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from revelm.rewards.sandbox import landlock
from revelm.rewards.sandbox.visible import DEVICES, package_folders, shown


def outer_wall(folders: list[str], folder: str, *, known: int) -> int:
    """A wall on the machine as it is; ``folders``: what programs may read beside the standard library. OSError."""
    hidden = package_folders()
    paths = [path.resolve() for path in map(Path, folders)]
    openings = [(path, landlock.READ) for path in paths]
    # Imports begin with a look at what there is.
    openings += [(path.parent, landlock.READ_DIR) for path in paths]
    openings += [(path.parent.parent, landlock.READ_DIR) for path in paths if path.name == "__init__.py"]
    for path in shown([]):
        openings += _beside(path.resolve(), hidden)
    return _wall(openings, folder, known=known)


def inner_wall(folder: str, *, known: int) -> int:
    """A wall within a root that holds nothing but what is shown. Raises OSError."""
    return _wall([(Path("/"), landlock.READ)], folder, known=known)


def _wall(openings: Iterable[tuple[Path, int]], folder: str, *, known: int) -> int:
    wall = landlock.new_wall(known)
    for path, rights in openings:
        with suppress(PermissionError, FileNotFoundError):  # what the user cannot see, programs cannot
            landlock.allow(wall, path, rights, known=known)
    for name in DEVICES:
        landlock.allow(wall, Path("/dev") / name, landlock.USE, known=known)
    landlock.allow(wall, Path(folder), landlock.WRITE, known=known)
    return wall


def _beside(path: Path, hidden: list[Path]) -> Iterator[tuple[Path, int]]:
    """``path`` to be read, but for what is ``hidden`` below it."""
    inside = [one for one in hidden if one.is_relative_to(path)]
    if path in inside:
        return
    yield path, landlock.READ_DIR if inside else landlock.READ
    if inside:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.is_symlink():
                    yield from _beside(Path(entry.path), inside)
