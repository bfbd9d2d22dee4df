"""How many processor cores this process may use: of the machine, its affinity mask and its container's quota."""

import math
import os
from contextlib import suppress
from pathlib import Path

_V2 = Path("/sys/fs/cgroup/cpu.max")
_V1 = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def usable_cores() -> int:
    """Cores that this process may run on at once, at least 1; a quota of 1.5 cores counts as 2."""
    quota = cgroup_quota()
    cores = len(os.sched_getaffinity(0))
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cgroup_quota(v2: Path = _V2, v1: tuple[Path, Path] = _V1) -> float | None:
    """The share of time that the control group allows, in cores; None where it sets none."""
    for files in ((v2,), v1):
        with suppress(OSError, ValueError):
            quota, period = (float(word) for file in files for word in file.read_text().split())
            return quota / period if quota > 0 and period > 0 else None
    return None
