"""Plots of every experiment as SVG, by the project's own charts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.paper.arms import EXPERIMENTS, POLICIES, RL_ARMS, SFT_ARMS
from benchmarks.paper.protocol import BASES, ECHOES, REFERENCE_ARM
from benchmarks.paper.reports import Results, accuracy, curves_of, over_seeds
from benchmarks.paper.statistics import interval, paired
from revelm.viz.charts import Series, line_chart

SIZE = (720, 360)
SMOOTH = 5


def curve(name: str, xs: Sequence[float], runs: Sequence[Sequence[float]]) -> Series:
    """Mean over runs (runs x points) with its 95 % interval as a band; without one for a single run."""
    found = [interval([run[i] for run in runs]) for i in range(len(xs))]
    band = [(x, one.low, one.high) for x, one in zip(xs, found, strict=True)] if len(runs) > 1 else []
    return Series(name, [(x, one.mean) for x, one in zip(xs, found, strict=True)], band)


def smoothed(values: Sequence[float]) -> list[float]:
    """Means of up to ``SMOOTH`` steps behind and including each."""
    return [float(np.mean(values[max(0, i + 1 - SMOOTH) : i + 1])) for i in range(len(values))]


def reward_plot(name: str, results: Results) -> dict[str, str]:
    """Reward over steps."""
    bases = dict.fromkeys(RL_ARMS[arm].base for arm in results)
    found = {}
    for base in bases:
        series = []
        for arm, seeds in results.items():
            runs = [smoothed(r["training"]["reward"]) for r in seeds.values()]
            if RL_ARMS[arm].base == base and runs:
                steps = min(len(run) for run in runs)
                series.append(curve(RL_ARMS[arm].title, range(1, steps + 1), runs))
        title = f"{EXPERIMENTS[name].title}: reward in training ({BASES[base].title})"
        found[name if len(bases) == 1 else f"{name}-{base}"] = line_chart(title, series, size=SIZE)
    return found


def sft_plot(name: str, results: Results) -> dict[str, str]:
    """Accuracy over compute."""
    found = {}
    for base in dict.fromkeys(SFT_ARMS[arm].base for arm in results):
        series = []
        for arm, seeds in results.items():
            if SFT_ARMS[arm].base != base:
                continue
            points = [[(0.0, accuracy(r, when="start")), *((p["compute"] / 1e3, p["accuracy"]) for p in r["curve"])]
                      for r in seeds.values()]  # fmt: skip
            size = min(len(run) for run in points)
            xs = [float(np.mean([run[i][0] for run in points])) for i in range(size)]
            series.append(curve(SFT_ARMS[arm].title, xs, [[y for _, y in run] for run in points]))
        title = f"{EXPERIMENTS[name].title}: accuracy ({BASES[base].title})"
        found[f"{name}-{base}"] = line_chart(title, series, x_label="compute, thousand positions", size=SIZE)
    return found


def tpf_plot(name: str, results: Results) -> dict[str, str]:
    """Tokens per forward over accuracy, before and after, one line per temperature: means over seeds."""
    found = {}
    for base, seeds in results.items():
        series = []
        for when in ("before", "after"):
            heats = list(next(iter(seeds.values()))["curves"][when])
            mean = np.mean(np.array([curves_of(r, when) for r in seeds.values()]), axis=0)
            series += [
                Series(f"{when}, T = {heat}", [(float(a), float(v)) for a, v in points])
                for heat, points in zip(heats, mean, strict=True)
            ]
        title = f"{EXPERIMENTS[name].title} ({BASES[base].title})"
        found[f"{name}-{base}"] = line_chart(title, series, x_label="accuracy", size=SIZE)
    return found


def shrinkage_plot(name: str, results: Results) -> dict[str, str]:
    """Accuracy over s, beside the rewards."""
    points, band = [], []
    for arm, seeds in results.items():
        s = float(RL_ARMS[arm].stages[0][1]["objective"].get("shrinkage", 1))
        one = interval(list(over_seeds(seeds, accuracy).values()))
        points.append((s, one.mean))
        band += [(s, one.low, one.high)] if np.isfinite(one.half) else []
    chart = line_chart(
        f"{EXPERIMENTS[name].title}: accuracy", [Series("accuracy", points, band)], x_label="s", size=SIZE
    )
    return {f"{name}-accuracy": chart, **reward_plot(name, results)}


def value_plot(name: str, results: Results) -> dict[str, str]:
    """Noise over signal by credit, one line per policy."""
    names: list[str] = list(next(iter(next(iter(results.values())).values()))["credits"])
    series = []
    for arm, seeds in results.items():
        points: list[tuple[float | None, float | None]] = []
        for place, credit in enumerate(names):
            ratios = [r["credits"][credit]["ratio"] for r in seeds.values()]
            known = [ratio for ratio in ratios if ratio is not None]
            points.append((float(place), interval(known).mean if len(known) == len(ratios) else None))
        series.append(Series(arm, points))
    label = ", ".join(f"{place}: {credit}" for place, credit in enumerate(names))
    return {name: line_chart(f"{EXPERIMENTS[name].title}: noise / signal", series, x_label=label, size=SIZE)}


def echoes_plot(name: str, results: Results) -> dict[str, str]:
    """The difference between TraceRL and random masking over echoes."""
    points, band = [], []
    for base, count in ECHOES.items():
        pair = [over_seeds(results.get(f"{base}-{method}", {}), accuracy) for method in ("trace", REFERENCE_ARM)]
        if (one := paired(*pair)) is not None:
            points.append((float(count), one.mean))
            band += [(float(count), one.low, one.high)] if np.isfinite(one.half) else []
    title = f"{EXPERIMENTS[name].title}: accuracy, TraceRL − random masking"
    return {name: line_chart(title, [Series("difference", points, band)], x_label="echoes", size=SIZE)}


def estimators_plot(name: str, results: Results) -> dict[str, str]:
    """What a step along the mean gradient of each objective is worth, at the first policy that is there."""
    arm, seeds = next(iter(results.items()))
    one = next(iter(seeds.values()))
    series = []
    for objective in one["objectives"]:
        runs = [[0.0, *gains] for r in seeds.values() if (gains := r["objectives"][objective]["gains"])]
        if runs:
            series.append(curve(RL_ARMS[f"{POLICIES[arm][0]}-{objective}"].title, [0.0, *one["lengths"]], runs))
    title = f"{EXPERIMENTS[name].title}: gain ({arm})"
    return {name: line_chart(title, series, x_label="length of the step", size=SIZE)}


def plots_of(name: str, results: Results) -> dict[str, str]:
    """{file name without ending: SVG} of one experiment."""
    return PLOTS.get(name, reward_plot)(name, results)


PLOTS: Mapping[str, Any] = {
    "sft": sft_plot,
    "tpf": tpf_plot,
    "shrinkage": shrinkage_plot,
    "value": value_plot,
    "echoes": echoes_plot,
    "estimators": estimators_plot,
}
