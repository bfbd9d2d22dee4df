"""Landlock: which files a process, and all that it starts, can touch; had from the kernel without any privilege.

A wall allows some rights below some folders: of the rights that its version knows, all others are refused, everywhere.
No process behind it can look into, trace or, from version 6 on, signal one that is not. What files are called, how
large they are, their modes and owners is not covered. https://docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import errno
import os
import stat
from pathlib import Path

from revelm.rewards.sandbox.syscalls import checked, libc

LATEST = 7
TRUNCATES, SCOPES_SIGNALS = 3, 6  # the versions from which on files cannot be cut short, processes not be signalled
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_IS_VERSION, _BENEATH, _IS_SILENT = 1, 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, READ_DIR = 1, 2, 4, 8
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
READ = _EXECUTE | _READ_FILE | READ_DIR
USE = _OF_FILES & ~_EXECUTE
WRITE = (_IOCTL_DEV - 1) & ~_MAKE_CHAR & ~_MAKE_BLOCK
_TCP, _SCOPES, _SIGNALS = 0b11, 0b11, 0b10  # bind and connect; abstract sockets and signals
_ABSENT = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL)


class _Handled(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("files", "network", "scopes")]


class _Rule(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("place", ctypes.c_int32)]


def version(most: int = LATEST) -> int:
    """The kernel's version of Landlock, ``most`` at most; 0: it has none, or it is switched off or refused."""
    try:
        return min(most, _call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_IS_VERSION)))
    except OSError as error:
        if error.errno in _ABSENT:
            return 0
        raise


def new_wall(known: int) -> int:
    """A descriptor of a wall of version ``known`` with no openings. Raises OSError."""
    handled = _Handled(_rights(known), _TCP if known >= 4 else 0, _SCOPES if known >= SCOPES_SIGNALS else 0)
    size = 8 if known < 4 else 16 if known < SCOPES_SIGNALS else 24
    return _call(_CREATE, ctypes.byref(handled), ctypes.c_size_t(size), ctypes.c_uint32(0))


def allow(wall: int, path: Path, rights: int, *, known: int) -> None:
    """``rights`` to what is at and below ``path``: READ, READ_DIR, USE or WRITE. Raises OSError."""
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        allowed = rights & _rights(known)
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            allowed &= _OF_FILES
        rule = _Rule(allowed, place)
        _call(_ADD, ctypes.c_int(wall), ctypes.c_int(_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(place)


def go_behind(wall: int, *, known: int) -> None:
    """Put this process and all that it starts behind ``wall``, for good. OSError where new privileges can be had."""
    # What is refused is not written to the kernel's log: a program could fill it.
    _call(_RESTRICT, ctypes.c_int(wall), ctypes.c_uint32(_IS_SILENT if known >= 7 else 0))


def shut_in(*, known: int) -> bool:
    """Let signals of this process reach nothing but what it starts from now on; whether that is so. Raises OSError.

    It is tried on the parent, which as the same user could be signalled otherwise.
    """
    if known < SCOPES_SIGNALS:
        return False
    # No wall lets files change folders that does not say so.
    handled = _Handled(_REFER, 0, _SIGNALS)
    wall = _call(_CREATE, ctypes.byref(handled), ctypes.c_size_t(24), ctypes.c_uint32(0))
    allow(wall, Path("/"), _REFER, known=known)
    go_behind(wall, known=known)
    os.close(wall)
    parent = os.getppid()
    try:
        users = next(line for line in Path(f"/proc/{parent}/status").read_text().splitlines() if line[:4] == "Uid:")
        os.kill(parent, 0)
    except PermissionError:
        return int(users.split()[1]) == os.getuid() and os.getppid() == parent
    except OSError:
        return False
    return False


def _rights(known: int) -> int:
    """All rights to files that a version knows."""
    new = {2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
    return (_REFER - 1) | sum(right for first, right in new.items() if known >= first)


def _call(number: int, *arguments: object) -> int:
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    checked(result, "landlock")
    return result
