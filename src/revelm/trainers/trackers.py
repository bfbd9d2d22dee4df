"""Copies of a run's metrics in other tools: TensorBoard, Weights & Biases, Trackio.

``metrics.jsonl`` is written always and by ourselves; a tracker only mirrors it. Therefore a package that is missing is
an error before anything is computed, while a tracker that fails later is switched off and the run goes on. Which run of
the tool a directory belongs to is kept in ``trackers.json``: a resumed run goes on there.
"""

import importlib
import importlib.util
import json
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, field_validator, model_validator

from revelm.core.atomic import write_json_atomic
from revelm.core.config import Schema
from revelm.core.validation import choices, unknown_field

IDS = "trackers.json"
_NO_METRICS = {"phase", "step", "at", "setting"}


class Tracker(Protocol):
    """Where numbers go besides metrics.jsonl."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record finite numbers by name ("rl/reward") at ``step``. May raise anything."""
        ...

    def close(self) -> None:
        """Hand over what is not written yet."""
        ...


class TrackerSpec(Schema):
    """One tracker: a name alone in a recipe, or with ``project`` and ``name`` (default: that of the run directory).

    ``mode``: "offline" keeps the data of wandb in the run directory, for `wandb sync` later. Not every tracker takes
    all of them.
    """

    kind: str
    project: str = Field("revelm", min_length=1)
    name: str | None = Field(None, min_length=1)
    mode: Literal["online", "offline"] = "online"

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        unknown = [name for name in value if name not in cls.model_fields] if isinstance(value, Mapping) else []
        if unknown:
            raise ValueError(unknown_field(str(unknown[0]), cls.model_fields))
        return {"kind": value} if isinstance(value, str) else value

    @field_validator("kind")
    @classmethod
    def _check_kind(cls, kind: str) -> str:
        if kind not in TRACKERS:
            raise ValueError(f"{kind!r} is not known{choices(kind, TRACKERS)}")
        return kind


@dataclass(frozen=True)
class Place:
    """The run that a tracker records. ``id``: of this run in the tool, the same after a resume; ``start``: its step."""

    run: Path
    spec: TrackerSpec
    id: str
    config: Schema
    start: int

    @property
    def name(self) -> str:
        """What people call the run."""
        return self.spec.name or self.run.resolve().name

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as plain data."""
        return self.config.model_dump(mode="json")


class TensorBoard:
    """Event files in ``tensorboard/`` of the run directory."""

    def __init__(self, place: Place) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Steps behind the checkpoint are written again: what was recorded of them is taken back; all, without one.
        purge = place.start + 1 if place.start else 0
        self.writer = SummaryWriter(str(place.run / "tensorboard"), purge_step=purge)
        if not place.start:
            lines = json.dumps(place.settings, indent=2, ensure_ascii=False).splitlines()
            self.writer.add_text("config", "\n".join(f"    {line}" for line in lines), 0)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one scalar per metric, readable at once."""
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()


