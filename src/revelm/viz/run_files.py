"""Reading a run directory for a report, whatever state the run left it in.

Nothing here raises for missing or damaged content: each finding goes into ``RunFiles.remarks``, in words, so that
the report can say what it could not show.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revelm.viz.ticks import is_drawable

Row = Mapping[str, Any]
MEASURES = ("accuracy_static", "accuracy_dynamic", "accuracy_dynamic_t05", "tokens_per_forward")


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval over ``n`` samples; ``low``, ``high`` and ``n`` are None where not recorded."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class RunFiles:
    """What a run directory holds: metrics rows in order, the summary, the resolved config as text, and remarks."""

    name: str
    rows: tuple[Row, ...]
    summary: Mapping[str, Any]
    config: str
    remarks: tuple[str, ...]
    num_trajectory_files: int = 0


def read_run(run_dir: Path) -> RunFiles:
    """Everything a report needs from ``run_dir``. Raises ValueError only when that is not a directory."""
    if not run_dir.is_dir():
        raise ValueError(f"run_dir is {str(run_dir)!r}, which is not a directory; give the output folder of a run")
    remarks: list[str] = []
    rows = _rows(_text(run_dir / "metrics.jsonl", remarks), remarks)
    summary = _summary(_text(run_dir / "summary.json", remarks), remarks)
    config = _text(run_dir / "config.yaml", remarks)
    stored = sum(1 for _ in run_dir.glob("trajectories/*.parquet"))
    return RunFiles(run_dir.resolve().name, tuple(rows), summary, config, tuple(remarks), stored)


def interval(value: Any) -> Interval | None:
    """``value`` as an interval: a ``{"mean", "low", "high", "n"}`` mapping or a bare number; None for all else."""
    if isinstance(value, Mapping):
        mean, low, high, n = (value.get(key) for key in ("mean", "low", "high", "n"))
        if not is_drawable(mean):
            return None
        count = int(n) if is_drawable(n) else None
        if is_drawable(low) and is_drawable(high):
            return Interval(float(mean), float(low), float(high), count)
        return Interval(float(mean), n=count)
    return Interval(float(value)) if is_drawable(value) else None


def change(before: Interval, after: Interval) -> Interval:
    """``after - before`` with the interval of a difference of independent means, from the two intervals.

    Newcombe (1998), "square and add": ``d -/+ sqrt((m2 - l2)^2 + (u1 - m1)^2)`` and its mirror image. When both were
    measured on the same problems the samples are paired, and this interval is wider than it need be.
    """
    difference = after.mean - before.mean
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return Interval(difference)
    down = math.hypot(after.mean - after.low, before.high - before.mean)
    up = math.hypot(after.high - after.mean, before.mean - before.low)
    return Interval(difference, difference - down, difference + up)


def measured(run: RunFiles, phase: str) -> dict[str, Interval]:
    """The final evaluation after ``phase`` by measure, from the summary, else from the last evaluation rows."""
    recorded = run.summary.get(phase)
    found = {name: interval(recorded.get(name)) for name in MEASURES} if isinstance(recorded, Mapping) else {}
    for row in run.rows:
        if row.get("phase") == "eval" and row.get("at") == phase and not isinstance(recorded, Mapping):
            found[f"accuracy_{row.get('setting')}"] = interval(row.get("accuracy"))
            if row.get("setting") == "dynamic":
                found["tokens_per_forward"] = interval(row.get("tokens_per_forward"))
    return {name: value for name, value in found.items() if value is not None and name in MEASURES}


def seconds(run: RunFiles) -> dict[str, float]:
    """Seconds per phase from the summary, else added up over the metrics rows of each phase."""
    recorded = run.summary.get("seconds")
    if isinstance(recorded, Mapping):
        return {str(name): float(value) for name, value in recorded.items() if is_drawable(value) and value >= 0}
    totals: dict[str, float] = {}
    for row in run.rows:
        spent = row.get("seconds")
        amounts = spent.values() if isinstance(spent, Mapping) else [spent]
        for amount in amounts:
            if is_drawable(amount) and amount >= 0:
                totals[str(row.get("phase"))] = totals.get(str(row.get("phase")), 0.0) + amount
    return totals


def training_rows(run: RunFiles, phase: str) -> list[Row]:
    """Rows of ``phase`` with a usable step, by step; a step that was repeated after a resume counts once, the last."""
    return list(_last_by_step(row for row in run.rows if row.get("phase") == phase))


def evaluation_rows(run: RunFiles, phase: str, setting: str) -> list[Row]:
    """Evaluation rows made during or after ``phase`` under ``setting``, by step, the last of each step."""
    return list(
        _last_by_step(
            row
            for row in run.rows
            if row.get("phase") == "eval" and row.get("at") == phase and str(row.get("setting")) == setting
        )
    )


def _last_by_step(rows: Iterable[Row]) -> list[Row]:
    by_step = {row["step"]: row for row in rows if is_drawable(row.get("step"))}
    return [by_step[step] for step in sorted(by_step)]


def _text(path: Path, remarks: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        remarks.append(f"{path.name} is missing.")
    except OSError as error:
        remarks.append(f"{path.name} could not be read: {error.strerror}.")
    return ""


def _rows(text: str, remarks: list[str]) -> list[Row]:
    rows: list[Row] = []
    damaged = []
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            damaged.append(number)
    if damaged:
        last = max(number for number, line in enumerate(lines, start=1) if line.strip())
        place = "the last line, as an interrupted run leaves it" if damaged == [last] else f"first: line {damaged[0]}"
        remarks.append(f"metrics.jsonl: skipped {len(damaged)} unreadable line{'s' * (len(damaged) > 1)} ({place}).")
    if text and not rows:
        remarks.append("metrics.jsonl holds no metrics.")
    return rows


def _summary(text: str, remarks: list[str]) -> Mapping[str, Any]:
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    remarks.append("summary.json is not a JSON object; it was left out.")
    return {}
