"""How much memory this machine has left, and sizes in words."""

from pathlib import Path

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def available_bytes() -> int | None:
    """Bytes that a process may still take: the kernel's estimate, or what a container leaves; None where unknown."""
    found = [room for room in (_meminfo(), _container()) if room is not None]
    return min(found) if found else None


def human(size: float) -> str:
    """``size`` bytes in binary units, e.g. "1.5 GiB"."""
    for unit in UNITS[:-1]:
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {UNITS[-1]}"


def _meminfo() -> int | None:
    file = Path("/proc/meminfo")
    if not file.is_file():
        return None
    fields = dict(line.split(":", 1) for line in file.read_text(encoding="utf-8").splitlines() if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


def _container() -> int | None:
    """Room below the memory limit of the control group; reclaimable file pages count as room."""
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if not limit.is_file() or not used.is_file():
        return None
    most = limit.read_text(encoding="utf-8").strip()
    if not most.isdecimal():
        return None
    stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
    return int(most) - int(used.read_text(encoding="utf-8")) + int(stat.get("inactive_file", 0))
