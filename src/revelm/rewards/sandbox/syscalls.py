"""The few system calls of Linux that Python 3.11 has no function for."""

import ctypes
import os

NEWNS, NEWIPC, NEWUTS = 0x00020000, 0x08000000, 0x04000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_MOVE, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x2000, 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 36, 38, 22
_MOUNT_SETATTR, _AT_RECURSIVE, _AT_FDCWD = 442, 0x8000, -100
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 0x1, 0x2, 0x4
_CAPABILITY_VERSION = 0x20080522
_LAST_CAPABILITY = 63

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    """Raises OSError for a ``result`` below 0."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave the namespaces of ``flags`` for new ones. OSError where the kernel does not allow it."""
    checked(libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, *, kind: str | None = None, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError."""
    raw = [None if text is None else text.encode() for text in (source, target, kind)]
    checked(libc.mount(*raw, ctypes.c_ulong(flags), data.encode()), f"mount {target}")


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def make_read_only(path: str, *, is_deep: bool = True) -> None:
    """What is mounted at ``path``, and below: read-only, without set-user-id programs and devices. Raises OSError."""
    attributes = _MountAttributes(_ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, 0, 0, 0)
    result = libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        path.encode(),
        ctypes.c_uint(_AT_RECURSIVE if is_deep else 0),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    checked(result, f"mount_setattr {path}")


def prctl(option: int, value: int = 0, *, pointer: "ctypes.c_void_p | int" = 0) -> None:
    """prctl(2). Raises OSError."""
    third = pointer if isinstance(pointer, ctypes.c_void_p) else ctypes.c_ulong(pointer)
    checked(libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), third, 0, 0), f"prctl {option}")


def drop_capabilities() -> None:
    """None left, and none to be had by running a program."""
    for capability in range(_LAST_CAPABILITY + 1):
        if libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break  # without CAP_SETPCAP, or beyond the last one the kernel knows: nothing to drop
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    checked(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