class Wandb:
    """A run of Weights & Biases; metrics are drawn over our own step, which may go back when a run is resumed."""

    def __init__(self, place: Place) -> None:
        wandb = importlib.import_module("wandb")
        spec = place.spec
        told = {"project": spec.project, "name": place.name, "mode": spec.mode, "config": place.settings}
        self.run = wandb.init(id=place.id, resume="allow", dir=str(place.run), **told)
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one entry of the history."""
        self.run.log({**metrics, "step": step})

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


class Trackio:
    """A run of Trackio, which knows runs by their names alone: the id is made part of it."""

    def __init__(self, place: Place) -> None:
        self.trackio = importlib.import_module("trackio")
        name = f"{place.name}-{place.id}"
        self.trackio.init(project=place.spec.project, name=name, config=place.settings, resume="allow")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the numbers of one step."""
        self.trackio.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the run."""
        self.trackio.finish()


@dataclass(frozen=True)
class Kind:
    """One known tracker: how it is opened, the package it needs, how to get that, and the fields that it heeds."""

    open: Callable[[Place], Tracker]
    package: str
    remedy: str
    options: tuple[str, ...] = ()


TRACKERS: dict[str, Kind] = {
    "tensorboard": Kind(TensorBoard, "tensorboard", "pip install 'revelm[train]' (or pip install tensorboard)"),
    "trackio": Kind(Trackio, "trackio", "pip install trackio", ("project", "name")),
    "wandb": Kind(Wandb, "wandb", "pip install wandb", ("project", "name", "mode")),
}


class Trackers:
    """The open trackers of a run. One that raises is reported once and left out from then on."""

    def __init__(self, found: Mapping[str, Tracker]) -> None:
        self.found = dict(found)

    def log(self, row: Mapping[str, Any]) -> list[str]:
        """Hand one row of metrics.jsonl to all; returns a sentence for each that failed."""
        metrics = scalars(row)
        return self._each(lambda tracker: tracker.log(row["step"], metrics)) if metrics else []

    def close(self) -> list[str]:
        """Close all; returns a sentence for each that failed."""
        failed = self._each(lambda tracker: tracker.close())
        self.found = {}
        return failed

    def _each(self, call: Callable[[Tracker], None]) -> list[str]:
        failed = {}
        for name, tracker in self.found.items():
            try:
                call(tracker)
            except Exception as error:  # noqa: BLE001 - a boundary: disks, networks and other people's libraries
                failed[name] = f"tracker {name} is switched off, it failed ({_reason(error)}); the run goes on"
        self.found = {name: tracker for name, tracker in self.found.items() if name not in failed}
        return list(failed.values())


def check_trackers(specs: Sequence[TrackerSpec]) -> None:
    """ValueError for a tracker that is asked for twice, has a field that does nothing for it, or whose package is not
    installed. Imports nothing."""
    kinds = [one.kind for one in specs]
    for one in specs:
        _check_options(one)
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise ValueError(f"trackers: {kind} is given twice; keep one")
        package = TRACKERS[kind].package
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:  # a folder of that name, as such tools leave behind, is no package
            remedy = f"{TRACKERS[kind].remedy}, or leave {kind} out"
            raise ValueError(f"trackers: {kind} needs the package {package!r}, which is not installed; {remedy}")


def _check_options(spec: TrackerSpec) -> None:
    """Defaults are let through: a saved configuration has every field."""
    for field, info in TrackerSpec.model_fields.items():
        value = vars(spec)[field]
        if field != "kind" and value != info.default and field not in TRACKERS[spec.kind].options:
            takers = " and ".join(name for name, kind in TRACKERS.items() if field in kind.options)
            raise ValueError(
                f"trackers: {spec.kind}: {field} {value!r} has no effect on it, only on {takers}; leave it out"
            )


def open_trackers(run: Path, specs: Sequence[TrackerSpec], *, config: Schema, start: int) -> Trackers:
    """The trackers of the run directory ``run``, which begins or goes on at ``start``; in the main process only.

    ``config``: what the run was told, shown beside its curves. ValueError for a tracker that cannot be opened, such as
    one that asks for a login.
    """
    check_trackers(specs)
    ids = _ids(run, [spec.kind for spec in specs])
    opened: dict[str, Tracker] = {}
    for spec in specs:
        try:
            opened[spec.kind] = TRACKERS[spec.kind].open(Place(run, spec, ids[spec.kind], config, start))
        except Exception as error:
            Trackers(opened).close()
            remedy = "put that right, or leave it out"
            raise ValueError(f"trackers: {spec.kind} could not be opened ({_reason(error)}); {remedy}") from error
    return Trackers(opened)


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a metrics row as "phase/metric", those of an evaluation as "eval/setting/metric".

    A mean with an interval gives ``metric``, ``metric/low`` and ``metric/high``; other mappings one name per part.
    """
    prefix = str(row.get("phase", "")) + (f"/{row['setting']}" if "setting" in row else "")
    found: dict[str, float] = {}
    for name, value in row.items():
        if name not in _NO_METRICS:
            found |= _numbers(f"{prefix}/{name}", value)
    return found


def _numbers(name: str, value: Any) -> dict[str, float]:
    if isinstance(value, Mapping):
        parts = {k: v for k, v in value.items() if k != "n"} if "mean" in value else value
        found: dict[str, float] = {}
        for part, number in parts.items():
            found |= _numbers(name if part == "mean" else f"{name}/{part}", number)
        return found
    return {name: float(value)} if isinstance(value, int | float) and math.isfinite(value) else {}


def _ids(run: Path, kinds: Sequence[str]) -> dict[str, str]:
    """The run's id in each tool; those that are new are kept in the run directory before they are used."""
    file = run / IDS
    known: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    ids = known | {kind: secrets.token_hex(4) for kind in kinds if kind not in known}
    if ids != known:
        write_json_atomic(file, ids)
    return ids


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
