"""Whether an evaluation that is gone on with is the one that was begun: the same questions, weights and settings."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from revelm.core.atomic import write_json_atomic
from revelm.core.config import dump_yaml, load_config
from revelm.core.types import Problem
from revelm.core.validation import dotted
from revelm.eval.config import EvalConfig
from revelm.eval.digests import digest_of_problems, digest_of_weights
from revelm.tasks.task import Task

CONFIG, STATE, SUMMARY = "config.yaml", "state.json", "summary.json"
FREE = ("model", "out", "resume", "device", "num_slots", "save_every", "expected", "pass_at")
"""Fields of an evaluation that change no answer. ``model`` is a name: the digest of its weights says what it is."""
FREE_IN_TASKS = ("expected", "pass_at")
MODEL = "config.json"


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Make the folder ``out``, and keep other evaluations from it as long as this process lives.

    ValueError for a file, and where another one is at work there. File systems without locks keep nobody from anything.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"out: {out} is no folder; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(
            f"out: another evaluation is at work in {out}; wait for its end, or give another --out"
        ) from None
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def begin(out: Path, config: EvalConfig, state: Mapping[str, Any]) -> None:
    """Make ``out`` the folder of this evaluation, or see that it is.

    ``config``: with everything said; ``state``: digests of the weights and of each task's problems. ValueError when
    there is a model, or an evaluation or another run and ``config.resume`` is not set, and for the field that differs
    when it is.
    """
    saved = out / CONFIG
    if (out / MODEL).exists():
        raise ValueError(f"out: {out} holds a model; give another --out")
    if not saved.exists() and not (out / SUMMARY).exists():
        write_json_atomic(out / STATE, state)
        dump_yaml(config, saved)  # last: with it there is an evaluation
        return
    if not config.resume:
        raise ValueError(f"out: {out} already holds a run; add --resume to go on with it, or give another --out")
    if not (saved.exists() and (out / STATE).exists()):
        raise ValueError(f"resume: {out} holds no evaluation that could be gone on with; give another --out")
    _check_same(_saved_config(saved), config, saved)
    before = dict(_leaves(read_object(out / STATE)))
    for what, digest in _leaves(state):
        if before.get(what) != digest:
            raise ValueError(f"resume: {dotted(*what)} is not what it was when {out} was begun; give another --out")
    for left in out.rglob(".*.tmp"):  # what a kill left half written
        left.unlink(missing_ok=True)
    dump_yaml(config, saved)


def state_of(weights: Path, problems: Mapping[str, tuple[Task, Sequence[Problem]]]) -> dict[str, Any]:
    """Digests of the checkpoint, and of the problems of each task as they are asked and judged."""
    found = {name: digest_of_problems(task, some) for name, (task, some) in problems.items()}
    return {"weights": digest_of_weights(weights), "problems": found}


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``; ValueError names a file that is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(file, error) from error
    if not isinstance(found, dict):
        raise _damaged(file, f"expected an object, found {type(found).__name__}")
    return found


def _saved_config(saved: Path) -> EvalConfig:
    try:
        return load_config(EvalConfig, saved, [])
    except ValueError as error:
        raise _damaged(saved, error) from error


def _damaged(file: Path, why: object) -> ValueError:
    return ValueError(f"{file}: damaged or of another version ({why}); give another --out")


def _check_same(before: EvalConfig, now: EvalConfig, saved: Path) -> None:
    old, new = dict(_leaves(_fixed(before))), dict(_leaves(_fixed(now)))
    for name in dict.fromkeys([*new, *old]):
        if old.get(name) != new.get(name):
            was, told = (repr(values.get(name, "not given")) for values in (old, new))
            raise ValueError(
                f"resume: {dotted(*name)} is {told}, but {saved} says {was}; keep it, or give another --out"
            )


def _fixed(config: EvalConfig) -> dict[str, Any]:
    """All that answers depend on."""
    found = config.model_dump(mode="json", exclude=set(FREE))
    for entry in found["tasks"].values():
        for name in FREE_IN_TASKS:
            del entry[name]
    return found


def _leaves(value: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Addresses and values of everything in a mapping that is not one itself. Names may have dots: they stay apart."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, (*where, key))
    else:
        yield where, value
