"""Whether a run that is resumed is the one that was stopped."""

from collections.abc import Mapping
from os.path import relpath
from pathlib import Path
from typing import Any

from revelm.trainers.config import RLConfig, SFTConfig

KEPT = ("task", "data", "batch_size", "objective", "optimizer", "rollout", "updates_per_step", "rewards")
KEPT_OF_RL = ("reward", "shaping", "value")
KEPT_OF_MODEL = ("dtype", "block_size", "lora", "quantize")
FREE: Mapping[str, tuple[str, ...]] = {
    "rollout": ("num_slots", "save_every"),
    "optimizer": ("max_skipped",),
    "judge": ("base_url", "api_key_env", "timeout", "retries", "backoff", "concurrency", "cache", "on_failure",
              "max_failure_share"),
    "reward_model": ("device", "batch_size"),
}  # fmt: skip
KEPT_OF_PARTS = (*(("model", name) for name in KEPT_OF_MODEL), ("train", "seed"))


def check_same_run(now: SFTConfig | RLConfig, before: SFTConfig | RLConfig, saved: Path) -> None:
    """ValueError when what a resumed run is told would change what it learns, from what it was told ``before``.

    Its length, its reporting, the device, what is about memory only, and where and how patiently a judge is asked may
    change. ``saved``: the file that holds ``before``, for the error.
    """
    old, new = (_essential(config.model_dump(mode="json")) for config in (before, now))
    pairs = {name: (old[name], new[name]) for name in (*KEPT, *KEPT_OF_RL) if name in new}
    pairs |= {f"{part}.{name}": (old[part][name], new[part][name]) for part, name in KEPT_OF_PARTS}
    if not _is_same_place(before, now):
        pairs["model.path"] = (before.model.path, now.model.path)
    for name, (was, told) in pairs.items():
        if was != told:
            field, is_now, was_then = _difference(name, told, was)
            raise ValueError(f"resume: {field} is {is_now}, but {saved} says {was_then}; keep it, or change out")


def _difference(name: str, told: Any, was: Any) -> tuple[str, Any, Any]:
    """The first field in which two unequal values differ, and both sides of it; of components first their kind."""
    if isinstance(told, list) and isinstance(was, list) and len(told) == len(was):
        told, was = dict(enumerate(told)), dict(enumerate(was))
    if not isinstance(told, dict) or not isinstance(was, dict):
        return name, told, was
    fields = sorted({**told, **was}, key=lambda field: field != "kind")
    first = next(f for f in fields if f not in told or f not in was or told[f] != was[f])
    return _difference(f"{name}.{first}", told.get(first, "left out"), was.get(first, "nothing"))


def _essential(values: Any, part: str = "") -> Any:
    """``values`` without what may change, at every depth."""
    if isinstance(values, list):
        return [_essential(value, part) for value in values]
    if not isinstance(values, dict):
        return values
    return {name: _essential(value, name) for name, value in values.items() if name not in FREE.get(part, ())}


def _is_same_place(before: SFTConfig | RLConfig, now: SFTConfig | RLConfig) -> bool:
    """Whether both begin at the same model, however it is spelt: also when it was moved together with the run."""
    places = [(Path(c.model.path).resolve(), Path(c.out).resolve()) for c in (before, now)]
    return len({path for path, _ in places}) == 1 or len({relpath(path, out) for path, out in places}) == 1
