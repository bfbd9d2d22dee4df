"""How the processes of a sandbox are locked in, from outside to inside.

The server leaves the machine: no network, no files but Python's own, read-only (``leave``). Every job has processes,
mounts and a temporary folder of its own (``separate``). Every program runs as nobody, under limits, without privileges,
behind a filter of system calls and a wall of Landlock (``become_nobody``). Where the kernel refuses namespaces, limits,
users, the filter and the wall are left: the weaker mode.
"""

import os
import resource
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from revelm.rewards.sandbox import landlock, syscalls
from revelm.rewards.sandbox.leftovers import clear
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.syscall_filter import filter_program, install, this_machine
from revelm.rewards.sandbox.unwalled import unwalled_filter
from revelm.rewards.sandbox.visible import DEVICES, package_folders, shown
from revelm.rewards.sandbox.wall import inner_wall, outer_wall

Isolation = Literal["namespaces", "weak"]
_FOLDER, _OTHER_FOLDER = "/tmp", "/program"
_ROOTS = ("/sys", "/mnt", "/media", "/opt", "/proc")
_STACK = 128 * 2**20
_FIRST_UID, _NUM_PIDS = 1_000_000_000, 2**22
_INSIDE = 1000  # the user inside a user namespace


@dataclass(frozen=True)
class Place:
    """Where a server's programs run. ``uids``: of programs and of tests; None: the user's own (no other can be had).

    ``proc``: descriptor of /proc as the server saw it. ``base_bytes``: address space of a process before it begins.
    ``uses_userns``: processes are counted within the server's own user namespace. ``folder``: where programs may write,
    in the weaker mode this server's own, with a folder for each job. ``landlock``: its version, 0 for none; ``wall``:
    descriptor of the wall that programs and tests go behind, -1 where there is none (yet). ``is_shut_in``: a signal to
    everything reaches nothing but what this process has started.
    """

    isolation: Isolation
    uids: tuple[int, int] | None
    uses_userns: bool
    proc: int
    base_bytes: int
    filter: bytes | None
    folder: str
    landlock: int
    wall: int = -1
    is_shut_in: bool = False

    @property
    def shares_user(self) -> bool:
        """Whether programs run as a user that other processes of this machine run as."""
        return self.isolation == "weak" and self.uids is None


def leave(folders: list[str], isolation: Isolation, *, most_landlock: int = landlock.LATEST) -> Place:
    """Lock the server in. ``folders``: what programs may read beside the standard library. OSError: not allowed."""
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    base = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with suppress(OSError):  # where /proc is read-only
        Path("/proc/self/oom_score_adj").write_text("800")
    program = filter_program(this_machine(), is_separate=isolation == "namespaces")
    known = landlock.version(most_landlock)
    is_root = os.geteuid() == 0
    uids = _free_uids() if is_root else None
    uses_userns, wall, is_shut_in = False, -1, False
    if isolation == "weak":
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        folder = tempfile.mkdtemp(prefix="revelm-sandbox-")
        tempfile.tempdir = None  # programs have another
        Path(folder).chmod(0o700 if uids is None else 0o711)
        wall = outer_wall(folders, folder, known=known) if known else -1
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        is_shut_in = landlock.shut_in(known=known)
    else:
        uses_userns = _unshare(is_root=is_root)
        if uses_userns and is_root:
            uids = None
        folder = _change_root(folders)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # jobs hold descriptors of tests: /proc shows them to the same user
    return Place(isolation, uids, uses_userns, proc, base, program, folder, known, wall, is_shut_in)


def _free_uids() -> tuple[int, int]:
    """Two users that nobody else is: of this process's own number, as far as the container has users at all."""
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    last = max(int(start) + int(count) for start, _, count in ranges) - 1
    if last > _FIRST_UID + 2 * _NUM_PIDS:
        return _FIRST_UID + os.getpid(), _FIRST_UID + _NUM_PIDS + os.getpid()
    half = (last - 1000) // 2
    return 1000 + os.getpid() % half, 1000 + half + os.getpid() % half


