"""Removing what programs leave in a folder, whatever its names, modes and depth."""

import os
from contextlib import suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_Identity = tuple[int, int]


def clear(folder: Path) -> None:
    """Remove all that is in ``folder``; no process may be at work in it any more. Links are not followed.

    A tree can be deeper than a stack, or than there are descriptors, and its paths longer than the kernel takes: one
    folder is open at a time. What cannot be removed stays.
    """
    with suppress(FileNotFoundError):
        _Remover(os.open(folder, _FOLDER)).run()


def remove(folder: Path) -> None:
    """Remove ``folder`` and all that is in it, as ``clear`` does."""
    clear(folder)
    with suppress(OSError):
        folder.rmdir()


class _Remover:
    """``here``: the open folder. ``above``: the names of the open folder and those above, and what these lie in."""

    def __init__(self, here: int) -> None:
        self._here = here
        self._above: list[tuple[str, _Identity]] = []
        self._stuck: set[_Identity] = set()

    def run(self) -> None:
        """All of it, from the leaves up."""
        try:
            while True:
                inner = self._empty()
                if inner is not None:
                    self._enter(inner)
                elif not self._leave():
                    return
        finally:
            os.close(self._here)

    def _empty(self) -> str | None:
        """Remove what can be removed at once; the name of a folder that has something in it, if there is one."""
        with os.scandir(self._here) as entries:
            names = [(entry.name, entry.inode()) for entry in entries]
        inner = None
        for name, inode in names:
            try:
                os.unlink(name, dir_fd=self._here)
            except IsADirectoryError:
                try:
                    os.rmdir(name, dir_fd=self._here)
                except OSError:
                    inner = name if (self._device(), inode) not in self._stuck else inner
            except OSError:
                continue
        return inner

    def _enter(self, name: str) -> None:
        parent = _identity(self._here)
        try:
            os.chmod(name, 0o700, dir_fd=self._here)
            inner = os.open(name, _FOLDER, dir_fd=self._here)
        except OSError:
            self._stuck.add(_identity_of(name, self._here))
            return
        self._above.append((name, parent))
        os.close(self._here)
        self._here = inner

    def _leave(self) -> bool:
        """Go up and remove the folder that was open; False at the top, and where it has another parent now."""
        if not self._above:
            return False
        name, parent = self._above.pop()
        left, outer = _identity(self._here), os.open("..", _FOLDER, dir_fd=self._here)
        os.close(self._here)
        self._here = outer
        if _identity(outer) != parent:
            return False
        try:
            os.rmdir(name, dir_fd=outer)
        except OSError:
            self._stuck.add(left)
        return True

    def _device(self) -> int:
        return os.fstat(self._here).st_dev


def _identity(descriptor: int) -> _Identity:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _identity_of(name: str, folder: int) -> _Identity:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return status.st_dev, status.st_ino
