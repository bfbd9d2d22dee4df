"""Where and with what an evaluation was made: what somebody needs who gets another number."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import revelm
from revelm.parallel.world import World

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "math-verify", "datasets")


def environment(world: World, *, dtype: str) -> dict[str, Any]:
    """Versions, device, processes and date (UTC), as JSON has them. ``commit``: of a checkout; None of a package."""
    is_cuda = world.device.type == "cuda"
    return {
        "revelm": revelm.__version__,
        "commit": _commit(Path(revelm.__file__).parents[2]),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(world.device) if is_cuda else platform.processor() or platform.machine(),
        "cuda": torch.version.cuda if is_cuda else None,
        "dtype": dtype,
        "processes": world.size,
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(root: Path) -> str | None:
    """What git calls the checkout at ``root``, "-dirty" where files are changed; None without git or checkout."""
    if not (root / ".git").exists():
        return None
    words = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
