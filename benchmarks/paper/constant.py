"""``python -m benchmarks.paper.constant``: the policy gradient of an answer's score, and of no score at all.

Beside (3), and after it: there the score without a baseline has the least noise for its signal. With credit 1 for every
answer nothing is left of rewards, and an unbiased policy gradient would vanish in the mean. It does not: a token is
revealed because the policy is confident of it, so what was revealed is not what the policy expects on average, and
making it likelier is a direction of its own. A baseline takes it away. Told of each credit, at the start of a seed:
noise / signal as in (3), the signal, and the cosine of its mean gradient with that of the z-score.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.paper.estimators import TRUE, Gradients
from benchmarks.paper.gradients import MAX_POSITIONS, episodes_of, gradient
from benchmarks.paper.place import Place
from benchmarks.paper.protocol import FEW, SEEDS
from benchmarks.paper.training import tuned_start
from revelm.models.load import load_model
from revelm.objectives.packing import micro_batches
from revelm.objectives.trace_rl import TraceRL

TITLES = {TRUE: "z-score", "none": "score", "constant": "1 for all"}


def measured(base: str, seed: int, place: Place, *, draws: int) -> Mapping[str, Mapping[str, float | None]]:
    """{credit: what ``Gradients`` says}, from ``draws`` independent steps of rollouts at the start of ``base``."""
    start, objective, sums = tuned_start(base, seed, place), TraceRL(), Gradients(tuple(TITLES))
    model = load_model(start)
    for episodes in episodes_of(model, start, base=base, seed=seed, place=place, draws=draws):
        ways = {
            TRUE: objective.credit(episodes),
            "none": [replace(one, credit=one.score) for one in episodes],
            "constant": [replace(one, credit=1.0) for one in episodes],
        }
        if not ways[TRUE]:
            continue
        batches = {name: objective.prepare(some, model.family, 0) for name, some in ways.items()}
        sums.add({
            name: gradient(model, micro_batches(batch, MAX_POSITIONS, packing="rows"), objective)
            for name, batch in batches.items()
        })  # fmt: skip
    return sums.result()


def main() -> None:
    """Measure some seeds and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper.constant", description=__doc__)
    parser.add_argument("--base", default="b4")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS[:FEW])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--out", default="runs/paper", help="where starts are, or are put")
    words = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("seed", "credit", "noise / signal", "signal", "cosine with z-score", title=f"{words.draws} draws")
    for seed in words.seeds:
        found = measured(words.base, seed, Place(Path(words.out).resolve()), draws=words.draws)
        for name, one in found.items():
            numbers = ("drowned" if one[key] is None else f"{one[key]:.3f}" for key in ("ratio", "signal", "cosine"))
            table.add_row(str(seed), TITLES[name], *numbers)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
