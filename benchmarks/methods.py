"""RL methods side by side at equal rollouts and updates, over several seeds, from one SFT start per seed.

TraceRL; random-masking RL; SFT on the correct rollouts only (rejection sampling); TraceRL with rewards shuffled within
each group (a control that should teach nothing); and two probes, TraceRL on the first block of every response only and
on all other blocks only, which tell where the task's decisions are. Each run's result is kept under ``--out``, so a
stopped benchmark resumes. The recipe is the quickstart's.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from revelm.core.atomic import write_json_atomic
from revelm.core.config import merge
from revelm.eval.beta import t_quantile
from revelm.trainers import quickstart, rl, sft
from revelm.trainers.run_log import METRICS

METHODS: dict[str, dict[str, Any]] = {
    "TraceRL": {"objective": {"kind": "trace_rl"}},
    "random masking": {"objective": {"kind": "random_mask_rl", "num_masks": 2}},
    "rejection SFT": {"objective": {"kind": "rejection_sft", "low": 0.3, "num_masks": 2}},
    "TraceRL, first block only": {"objective": {"kind": "benchmarks.first_block:FirstBlockOnly"}},
    "TraceRL, all but first": {"objective": {"kind": "benchmarks.first_block:FirstBlockOnly", "is_inverted": True}},
    "TraceRL, shuffled rewards": {"objective": {"kind": "trace_rl"}, "rewards": "shuffled"},
}


def run_seed(task: str, seed: int, out: str) -> dict[str, Any]:
    """SFT once, then every method from it; evaluation after each. Returns {name: result}."""
    import torch

    torch.set_num_threads(1)
    folder = Path(out) / f"{task}-{seed}"
    config = quickstart.quickstart_config(task, seed)
    folder.mkdir(parents=True, exist_ok=True)
    start = quickstart.start_model(config, folder)
    tuned = sft.run(quickstart.sft_config(config, start, folder / "sft"))
    found = {"SFT": quickstart.evaluate_stage(config, tuned, folder / "eval-sft")}
    for name, change in METHODS.items():
        slug = name.replace(", ", "-").replace(" ", "-").lower()
        changed = config.model_copy(update={"rl": merge({**config.rl, "objective": {}}, change)})
        taught = rl.run(quickstart.rl_config(changed, tuned, folder / slug))
        found[name] = quickstart.evaluate_stage(config, taught, folder / f"eval-{slug}")
        found[name] |= _training(folder / slug / METRICS)
    return found


def benchmark(*, task: str = "chain", seeds: tuple[int, ...] = (0, 1, 2), out: str = "runs/methods") -> dict[str, Any]:
    """All methods over all seeds, two processes at a time. Returns {seed: {name: result}}."""
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(run_seed, [task] * len(seeds), seeds, [out] * len(seeds)))
    found = {str(seed): result for seed, result in zip(seeds, results, strict=True)}
    write_json_atomic(Path(out) / f"{task}.json", found)
    return found


def spread(values: list[float]) -> tuple[float, float]:
    """Mean over seeds and half the width of its 95 % interval (Student's t)."""
    x = np.array(values)
    half = t_quantile(len(x) - 1) * float(x.std(ddof=1)) / len(x) ** 0.5 if len(x) > 1 else float("nan")
    return float(x.mean()), half


def show(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print accuracies, gains over SFT, tokens per forward and entropy, mean +- 95 % over seeds."""
    table = Table(title=f"RL methods at equal rollouts and updates, {len(found)} seeds, mean +- 95 % (Student's t)")
    columns = ("", "dynamic", "gain", "static", "TPF", "mean reward", "entropy (end)", "gain by seed")
    for column in columns:
        table.add_column(column, justify="left" if not column else "right")
    for name in next(iter(found.values())):
        gains = [_accuracy(r[name], "dynamic") - _accuracy(r["SFT"], "dynamic") for r in found.values()]
        cells = [_cell([_accuracy(r[name], s) for r in found.values()]) for s in ("dynamic", "static")]
        tpf = _cell([r[name]["settings"]["dynamic"]["tokens_per_forward"]["mean"] for r in found.values()])
        training = [[r[name].get(k) for r in found.values()] for k in ("reward", "entropy")]
        shown = ["" if None in values else _cell([float(v) for v in values if v is not None]) for values in training]
        by_seed = " ".join(f"{g:+.2f}" for g in gains)
        table.add_row(name, cells[0], _cell(gains), cells[1], tpf, *shown, by_seed)
    Console(width=170).print(table)


def _cell(values: list[float]) -> str:
    mean, half = spread(values)
    return f"{mean:.3f} +- {half:.3f}"


def _accuracy(result: Mapping[str, Any], setting: str) -> float:
    return float(result["settings"][setting]["accuracy"]["mean"])


def _training(metrics: Path) -> dict[str, float | None]:
    """How training went: mean reward over all steps (how fast), and token entropy over the last ten updates."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    rewards = [row["reward"] for row in rows if row["phase"] == "rl"]
    entropies = [row["entropy"] for row in rows if row["phase"] == "rl" and row.get("entropy") is not None]
    return {"reward": float(np.mean(rewards)), "entropy": float(np.mean(entropies[-10:])) if entropies else None}
