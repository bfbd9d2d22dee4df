"""Whether an evaluation that is gone on with is the one that was begun: the same questions, weights and settings."""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from revelm.core.atomic import write_json_atomic
from revelm.core.config import dump_yaml, load_config
from revelm.core.types import Problem
from revelm.core.validation import dotted
from revelm.eval.config import EvalConfig
from revelm.tasks.task import Task

CONFIG, STATE = "config.yaml", "state.json"
FREE = ("out", "resume", "device", "num_slots", "save_every", "expected")
_PIECE = 1 << 20


def begin(out: Path, config: EvalConfig, state: Mapping[str, Any]) -> None:
    """Make ``out`` the folder of this evaluation, or see that it is.

    ``config``: with everything said; ``state``: digests of the weights and of each task's problems. ValueError when
    there is an evaluation or another run and ``config.resume`` is not set, and for the field that differs when it is.
    """
    saved = out / CONFIG
    if not saved.exists() and not (out / "summary.json").exists():
        write_json_atomic(out / STATE, state)
        dump_yaml(config, saved)  # last: with it there is an evaluation
        return
    if not config.resume:
        raise ValueError(f"out: {out} already holds a run; add --resume to go on with it, or give another --out")
    if not (saved.exists() and (out / STATE).exists()):
        raise ValueError(f"resume: {out} holds no evaluation that could be gone on with; give another --out")
    _check_same(load_config(EvalConfig, saved, []).model_dump(mode="json"), config.model_dump(mode="json"), saved)
    before = json.loads((out / STATE).read_text(encoding="utf-8"))
    for what, digest in dict(_leaves(state)).items():
        if dict(_leaves(before)).get(what) != digest:
            raise ValueError(f"resume: {what} is not what it was when {out} was begun; give another --out")
    for left in out.rglob(".*.tmp"):  # what a kill left half written
        left.unlink(missing_ok=True)


def state_of(weights: Path, problems: Mapping[str, tuple[Task, Sequence[Problem]]]) -> dict[str, Any]:
    """Digests: of the checkpoint's files (names, sizes, and a piece of each), and of the problems of each task as they
    are asked and judged."""
    found = {name: _digest(_told(task, some)) for name, (task, some) in problems.items()}
    return {"weights": _digest(_pieces(weights)), "problems": found}


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], saved: Path) -> None:
    old, new = dict(_leaves(before)), dict(_leaves(now))
    for name in dict.fromkeys([*new, *old]):
        is_free = any(part in FREE for part in name.split("."))
        if not is_free and old.get(name) != new.get(name):
            was, told = (repr(values.get(name, "not given")) for values in (old, new))
            raise ValueError(f"resume: {name} is {told}, but {saved} says {was}; keep it, or give another --out")


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of everything in a mapping that is not one itself."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, dotted(where, key))
    else:
        yield where, value


def _told(task: Task, problems: Sequence[Problem]) -> Iterator[bytes]:
    for problem in problems:
        yield json.dumps([problem.id, task.prompt(problem), problem.reference, repr(problem.info)]).encode()


def _pieces(folder: Path) -> Iterator[bytes]:
    for file in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.json")):
        size = file.stat().st_size
        yield f"{file.name} {size}".encode()
        with file.open("rb") as content:
            content.seek(max(0, (size - _PIECE) // 2))
            yield content.read(_PIECE)


def _digest(parts: Iterator[bytes]) -> str:
    found = blake2b(digest_size=16)
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()
