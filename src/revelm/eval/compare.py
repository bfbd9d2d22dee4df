"""Two evaluations of the same problems, compared problem by problem.

Let d be the difference of a problem's mean accuracies, second minus first. Their mean has the interval of Bonett and
Price (2012): two differences, 1 and -1, are added to the n that there are, and the usual interval is taken, here with
Student's t; it holds for one answer to each problem as for several, and has a width where nothing differed.

The p-value is exact: of all ways to give the differences their signs, how many have a sum at least as far from 0. For
one answer to each problem that is McNemar's test; beyond 20 problems that differ, signs are drawn 100,000 times
(Phipson and Smyth 2010: never 0). Of several pairs of task and setting, ``p_holm`` is corrected for their number
(Holm 1979).
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from revelm.core.seeds import derive_seed
from revelm.eval.beta import t_quantile
from revelm.eval.metrics import by_problem
from revelm.eval.samples import Sample
from revelm.eval.store import SAMPLES, read_samples
from revelm.eval.tables import results_of, table

MAX_EXACT = 20
NUM_DRAWS = 100_000
SHOWN = 20
_ROUNDING = 1e-9


def compare_evaluations(first: Path, second: Path) -> dict[str, Any]:
    """What ``second`` has over ``first``: under "comparisons" an entry for each task and setting that both have.

    An entry: ``difference`` of accuracies {"mean", "low", "high", "n"} (n: problems that both answered), ``p``,
    ``p_holm``, the ids of problems ``won`` and ``lost`` (by ``second``), ``num_equal``, and how many problems were
    ``left_out`` because only one has them or they are asked otherwise. ValueError for a folder that is no finished
    evaluation, and where nothing is common.
    """
    ones, others = _read(first), _read(second)
    entries = []
    for key in (key for key in ones if key in others):
        accuracies = _accuracies(ones[key]), _accuracies(others[key])
        common = [name for name in accuracies[0] if name in accuracies[1]]
        left_out = len({*accuracies[0], *accuracies[1]}) - len(common)
        if common:
            pairs = {name: (accuracies[0][name], accuracies[1][name]) for name in common}
            entries.append({"task": key[0], "setting": key[1], **compared(pairs), "left_out": left_out})
    if not entries:
        raise ValueError(
            f"{first} and {second}: no problem was answered in both under a setting of the same name; "
            f"{_told(first, ones)}; {_told(second, others)}"
        )
    for entry, corrected in zip(entries, holm([entry["p"] for entry in entries]), strict=True):
        entry["p_holm"] = corrected
    return {"first": str(first), "second": str(second), "comparisons": entries}


def compared(pairs: Mapping[Any, tuple[float, float]], *, seed: int = 0) -> dict[str, Any]:
    """The paired comparison of accuracies (first, second) by problem; names are ids, or (id, question)."""
    d = np.array([second - first for first, second in pairs.values()])
    ids = [name if isinstance(name, str) else name[0] for name in pairs]
    return {
        "first": float(np.mean([first for first, _ in pairs.values()])),
        "second": float(np.mean([second for _, second in pairs.values()])),
        "difference": difference(d),
        "p": sign_flip_p(d, seed=seed),
        "won": [name for name, value in zip(ids, d, strict=True) if value > _ROUNDING],
        "lost": [name for name, value in zip(ids, d, strict=True) if value < -_ROUNDING],
        "num_equal": int((np.abs(d) <= _ROUNDING).sum()),
    }


def difference(d: np.ndarray) -> dict[str, float]:
    """Mean of differences in [-1, 1], one for each problem, and its 95 % interval."""
    count, mean = len(d) + 2, float(d.mean())
    centre = float(d.sum()) / count
    spread = (float((d**2).sum()) + 2) / count - centre**2
    half = t_quantile(len(d) + 1) * math.sqrt(spread / count)
    return {"mean": mean, "low": max(-1.0, min(mean, centre - half)), "high": min(1.0, max(mean, centre + half)),
            "n": len(d)}  # fmt: skip


def sign_flip_p(d: np.ndarray, *, seed: int = 0) -> float:
    """Two-sided p-value of differences that are as likely to have either sign."""
    sizes = np.abs(d[np.abs(d) > _ROUNDING])
    if len(sizes) == 0:
        return 1.0
    observed = abs(float(d.sum())) - _ROUNDING
    if np.ptp(sizes) <= _ROUNDING:
        return _mcnemar(int((d > _ROUNDING).sum()), len(sizes))
    if len(sizes) <= MAX_EXACT:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate([sums + size, sums - size])
        return float((np.abs(sums) >= observed).mean())
    rng = np.random.default_rng(derive_seed(seed, "sign flips"))
    extreme = sum(
        int((np.abs((1 - 2.0 * rng.integers(0, 2, (1000, len(sizes)))) @ sizes) >= observed).sum())
        for _ in range(NUM_DRAWS // 1000)
    )
    return (extreme + 1) / (NUM_DRAWS + 1)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are: the smallest times n, the next times n - 1, ...; never decreasing."""
    found, floor = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        floor = found[place] = max(floor, min(1.0, (len(values) - rank) * values[place]))
    return found


