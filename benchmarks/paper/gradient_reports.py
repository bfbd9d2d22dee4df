"""The rows of the tables of experiments (3) and (9): noise and directions of gradients."""

from collections.abc import Sequence

import numpy as np

from benchmarks.paper.arms import POLICIES, RL_ARMS
from benchmarks.paper.protocol import BASES
from benchmarks.paper.reports import Parts, Results, cell, seeds_of
from benchmarks.paper.statistics import interval


def value_report(name: str, results: Results) -> list[Parts]:
    """Noise of the gradient over its signal, by credit."""
    rows = []
    for arm, found in results.items():
        for credit in next(iter(found.values()))["credits"]:
            ratios = [r["credits"][credit]["ratio"] for r in found.values()]
            known = [ratio for ratio in ratios if ratio is not None]
            # A mean over the seeds whose signal was found would leave out just those with the most noise.
            shown = str(interval(known)) if len(known) == len(ratios) else f"none ({_ratios(ratios)})"
            rows.append((f"{arm}, {credit}", shown, f"{len(known)} of {len(ratios)}",
                         cell(found, lambda r: r["accuracy"])))  # fmt: skip
    columns = ("", "noise / signal", "seeds with a signal", "accuracy of the answers")
    note = (
        "Steps to average until noise is as large as the signal: less is better. No mean where the signal of a seed "
        "drowned: its ratio has no bound; the others stand in brackets."
    )
    return [(seeds_of(results), columns, tuple(rows), (note,))]


def estimators_report(name: str, results: Results) -> list[Parts]:
    """One table per policy: positions, noise, directions and gains of every objective."""
    found: list[Parts] = []
    for arm, seeds in results.items():
        base, is_later = POLICIES[arm]
        one = next(iter(seeds.values()))
        rows = []
        for objective in one["objectives"]:
            numbers = [r["objectives"][objective] for r in seeds.values()]
            cells = [_known([n[key] for n in numbers]) for key in ("ratio", "cosine", "step_cosine")]
            columns_of_gains = zip(*(n["gains"] or [None] * len(one["lengths"]) for n in numbers), strict=True)
            gains = [_known(values) for values in columns_of_gains]
            size = f"{np.mean([n['positions'] for n in numbers]):,.0f}"
            rows.append((RL_ARMS[f"{base}-{objective}"].title, size, *cells, *gains))
        title = f"{BASES[base].title}, {'later' if is_later else 'at the start'}, {seeds_of({arm: seeds})}"
        columns = ("", "positions / step", "noise / signal", "cosine to TraceRL", "of a single step",
                   *(f"gain at {length}" for length in one["lengths"]))  # fmt: skip
        found.append((f"{title}, accuracy {cell(seeds, lambda r: r['accuracy'])}", columns, tuple(rows), ()))
    return found


def _known(values: Sequence[float | None]) -> str:
    """Mean and interval; how many there are where some drowned."""
    known = [value for value in values if value is not None]
    return str(interval(known)) if known and len(known) == len(values) else f"{len(known)} of {len(values)} known"


def _ratios(values: Sequence[float | None]) -> str:
    return ", ".join("drowned" if value is None else f"{value:.1f}" for value in values)
