"""Where results live, what they were made with, and what is shared: starts and training runs, each made once whoever
asks for it first.

Below ``out``: ``protocol.json``, ``starts/<base>-<seed>``, ``runs/<arm>-<seed>``,
``results/<experiment>/<arm>-<seed>.json``.
"""

import fcntl
import hashlib
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import revelm
from benchmarks.paper.protocol import WHOLE, Scale
from revelm.core.atomic import write_json_atomic

BENCHMARK, SOURCE = Path(__file__).parent, Path(revelm.__file__).parent
PROTOCOL = "protocol.json"
PARTS = ("starts", "runs", "results")


@dataclass(frozen=True)
class Place:
    """A folder for everything, and how much of it."""

    out: Path
    scale: Scale = WHOLE

    def start(self, base: str, seed: int) -> Path:
        """The model of a seed that all arms begin with."""
        return self.out / "starts" / f"{base}-{seed}"

    def run(self, arm: str, seed: int) -> Path:
        """The training of an arm."""
        return self.out / "runs" / f"{arm}-{seed}"

    def result(self, experiment: str, arm: str, seed: int) -> Path:
        """What an arm of an experiment has shown."""
        return self.out / "results" / experiment / f"{arm}-{seed}.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process is in a block about ``folder``, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed, also by a killed process
        yield


def protocol_state(scale: Scale) -> dict[str, Any]:
    """Everything that makes a number, as plain JSON: {"commit" checked out, "is_modified": whether code differs from
    it, "source": hash of the package, "benchmark": hash of this one, "libraries", "scale"}.

    Outside of a git checkout commit is None and is_modified True.
    """
    code = _code_state()
    found: dict[str, Any] = json.loads(json.dumps({**code, "scale": asdict(scale)}))
    return found


@lru_cache(maxsize=1)
def _code_state() -> Mapping[str, Any]:
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", f"{SOURCE}/**/*.py", f"{BENCHMARK}/*.py")
    return {
        "commit": commit or None,
        "is_modified": not commit or bool(changes),
        "source": digest(SOURCE, SOURCE.rglob("*.py")),
        "benchmark": digest(BENCHMARK, BENCHMARK.glob("*.py")),
        "libraries": {"torch": str(torch.__version__), "numpy": np.__version__},
    }


def digest(folder: Path, files: Iterable[Path]) -> str:
    """Hash of names (below ``folder``) and contents, whatever the order of ``files``; 16 hexadecimal digits."""
    found = hashlib.sha256()
    for file in sorted(files):
        text = file.read_bytes()
        found.update(f"{file.relative_to(folder).as_posix()}\0{len(text)}\0".encode() + text)
    return found.hexdigest()[:16]


def _git(*words: str) -> str:
    try:
        found = subprocess.run(["git", *words], cwd=BENCHMARK, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def hold_to_protocol(place: Place, state: dict[str, Any] | None = None) -> dict[str, Any]:
    """The state that everything in ``place`` is made under, written to ``protocol.json`` at its first use.

    ``state``: the present one, if not given. ValueError when there is another one, and when there are results of an
    unknown one: numbers would not compare.
    """
    now, file = state or protocol_state(place.scale), place.out / PROTOCOL
    with locked(place.out):
        known = read_result(file)
        if known is None:
            if found := [part for part in PARTS if (place.out / part).is_dir()]:
                raise ValueError(f"out: {place.out} holds {', '.join(found)} but no {PROTOCOL}; give another folder")
            write_json_atomic(file, now)
            return now
    check_state(now, known, file)
    return now


def check_state(now: Mapping[str, Any], known: Mapping[str, Any], file: Path) -> None:
    """ValueError that names the parts in which ``known``, read from ``file``, is another state than ``now``."""
    changed = [
        f"{name}: {_shown(known.get(name))} there, {_shown(now.get(name))} now"
        for name in sorted({*now, *known})
        if known.get(name) != now.get(name)
    ]
    if changed:
        raise ValueError(f"{file}: made under another protocol ({'; '.join(changed)}); go back to it, or change --out")


def _shown(part: Any) -> str:
    return "another scale" if isinstance(part, dict) and "rl_steps" in part else json.dumps(part)


def read_result(file: Path) -> dict[str, Any] | None:
    """A finished result; None where there is none."""
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
