"""The deciding comparison: plain TraceRL against random masking, per base, and whether there may be a verdict at all.

Paired t-test over the seeds of the protocol, two-sided, p-values of the three bases corrected by Holm's procedure.
Beside it, how the two arms go together over seeds.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.paper.arms import EXPERIMENTS, RL_ARMS
from benchmarks.paper.place import protocol_state
from benchmarks.paper.protocol import BASES, DECIDING, LEVEL, TOLERANCE, WHOLE
from benchmarks.paper.reports import Parts, Results, accuracy, over_seeds, signed
from benchmarks.paper.statistics import Interval, correlation, holm, interval, paired, paired_p

TITLE = "Accuracy, TraceRL − random masking: paired by seed"
COLUMNS = ("", "seeds", "difference", "correlation", "compute", "p", "p (Holm)", "own intervals apart", "verdict")
READING = """\
Correlation: of the two arms' accuracies over seeds, which begin at the same start. Where it is high, the arms' own
intervals are those of the starts, and overlap whatever the difference is.
"""


def obstacles(results: Mapping[str, Results]) -> list[str]:
    """Why there is no verdict: seeds that are missing, protocols that differ, another scale, unequal compute."""
    found = [
        f"{arm} lacks seeds {', '.join(map(str, missing))}"
        for name, arms in DECIDING.items()
        for arm in arms
        if (missing := [seed for seed in EXPERIMENTS[name].seeds if seed not in _own(name, arm, results)])
    ]
    for name in DECIDING:
        share = _compute(name, results)
        if share is not None and abs(share - 1) > TOLERANCE:
            found.append(f"{name}: compute differs by {share - 1:+.1%}")
    states = [one["protocol"] for name, arms in DECIDING.items() for arm in arms
              for one in _own(name, arm, results).values()]  # fmt: skip
    if len({json.dumps(state, sort_keys=True) for state in states}) > 1:
        found.append("results were made under different protocols")
    if any(state["scale"] != protocol_state(WHOLE)["scale"] for state in states):
        found.append("results are not of whole scale")
    return found


def _own(name: str, arm: str, results: Mapping[str, Results]) -> dict[int, Mapping[str, Any]]:
    """Results of the experiment's seeds, and of no others."""
    known = results.get(name, {}).get(arm, {})
    return {seed: known[seed] for seed in EXPERIMENTS[name].seeds if seed in known}


def _compute(name: str, results: Mapping[str, Results]) -> float | None:
    """Mean compute of the first arm over that of the second, over seeds that both have; None where there is none."""
    one, other = (_own(name, arm, results) for arm in DECIDING[name])
    both = one.keys() & other.keys()
    means = [np.mean([found[seed]["cost"]["compute"] for seed in both]) for found in (one, other) if both]
    return float(means[0] / means[1]) if means else None


def _verdict(found: Interval, p: float) -> str:
    if p >= LEVEL:
        return "not told apart"
    return "TraceRL above" if found.mean > 0 else "TraceRL below"


def deciding_report(results: Mapping[str, Results]) -> Parts:
    """One row per base; p-values and verdicts only where nothing is in the way of any of them."""
    hindered, rows = obstacles(results), []
    pairs = {name: [over_seeds(_own(name, arm, results), accuracy) for arm in DECIDING[name]] for name in DECIDING}
    differences = {name: paired(*pair) for name, pair in pairs.items()}
    known = {name: one for name, one in differences.items() if one is not None and not hindered}
    raw = [paired_p(one) for one in known.values()]
    tests = dict(zip(known, zip(raw, holm(raw), strict=True), strict=True))
    for name, (first, _) in DECIDING.items():
        found, title, share = differences[name], BASES[RL_ARMS[first].base].title, _compute(name, results)
        if found is None:
            rows.append((title, "0", *[""] * (len(COLUMNS) - 2)))
            continue
        cells = ["", "", "", ""]
        if name in tests:
            p, corrected = tests[name]
            one, other = (interval(list(values.values())) for values in pairs[name])
            is_apart = one.is_above(other) or other.is_above(one)
            cells = [f"{p:.4f}", f"{corrected:.4f}", "yes" if is_apart else "no", _verdict(known[name], corrected)]
        shared = correlation(*pairs[name])
        facts = ("" if one is None else f"{one:.{digits}f}" for one, digits in ((shared, 2), (share, 3)))
        rows.append((title, str(found.count), signed(found), *facts, *cells))
    return (TITLE, COLUMNS, tuple(rows), (f"No verdict: {'; '.join(hindered)}.",) if hindered else ())
