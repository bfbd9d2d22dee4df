"""A second filter of system calls, for programs that are not alone: what Landlock knows nothing of.

Who may write a file, or owns it, may change its modes, times and attributes, and a user may signal his own processes
(before version 6) and cut files short (before version 3). Modes and times that a program sets stay as they are, and it
is told that all went well: files are copied so.
"""

import errno
import os
from collections.abc import Mapping

from revelm.rewards.sandbox.landlock import SCOPES_SIGNALS, TRUNCATES
from revelm.rewards.sandbox.syscall_filter import (
    ALLOW,
    EQUAL,
    LOAD,
    MACHINES,
    RETURN,
    argument,
    refuse,
    refused_call,
    restricted_call,
    step,
)

# System calls as (x86_64, aarch64); None: there is none.
_IGNORED = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
}
_REFUSED = {
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "ioprio_set": (251, 30),
}
_REFUSED_SIGNALS = {
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
}
# Of the first argument: this process, by no other name.
_OF_ITSELF = {
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
}
_SIGNALS = {"kill": (62, 129), "tgkill": (234, 131)}
_TRUNCATE, _OPEN, _OPENAT, _OPENAT2 = (76, 45), (2, None), (257, 56), (437, 437)
_UTIMENSAT, _SETPRIORITY, _FCNTL, _IOCTL = (280, 88), (141, 140), (72, 25), (16, 29)
_AND = 0x54
_WAY, _CUTS = os.O_ACCMODE, os.O_TRUNC
# Copies, flags, locks, the size of pipes: not whom to signal when there is news.
_ORDERS = [0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1031, 1032, 1034]
_ASKS = [
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
]  # a terminal? its size, what can be read, blocking, close on exec


def unwalled_filter(machine: str, *, landlock: int, shares_user: bool) -> bytes | None:
    """The filter for this very process, in the kernel's form; None for a machine it is not written for.

    ``landlock``: the version of the wall, 0 for none. ``shares_user``: other processes run as the user of programs.
    """
    if machine not in MACHINES:
        return None
    column = MACHINES[machine][1]
    code = [step(LOAD, 0)]
    for number in _numbers(_IGNORED, column):
        code += refused_call(number, error=0)
    for number in _numbers(_REFUSED, column):
        code += refused_call(number)
    for number in _numbers(_OF_ITSELF, column):
        code += restricted_call(number, 0, [0])
    code += restricted_call(_SETPRIORITY[column], 0, [0]) + restricted_call(_SETPRIORITY[column], 1, [0])
    code += restricted_call(_IOCTL[column], 1, _ASKS, error=errno.ENOTTY)
    code += restricted_call(_FCNTL[column], 1, _ORDERS)
    code += _times(_UTIMENSAT[column])
    if shares_user and landlock < SCOPES_SIGNALS:
        code += _signals(column)
    code += _opens(column, landlock)
    return b"".join([*code, step(RETURN, ALLOW)])


def _numbers(calls: Mapping[str, tuple[int, int | None]], column: int) -> list[int]:
    return [number for numbers in calls.values() if (number := numbers[column]) is not None]


def _times(number: int) -> list[bytes]:
    """Times that are given are ignored; the present one, which stands for "make it if there is none", is refused."""
    return [
        step(EQUAL, number, no=6),
        step(LOAD, argument(2)),
        step(EQUAL, 0, no=3),
        step(LOAD, argument(2) + 4),
        step(EQUAL, 0, no=1),
        refuse(errno.EPERM),
        refuse(0),
    ]


def _signals(column: int) -> list[bytes]:
    """None but to this process and its group; it has a session of its own."""
    code: list[bytes] = []
    for number in _numbers(_REFUSED_SIGNALS, column):
        code += refused_call(number)
    for number in _numbers(_SIGNALS, column):
        code += restricted_call(number, 0, [0, os.getpid()])
    return code


def _opens(column: int, landlock: int) -> list[bytes]:
    """No file is opened neither to be read nor to be written; none that is not to be written is cut short."""
    code = refused_call(_OPENAT2[column], error=errno.ENOSYS)  # its flags cannot be seen
    if landlock < TRUNCATES:
        code += refused_call(_TRUNCATE[column])
    for call, place in ((_OPEN, 1), (_OPENAT, 2)):
        if (number := call[column]) is None:
            continue
        looks = [step(_AND, _WAY), step(EQUAL, _WAY, no=1), refuse(errno.EPERM)]
        if landlock < TRUNCATES:
            cuts = [step(LOAD, argument(place)), step(_AND, _CUTS | _WAY), step(EQUAL, _CUTS, no=1)]
            looks += [*cuts, refuse(errno.EPERM)]
        code += [step(EQUAL, number, no=len(looks) + 2), step(LOAD, argument(place)), *looks, step(LOAD, 0)]
    return code
