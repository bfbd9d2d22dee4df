"""What a program may have left behind on this machine."""

from pathlib import Path

_FOLDERS = ("/", "/usr", "/etc", "/home", "/root", "/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run")
_MARKS = ("revelm-was-here",)


def traces() -> set[str]:
    """Files that hostile programs make, entries of shared folders, and keys of shared memory."""
    found = {str(path) for folder in _FOLDERS for mark in _MARKS if (path := Path(folder) / mark).exists()}
    found |= {str(path) for path in Path("/dev/shm").glob("*revelm*")}
    # Numbers alone: Python tries every temporary folder with a file of eight letters and digits, in any process.
    found |= {str(path) for path in Path("/tmp").glob("[0-9]*") if path.name.isdecimal() and path.is_file()}
    for kind in ("shm", "sem", "msg"):
        table = Path("/proc/sysvipc") / kind
        if table.is_file():
            found |= {f"{kind} {line.split()[0]}" for line in table.read_text().splitlines()[1:]}
    return found


def descendants(root: int) -> list[int]:
    """Processes that descend from ``root``, zombies too."""
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    members, is_growing = {root}, True
    while is_growing:
        found = {pid for pid, parent in parents.items() if parent in members} - members
        members |= found
        is_growing = bool(found)
    return sorted(members - {root})
