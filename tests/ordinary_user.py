"""A Python that runs as an ordinary user, for tests that are run by root.

The interpreter may lie where that user cannot read: it is shown at another place, in a mount namespace of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

from revelm.rewards.sandbox import syscalls

USER = 65534
_PLACE = "/mnt"


def run_as_user(*words: str, timeout: float) -> "subprocess.CompletedProcess[str]":
    """``python WORDS`` as user 65534; as it is where this is no root. RuntimeError: cannot be done."""
    root = Path(__file__).resolve().parents[1]
    if os.geteuid() != 0:
        return _run([sys.executable, *words], root, None, timeout)
    paths = [path for path in sys.path if path.endswith(("site-packages", "src"))]
    for path in (root, *map(Path, paths)):
        if any(not folder.stat().st_mode & 0o001 for folder in (path, *path.parents)):
            raise RuntimeError(f"{path} is closed to other users")
    python = Path(_PLACE) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return _run([str(python), "-s", *words], root, _become_user, timeout, os.pathsep.join(paths))


def _become_user() -> None:
    syscalls.unshare(syscalls.NEWNS)
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount(sys.base_prefix, _PLACE, flags=syscalls.MS_BIND | syscalls.MS_REC)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


def _run(
    command: list[str], root: Path, before: object, timeout: float, path: str = ""
) -> "subprocess.CompletedProcess[str]":
    environment = {"PYTHONPATH": os.pathsep.join([str(root), path]), "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command,
        preexec_fn=before,  # type: ignore[arg-type]
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
