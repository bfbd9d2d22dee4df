"""The rows of every experiment's tables, from its result files."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.paper.arms import EXPERIMENTS, RL_ARMS, SFT_ARMS
from benchmarks.paper.protocol import BASES, ECHOES, PRIMARY, REFERENCE_ARM
from benchmarks.paper.statistics import (
    Interval,
    best_speed,
    common_accuracies,
    interval,
    paired,
    variance_over_seeds,
    variance_over_steps,
)

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]
Parts = tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...], tuple[str, ...]]  # of a Table
Number = Callable[[Mapping[str, Any]], float]
READING = """\
Cells are means over seeds ± half of a 95 % interval (Student's t). "dynamic" is temperature 1 with the dynamic rule at
0.9, the primary outcome; "T = 0.5" the same at temperature 0.5; "static" greedy, one token per step. Differences are
paired by seed. Only the deciding comparison has a verdict; all other numbers are secondary. Compute counts positions: 1
per position that is forwarded, by the engine as well, 3 with gradient; relative to the first arm of the table. "Mean
reward" is that of an arm's own steps; "reward at equal steps" is the difference to the reference over the last ten
steps that both have taken: what is left when a method whose steps are cheaper is not given more of them. The variance
of the reward is that over seeds at a step, averaged over steps; and that of a run around its own trend.
"""
ACCURACIES = 5
LATE = 10


def accuracy(result: Mapping[str, Any], setting: str = PRIMARY, when: str = "evaluations") -> float:
    """Share of right answers under a setting."""
    return float(result[when][setting]["accuracy"])


def mean_reward(result: Mapping[str, Any]) -> float:
    """Over all steps of training."""
    return float(np.mean(result["training"]["reward"]))


def over_seeds(results: Mapping[int, Mapping[str, Any]], number: Number) -> dict[int, float]:
    """{seed: number}."""
    return {seed: number(result) for seed, result in results.items()}


def cell(results: Mapping[int, Mapping[str, Any]], number: Number) -> str:
    """Mean and interval."""
    return str(interval(list(over_seeds(results, number).values())))


def signed(found: Interval | None) -> str:
    """A difference with its interval; empty for None."""
    if found is None:
        return ""
    return f"{found.mean:+.3f} ± {found.half:.3f}" if np.isfinite(found.half) else f"{found.mean:+.3f}"


def _first(results: Results) -> Mapping[int, Mapping[str, Any]]:
    return next(iter(results.values()))


def rl_report(name: str, results: Results) -> list[Parts]:
    """Experiments (2), (4), (7), two tables per base: accuracy, reward, differences to the reference arm and cost;
    variance of the reward, and rollouts."""
    found: list[Parts] = []
    for base in dict.fromkeys(RL_ARMS[arm].base for arm in results):
        arms = {arm: seeds for arm, seeds in results.items() if RL_ARMS[arm].base == base}
        title = f"{BASES[base].title}, {seeds_of(arms)}"
        found += [_outcomes(title, arms, f"{base}-{EXPERIMENTS[name].reference}"), _training_report(title, arms)]
    return found


def seeds_of(results: Results) -> str:
    """How many seeds the arms have: "5 seeds", or "3 to 5 seeds"."""
    counts = sorted({len(found) for found in results.values()})
    if len(counts) > 1:
        return f"{counts[0]} to {counts[-1]} seeds"
    return f"{counts[0]} seeds" if counts[0] > 1 else "1 seed"


def _outcomes(title: str, results: Results, reference: str) -> Parts:
    base = results.get(reference, {})
    compute = np.mean([one["cost"]["compute"] for one in _first(results).values()])
    rows = [("start", cell(_first(results), lambda r: accuracy(r, when="start")), *[""] * 11)]
    for arm, found in results.items():
        differences = [
            "" if arm == reference else signed(paired(over_seeds(found, number), over_seeds(base, number)))
            for number in (accuracy, mean_reward)
        ]
        cost = np.mean([r["cost"]["compute"] for r in found.values()]) / compute
        rows.append(
            (
                RL_ARMS[arm].title,
                cell(found, accuracy),
                cell(found, mean_reward),
                *differences,
                *(cell(found, partial(accuracy, setting=s)) for s in ("dynamic_t05", "static")),
                "" if arm == reference else signed(at_equal_steps(found, base)),
                f"{np.mean([len(r['training']['reward']) for r in found.values()]):.1f}",
                f"{np.mean([_per_step(r, 'positions') for r in found.values()]):,.0f}",
                f"{np.mean([_per_step(r, 'rollout_positions') for r in found.values()]):,.0f}",
                f"{cost:.3f}",
                f"{np.mean([sum(r['training']['seconds']) for r in found.values()]):.0f}",
            )
        )
    other = RL_ARMS[reference].title
    columns = ("", "dynamic", "mean reward", f"dynamic − {other}", f"reward − {other}", "T = 0.5", "static",
               "reward at equal steps", "steps", "trained / step", "rollout / step", "compute", "seconds")  # fmt: skip
    return (title, columns, tuple(rows), ())


def at_equal_steps(found: Mapping[int, Mapping[str, Any]], base: Mapping[int, Mapping[str, Any]]) -> Interval | None:
    """The difference in mean reward over the last ``LATE`` steps that both have taken, paired by seed."""

    def late(result: Mapping[str, Any], other: Mapping[str, Any]) -> float:
        rewards, steps = result["training"]["reward"], len(other["training"]["reward"])
        return float(np.mean(rewards[: min(len(rewards), steps)][-LATE:]))

    both = found.keys() & base.keys()
    return paired({s: late(found[s], base[s]) for s in both}, {s: late(base[s], found[s]) for s in both})


def _per_step(result: Mapping[str, Any], name: str) -> float:
    values = [v for v in result["training"].get(name, []) if v is not None]
    return float(np.mean(values)) if values else float("nan")


def _training_report(title: str, results: Results) -> Parts:
    rows = []
    for arm, found in results.items():
        curves = [r["training"]["reward"] for r in found.values()]
        shared = min(len(curve) for curve in curves)  # arms with a budget may take a step more or less
        steps = [1e4 * variance_over_steps(curve) for curve in curves if len(curve) > 1]
        rows.append(
            (
                RL_ARMS[arm].title,
                f"{1e4 * variance_over_seeds([c[:shared] for c in curves]):.2f}" if len(curves) > 1 else "",
                str(interval(steps)) if steps else "",
                *(cell(found, partial(_per_step, name=n)) for n in ("tokens_per_forward", "forwards")),
                f"{np.mean([sum(r['training']['seconds_rollout']) for r in found.values()]):.0f}",
            )
        )
    columns = ("", "over seeds (1e-4)", "over steps (1e-4)", "TPF", "forwards / answer", "rollout seconds")
    return (f"{title}: variance of the reward, and rollouts", columns, tuple(rows), ())


def sft_report(name: str, results: Results) -> list[Parts]:
    """One table per base: accuracy after equal compute, collecting traces included."""
    found: list[Parts] = []
    for base in dict.fromkeys(SFT_ARMS[arm].base for arm in results):
        arms = {arm: r for arm, r in results.items() if SFT_ARMS[arm].base == base}
        first = _first(arms)
        rows = [("start", *(cell(first, partial(accuracy, setting=s, when="start")) for s in _SETTINGS), *[""] * 4)]
        for arm, own in arms.items():
            gap = paired(over_seeds(own, accuracy), over_seeds(first, accuracy))
            budget = np.mean([r["cost"]["compute"] / r["cost"]["budget"] for r in own.values()])
            collecting = np.mean([r["cost"]["collecting"] / r["cost"]["budget"] for r in own.values()])
            steps = np.mean([len(r["training"]["positions"]) for r in own.values()])
            shown = "" if own is first else signed(gap)
            rows.append((SFT_ARMS[arm].title, *(cell(own, partial(accuracy, setting=s)) for s in _SETTINGS), shown,
                         f"{steps:.1f}", f"{collecting:.3f}", f"{budget:.3f}"))  # fmt: skip
        title = f"{BASES[base].title}, {seeds_of(arms)}"
        first_title = SFT_ARMS[next(iter(arms))].title
        columns = ("", "dynamic", "T = 0.5", "static", f"dynamic − {first_title}", "steps",
                   "collecting / budget", "compute / budget")  # fmt: skip
        found.append((title, columns, tuple(rows), ()))
    return found


_SETTINGS = (PRIMARY, "dynamic_t05", "static")


def _at_size(result: Mapping[str, Any], when: str, size: int, key: str) -> float:
    return float(result[when][f"{PRIMARY}@{size}"][key])


def enlarge_report(name: str, results: Results) -> list[Parts]:
    """Accuracy and tokens per forward when decoding in blocks of 4 and of 8."""
    first, rows = _first(results), []
    for title, found, when in [("start", first, "start"), *((RL_ARMS[a].title, r, "evaluations")
                                                            for a, r in results.items())]:  # fmt: skip
        cells = [
            cell(found, partial(_at_size, when=when, size=size, key=key))
            for size in (4, 8)
            for key in ("accuracy", "tokens_per_forward")
        ]
        gap = paired(*(over_seeds(r, partial(_at_size, when=when, size=8, key="accuracy")) for r in (found, first)))
        rows.append((title, *cells, "" if found is first else signed(gap)))
    other = RL_ARMS[next(iter(results))].title
    columns = ("", "dynamic at 4", "TPF at 4", "dynamic at 8", "TPF at 8", f"at 8 − {other}")
    return [(seeds_of(results), columns, tuple(rows), ())]


def curves_of(result: Mapping[str, Any], when: str) -> list[list[tuple[float, float]]]:
    """(accuracy, TPF) by temperature, in the order of thresholds."""
    return [[(float(a), float(v)) for a, v in curve] for curve in result["curves"][when].values()]


def tpf_report(name: str, results: Results) -> list[Parts]:
    """TPF before and after RL at accuracies that both reach, on the best temperature and threshold of each."""
    rows: list[tuple[str, ...]] = []
    for base, found in results.items():
        mean = {when: _mean_curves([curves_of(r, when) for r in found.values()]) for when in ("before", "after")}
        shared = common_accuracies(mean["before"], mean["after"], ACCURACIES)
        if not shared:
            said = " and ".join(f"{_range(mean[when])} {when}" for when in mean)
            rows.append((f"{BASES[base].title}, no common accuracy: {said}", "", "", "", f"0 of {len(found)}"))
        for wanted in shared:
            pairs = [
                (best_speed(curves_of(r, "before"), wanted), best_speed(curves_of(r, "after"), wanted))
                for r in found.values()
            ]
            known = [(one, other) for one, other in pairs if one is not None and other is not None]
            cells = [str(interval([p[i] for p in known])) if known else "" for i in (0, 1)]
            gain = str(interval([other / one for one, other in known])) if known else ""
            rows.append((f"{BASES[base].title}, accuracy {wanted:.3f}", *cells, gain, f"{len(known)} of {len(pairs)}"))
    notes = ("Each seed at the fastest of its temperatures and thresholds with that accuracy, interpolated.",)
    return [(seeds_of(results), ("", "TPF before", "TPF after", "after / before", "seeds"), tuple(rows), notes)]


def _range(curves: Sequence[Sequence[tuple[float, float]]]) -> str:
    found = [accuracy for curve in curves for accuracy, _ in curve]
    return f"{min(found):.3f} to {max(found):.3f}"


def _mean_curves(curves: Sequence[Sequence[Sequence[tuple[float, float]]]]) -> list[list[tuple[float, float]]]:
    """Curves averaged over seeds, point by point."""
    mean = np.mean(np.array(curves), axis=0)
    return [[(float(a), float(v)) for a, v in curve] for curve in mean]


def echoes_report(name: str, results: Results) -> list[Parts]:
    """TraceRL and random masking by echoes, and their difference."""
    rows = []
    for base, count in ECHOES.items():
        arms = [results.get(f"{base}-{method}", {}) for method in ("trace", REFERENCE_ARM)]
        if not all(arms):
            continue
        gaps = [signed(paired(*(over_seeds(found, number) for found in arms))) for number in (accuracy, mean_reward)]
        compute = [np.mean([r["cost"]["compute"] for r in found.values()]) for found in arms]
        start = cell(arms[0], lambda r: accuracy(r, when="start"))
        rows.append((str(count), start, *(cell(found, accuracy) for found in arms), *gaps,
                     f"{compute[1] / compute[0]:.3f}"))  # fmt: skip
    columns = ("echoes", "start", "TraceRL", "random masking", "dynamic: difference", "reward: difference", "compute")
    notes = ("Compute: of random masking, relative to TraceRL. Differences: TraceRL − random masking.",)
    return [(seeds_of(results), columns, tuple(rows), notes)]