def comparison_markdown(found: Mapping[str, Any]) -> str:
    """The result as a page: a table, then the problems that were won and lost."""
    header = ["task", "setting", "first", "second", "difference", "problems", "won", "lost", "p", "p (Holm)"]
    rows, lists = [], []
    for one in found["comparisons"]:
        d = one["difference"]
        interval = f"{100 * d['mean']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]"
        numbers = [f"{100 * one['first']:.1f}", f"{100 * one['second']:.1f}", interval, str(d["n"])]
        counts = [str(len(one["won"])), str(len(one["lost"])), f"{one['p']:.4f}", f"{one['p_holm']:.4f}"]
        rows.append([one["task"], one["setting"], *numbers, *counts])
        for what in ("won", "lost"):
            more = len(one[what]) - SHOWN
            names = ", ".join(map(_code, one[what][:SHOWN])) + (f" and {more} more" if more > 0 else "")
            lists += [f"- {one['task']}, {one['setting']}, {what}: {names}"] if names else []
    title = f"- first: {_code(found['first'])}\n- second: {_code(found['second'])}\n\n"
    title += "Accuracies in per cent; second minus first, with 95 % intervals over problems that both answered."
    left = sum(one["left_out"] for one in found["comparisons"])
    note = [f"{left} problems are in one of the two only, or asked otherwise; they are left out."] if left else []
    return "\n\n".join([title, table(header, rows), *(["\n".join(lists)] if lists else []), *note])


def _code(name: str) -> str:
    """A name, which may be anything, as a piece of code on one line."""
    shown = "".join(sign if sign.isprintable() and sign != "`" else " " for sign in name)
    return f"`{' '.join(shown.split())}`"


def _mcnemar(won: int, differing: int) -> float:
    """Twice the smaller tail of a fair coin, at most 1."""
    tail = sum(math.comb(differing, i) for i in range(min(won, differing - won) + 1))
    return min(1.0, 2 * tail / 2**differing)


def _read(folder: Path) -> dict[tuple[str, str], list[Sample]]:
    """The samples by task and setting."""
    file = folder / "summary.json"
    if not file.is_file():
        raise ValueError(f"{file}: missing; give the folder of a finished evaluation (revelm eval --out)")
    summary = json.loads(file.read_text(encoding="utf-8"))
    if "environment" not in summary:
        raise ValueError(f"{file}: not of an evaluation that kept its samples")
    found = {}
    for task, result in results_of(summary).items():
        place = folder / task if "tasks" in summary else folder
        for setting in result["settings"]:
            found[task, setting] = read_samples(place / SAMPLES / f"{setting}.jsonl")
    return found


def _accuracies(samples: Sequence[Sample]) -> dict[tuple[str, str, str], float]:
    """By problem: what is asked counts as well as the id, which may be a row's number in another file."""
    return {
        (some[0].problem, some[0].question, some[0].reference): sum(one.correct for one in some) / len(some)
        for some in by_problem(samples)
    }


def _told(folder: Path, found: Mapping[tuple[str, str], Any]) -> str:
    return f"{folder} has {', '.join(f'{task}/{setting}' for task, setting in found)}"