def _unshare(*, is_root: bool) -> bool:
    """New mounts, network, IPC and host name; returns whether that took a user namespace."""
    flags = syscalls.NEWNS | syscalls.NEWNET | syscalls.NEWIPC | syscalls.NEWUTS
    if is_root:
        try:
            syscalls.unshare(flags)
            return False
        except PermissionError:
            pass
    uid, gid = os.getuid(), os.getgid()
    syscalls.unshare(flags | syscalls.NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{_INSIDE} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{_INSIDE} {gid} 1")
    return True


def _change_root(folders: list[str]) -> str:
    """A new root that holds Python, ``folders``, a few devices, an empty folder, and nothing else.

    Returns the folder: /tmp, or another where Python itself, or a package, is below that.
    """
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    root = next(Path(path) for path in _ROOTS if Path(path).is_dir())
    paths = shown(folders)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("root", str(root), kind="tmpfs", flags=flags, data="size=4m,mode=755")
    for path in paths:
        if not any(path != other and path.is_relative_to(other) for other in paths if other.is_dir()):
            _show(path, root)
    for place in package_folders():
        _hide(place, [folder for folder in map(Path, folders) if folder.is_relative_to(place)], root)
    for name in DEVICES:
        _show(Path("/dev") / name, root, is_device=True)
    folder = _OTHER_FOLDER if any(path.is_relative_to(_FOLDER) for path in paths) else _FOLDER
    (root / folder.removeprefix("/")).mkdir()
    (root / "dev" / "shm").symlink_to(folder)
    os.chdir(root)
    syscalls.mount(".", "/", flags=syscalls.MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    syscalls.make_read_only("/", is_deep=False)  # it is shared by all jobs, and its owner may be who programs run as
    return folder


def _hide(path: Path, shown: list[Path], root: Path) -> None:
    """Of a folder of the new root only ``shown``."""
    target = root / path.relative_to("/")
    if not target.is_dir():
        return
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("hidden", str(target), kind="tmpfs", flags=flags, data="size=1m,mode=755")
    for one in shown:
        _show(one, root)
    syscalls.make_read_only(str(target), is_deep=False)


def _show(path: Path, root: Path, *, is_device: bool = False) -> None:
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and not path.readlink().is_absolute():
        target.symlink_to(path.readlink())
        return
    if path.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    syscalls.mount(str(path.resolve()), str(target), flags=syscalls.MS_BIND | syscalls.MS_REC)
    if not is_device:
        syscalls.make_read_only(str(target))


def separate(place: Place, limits: Limits) -> Place:
    """Give what this process starts its own processes and an empty folder, which is where this process is then.

    With namespaces both vanish with it, and the folder is a /tmp of limited size. In the weaker mode they do not: what
    is in ``place.folder`` is to be removed. Returns the place with its wall. Raises OSError.
    """
    if place.isolation == "weak":
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        clear(Path(place.folder))
        folder = Path(place.folder) / "program"
        folder.mkdir(0o700)
        if place.uids is not None:
            os.chown(folder, place.uids[0], place.uids[0])
        os.chdir(folder)
        return replace(place, is_shut_in=landlock.shut_in(known=place.landlock))
    syscalls.unshare(syscalls.NEWPID | syscalls.NEWNS | syscalls.NEWIPC)
    options = f"size={2 * limits.file_mb}m,nr_inodes=4096,mode=1777"
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("tmp", place.folder, kind="tmpfs", flags=flags, data=options)
    os.chdir(place.folder)
    wall = inner_wall(place.folder, known=place.landlock) if place.landlock else -1
    return replace(place, wall=wall)


def become_nobody(place: Place, limits: Limits, *, is_tests: bool) -> None:
    """Limits, then no privileges. A process of tests cannot be looked into by others of the same user."""
    if place.uids is not None:
        uid = place.uids[1 if is_tests else 0]
        os.setgroups([])
        os.setresgid(uid, uid, uid)
    _set_limits(place, limits)
    if place.uids is not None:
        os.setresuid(uid, uid, uid)
    syscalls.drop_capabilities()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
    if is_tests:
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if place.wall >= 0:
        landlock.go_behind(place.wall, known=place.landlock)
        os.close(place.wall)
    if place.isolation == "weak":
        program = unwalled_filter(this_machine(), landlock=place.landlock, shares_user=place.shares_user)
        install(program) if program is not None else None
    if place.filter is not None:
        install(place.filter)


def _set_limits(place: Place, limits: Limits) -> None:
    # Without a user of their own programs share the count with the server, the supervisor and the tests.
    shared = 0 if place.uids is not None else 3
    wanted = {
        resource.RLIMIT_AS: place.base_bytes + limits.memory_mb * 2**20,
        resource.RLIMIT_CPU: int(limits.total_seconds) + 1,
        resource.RLIMIT_FSIZE: max(limits.file_mb, limits.output_mb) * 2**20,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_CORE: 1,  # not 0: with that the machine's own handler of crashes would still be started
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if place.uids is not None or place.uses_userns:
        wanted[resource.RLIMIT_NPROC] = limits.processes + shared
    for name, value in wanted.items():
        hard = resource.getrlimit(name)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (allowed, allowed))
    _set_stack()


def _set_stack() -> None:
    """A program may raise the limit of its stack, as scripts of contests do: what bounds it is the address space."""
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    soft = _STACK if hard == resource.RLIM_INFINITY else min(_STACK, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
