"""A filter of system calls (seccomp-bpf): what no program needs and what breaks out of sandboxes is refused.

The filter is the second line: without namespaces it also takes the network away. Classic BPF over the 64-byte
``seccomp_data``: number at 0, architecture at 4, low half of argument i at 16 + 8 i.
"""

import ctypes
import errno
import os
import struct

from revelm.rewards.sandbox.syscalls import NEWUSER, PR_SET_SECCOMP, prctl

LOAD, EQUAL, _AT_LEAST, _ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_MODE_FILTER = 2
_X32 = 0x40000000
# By machine: the architecture's number, and system calls as (x86_64, aarch64).
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_REFUSED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "open_by_handle_at": (304, 265),
    # Memory that is held by no process escapes the limits.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "syslog": (103, 116),
}
# What is shared with the rest of the machine where there are no namespaces: queues, and word of what happens to files.
_REFUSED_TOGETHER = {
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "socket": (41, 198),  # nor daemons of this machine; pairs of sockets are had without this call
}
_CLONE_PARENT = 0x8000
_CLONE, _CLONE3, _SOCKETPAIR, _PRLIMIT = (56, 220), (435, 435), (53, 199), (302, 261)
# A datagram goes to whatever name it bears, from a pair of sockets too: daemons listen.
_PAIRS = [kind | flags for kind in (1, 5) for flags in (0, 0x800, 0x80000, 0x80800)]  # streams, packets


def filter_program(machine: str, *, is_separate: bool) -> bytes | None:
    """The filter in the kernel's form, 8 bytes an instruction; None for a machine it is not written for.

    ``is_separate``: there are namespaces, so that the network is none and what is shared is shared with nobody.
    """
    if machine not in MACHINES:
        return None
    architecture, column = MACHINES[machine]
    code = [
        step(LOAD, 4),
        step(EQUAL, architecture, yes=1),
        refuse(errno.EPERM),
        step(LOAD, 0),
        step(_AT_LEAST, _X32, no=1),
        refuse(errno.EPERM),
    ]
    refused = [*_REFUSED.values(), *({} if is_separate else _REFUSED_TOGETHER).values()]
    for number in (numbers[column] for numbers in refused):
        code += refused_call(number) if number is not None else []
    # The C library falls back from clone3 to clone, whose flags can be seen.
    code += refused_call(_CLONE3[column], error=errno.ENOSYS)
    # A child that is made the parent's own would be out of reach of who looks below the program.
    code += [
        step(EQUAL, _CLONE[column], no=3),
        step(LOAD, argument(0)),
        step(_ANY_BIT, NEWUSER | _CLONE_PARENT, no=1),
        refuse(errno.EPERM),
        step(LOAD, 0),
    ]
    # Limits are a process's own: of the same user, the tests could be given some that they cannot work under.
    code += restricted_call(_PRLIMIT[column], 0, [0])
    if not is_separate:
        code += restricted_call(_SOCKETPAIR[column], 1, _PAIRS)
    return b"".join([*code, step(RETURN, ALLOW)])


def install(program: bytes) -> None:
    """Put this process and all that it starts under the filter, for good. OSError where new privileges can be had."""
    instructions = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(instructions)), struct.calcsize("HxxxxxxP")
    )
    prctl(PR_SET_SECCOMP, _MODE_FILTER, pointer=ctypes.c_void_p(ctypes.addressof(header)))


def this_machine() -> str:
    """The machine's name, as ``filter_program`` takes it."""
    return os.uname().machine


def refused_call(number: int, *, error: int = errno.EPERM) -> list[bytes]:
    """A system call fails. ``error`` 0: it seems to succeed. The number of the call is loaded, before and after."""
    return [step(EQUAL, number, no=1), refuse(error)]


def restricted_call(number: int, place: int, allowed: list[int], *, error: int = errno.EPERM) -> list[bytes]:
    """A system call fails unless the low half of its argument ``place`` is one of ``allowed``."""
    checks = [step(EQUAL, value & 0xFFFFFFFF, yes=len(allowed) - i) for i, value in enumerate(allowed)]
    return [step(EQUAL, number, no=len(checks) + 3), step(LOAD, argument(place)), *checks, refuse(error), step(LOAD, 0)]


def argument(place: int) -> int:
    """Where the low half of an argument stands."""
    return 16 + 8 * place


def step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """One instruction; ``yes`` and ``no``: how many of the next ones are jumped over."""
    return struct.pack("HBBI", code, yes, no, value)


def refuse(error: int) -> bytes:
    """The instruction that ends a system call with an error."""
    return step(RETURN, _REFUSE | error)
