"""A filter of system calls (seccomp-bpf): what no program needs and what breaks out of sandboxes is refused.

The filter is the second line: without namespaces it also takes the network away. Classic BPF over the 64-byte
``seccomp_data``: number at 0, architecture at 4, low half of argument i at 16 + 8 i.
"""

import ctypes
import errno
import os
import struct

from revelm.rewards.sandbox.syscalls import NEWUSER, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, prctl

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_MODE_FILTER = 2
_X32 = 0x40000000
# By machine: the architecture's number, and system calls as (x86_64, aarch64).
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
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
}
_CLONE, _CLONE3, _SOCKET, _PRLIMIT = (56, 220), (435, 435), (41, 198), (302, 261)


def filter_program(machine: str, *, allows_network: bool) -> bytes | None:
    """The filter in the kernel's form, 8 bytes an instruction; None for a machine it is not written for."""
    if machine not in _MACHINES:
        return None
    architecture, column = _MACHINES[machine]
    code = [
        _step(_LOAD, 4),
        _step(_EQUAL, architecture, yes=1),
        _refuse(errno.EPERM),
        _step(_LOAD, 0),
        _step(_AT_LEAST, _X32, no=1),
        _refuse(errno.EPERM),
    ]
    for numbers in _REFUSED.values():
        code += [_step(_EQUAL, numbers[column], no=1), _refuse(errno.EPERM)]
    # The C library falls back from clone3 to clone, whose flags can be seen.
    code += [_step(_EQUAL, _CLONE3[column], no=1), _refuse(errno.ENOSYS)]
    code += [
        _step(_EQUAL, _CLONE[column], no=3),
        _step(_LOAD, 16),
        _step(_ANY_BIT, NEWUSER, no=1),
        _refuse(errno.EPERM),
        _step(_LOAD, 0),
    ]
    # Limits are a process's own: of the same user, the tests could be given some that they cannot work under.
    code += [
        _step(_EQUAL, _PRLIMIT[column], no=4),
        _step(_LOAD, 16),
        _step(_EQUAL, 0, yes=1),
        _refuse(errno.EPERM),
        _step(_LOAD, 0),
    ]
    if not allows_network:  # nor daemons of this machine; pairs of sockets are had without this call
        code += [_step(_EQUAL, _SOCKET[column], no=1), _refuse(errno.EPERM)]
    return b"".join([*code, _step(_RETURN, _ALLOW)])


def install(program: bytes) -> None:
    """Put this process and all that it starts under the filter, for good. Raises OSError."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    instructions = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(instructions)), struct.calcsize("HxxxxxxP")
    )
    prctl(PR_SET_SECCOMP, _MODE_FILTER, pointer=ctypes.c_void_p(ctypes.addressof(header)))


def this_machine() -> str:
    """The machine's name, as ``filter_program`` takes it."""
    return os.uname().machine


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _refuse(number: int) -> bytes:
    return _step(_RETURN, _REFUSE | number)
