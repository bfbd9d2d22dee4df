"""``report.html``: one run, self-contained. What changed, how training went, what decoding looks like before and after.

It is drawn from what the run directory holds, complete or not, and says what is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from revelm.core.atomic import write_text_atomic
from revelm.viz.charts import Series, line_chart
from revelm.viz.comparison import comparison_rows, headline
from revelm.viz.entry import TraceEntry, plain_text
from revelm.viz.run_files import Row, RunFiles, evaluation_rows, interval, read_run, seconds, training_rows
from revelm.viz.templating import fill
from revelm.viz.ticks import is_drawable
from revelm.viz.trace_page import player

PHASE_NAMES = {"sft": "Supervised fine-tuning", "rl": "Reinforcement learning"}
SETTING_NAMES = {"static": "static, greedy", "dynamic": "dynamic", "dynamic_t05": "dynamic, temperature 0.5"}
CURVES = {
    "reward": "Reward",
    "accuracy": "Accuracy of rollouts",
    "kl": "KL to the behaviour policy",
    "clip_fraction": "Clip fraction",
    "entropy": "Entropy (nats)",
    "length": "Response length (tokens)",
    "tokens_per_forward": "Tokens per forward",
    "loss": "Loss",
    "grad_norm": "Gradient norm",
    "learning_rate": "Learning rate",
    "seconds": "Seconds per step",
}
EXPECTED = {"sft": ("loss", "grad_norm", "learning_rate", "seconds"), "rl": tuple(CURVES)}
_NOT_CURVES = {"phase", "step", "at", "setting"}
_EXACT = {"learning_rate"}  # set by a schedule: a moving average would only blur it
TracePair = tuple[TraceEntry, TraceEntry]


@dataclass(frozen=True)
class PhaseView:
    """The charts of one training phase, the window of their moving averages, and expected curves it did not record."""

    name: str
    num_rows: int
    smooth: int
    charts: tuple[Markup, ...]
    more: tuple[Markup, ...]
    absent: tuple[str, ...]


def write_report(run_dir: Path, traces: Sequence[TracePair] | None = None) -> Path:
    """Write ``run_dir/report.html`` in one piece and return its path.

    ``traces`` are (before, after) pairs of the same problem, shown side by side. Missing or damaged run files are
    remarked on in the report; ValueError only when ``run_dir`` is no directory.
    """
    path = Path(run_dir) / "report.html"
    write_text_atomic(path, report_page(read_run(Path(run_dir)), traces or ()))
    return path


def report_page(run: RunFiles, traces: Sequence[TracePair]) -> str:
    """The report as an HTML document."""
    phases = [phase_view(run, phase) for phase in phases_of(run)]
    remarks = list(run.remarks)
    if not phases:
        remarks.append("No training metrics were recorded, so there are no curves.")
    if not traces:
        stored = (
            f"; {run.num_trajectory_files} files of trajectories are in trajectories/"
            if run.num_trajectory_files
            else ""
        )
        remarks.append(f"No pair of traces was given to this report{stored}.")
    return fill(
        "report.html",
        title=plain_text(run.name),
        headline=plain_text(headline(run)),
        remarks=[plain_text(remark) for remark in remarks],
        comparison=comparison_rows(run),
        phases=phases,
        seconds=_shares(seconds(run)),
        config=plain_text(run.config),
        players=[player(pair, f"trace-{i}") for i, pair in enumerate(traces, start=1)],
    )


def phases_of(run: RunFiles) -> list[str]:
    """Training phases with metrics or evaluations: sft and rl first, then any other, in order of appearance."""
    found = [str(row.get("at") if row.get("phase") == "eval" else row.get("phase")) for row in run.rows]
    names = [name for name in dict.fromkeys(found) if name != "None"]
    return sorted(names, key=lambda name: list(PHASE_NAMES).index(name) if name in PHASE_NAMES else len(PHASE_NAMES))


def phase_view(run: RunFiles, phase: str) -> PhaseView:
    """All curves of ``phase`` that have a number to show; numbers without a known name go under ``more``."""
    rows = training_rows(run, phase)
    smooth = max(len(rows) // 20, 1)
    charts, absent = _evaluation_charts(run, phase), []
    for key in CURVES:
        series = _curve(rows, key)
        if series:
            charts.append(_chart(CURVES[key], series, 0 if key in _EXACT else smooth))
        elif rows and key in EXPECTED.get(phase, ()):
            absent.append(key)
    others = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in {*CURVES, *_NOT_CURVES}]
    more = [_chart(key, series, smooth) for key in others if (series := _curve(rows, key))]
    name = PHASE_NAMES.get(phase, plain_text(phase))
    return PhaseView(name, len(rows), smooth, tuple(charts), tuple(more), tuple(absent))


def _evaluation_charts(run: RunFiles, phase: str) -> list[Markup]:
    """Evaluation accuracy and TPF along the phase, when it was measured more than once."""
    charts = []
    settings = dict.fromkeys(str(row.get("setting")) for row in run.rows if row.get("phase") == "eval")
    for key, title in (("accuracy", "Evaluation accuracy"), ("tokens_per_forward", "Evaluation tokens per forward")):
        series = []
        for setting in settings:
            rows = evaluation_rows(run, phase, setting)
            series += [Series(SETTING_NAMES.get(setting, setting), one.points, one.band) for one in _curve(rows, key)]
        if any(len(one.points) > 1 for one in series):
            charts.append(_chart(title, series, 0))
    return charts


def _curve(rows: Sequence[Row], key: str) -> list[Series]:
    """``key`` over steps: one series, or one per name where the value is a mapping of numbers (seconds by part)."""
    values = [(row["step"], row.get(key)) for row in rows]
    parts = dict.fromkeys(str(name) for _, v in values if isinstance(v, Mapping) and "mean" not in v for name in v)
    if parts:
        split = [
            Series(part, [(x, v.get(part) if isinstance(v, Mapping) else None) for x, v in values]) for part in parts
        ]
        return [one for one in split if any(is_drawable(y) for _, y in one.points)]
    found = [(x, interval(v)) for x, v in values]
    if not any(v is not None for _, v in found):
        return []
    band = [(x, v.low, v.high) for x, v in found if v is not None and v.low is not None]
    return [Series(key, [(x, v.mean if v is not None else None) for x, v in found], band)]


def _chart(title: str, series: Sequence[Series], smooth: int) -> Markup:
    return Markup(line_chart(title, series, smooth=smooth))  # noqa: S704 - the chart escapes


def _shares(spent: Mapping[str, float]) -> list[dict[str, Any]]:
    """Bars of the time table: each phase with its seconds and its share of the longest."""
    longest = max(spent.values(), default=0.0)
    return [
        {
            "name": plain_text(PHASE_NAMES.get(name, name)),
            "seconds": value,
            "share": 100 * value / longest if longest else 0.0,
        }
        for name, value in spent.items()
    ]
