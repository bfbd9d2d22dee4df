"""Positions of an update under every objective, on one step's answers of a start: how numbers of masks were chosen.

Of updates alone: what answers cost is the same for all.

python -m benchmarks.paper calibrate --seeds 0
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.paper.arms import RL_ARMS, passes
from benchmarks.paper.gradients import episodes_of
from benchmarks.paper.place import Place, hold_to_protocol
from benchmarks.paper.protocol import BASES
from benchmarks.paper.training import tuned_start
from revelm.core.registry import build
from revelm.core.types import Family
from revelm.models.load import load_model
from revelm.objectives.batch import Episode


def positions(objective: Mapping[str, Any], episodes: Sequence[Episode], family: Family) -> int:
    """Positions of the rows of ``episodes``, all of which are shown."""
    return int(build("objectives", objective, field="objective").prepare(episodes, family, 0).lengths.sum())


def calibrate(base: str, seed: int, place: Place) -> list[tuple[str, int, int]]:
    """(title, positions, passes) of every arm of ``base`` with an objective of its own, and of other numbers of masks
    and pairs."""
    start = tuned_start(base, seed, place)
    model = load_model(start)
    episodes = next(episodes_of(model, start, base=base, seed=seed, place=place, draws=1))
    arms = {one.title: dict(one.stages[0][1]) for one in RL_ARMS.values() if one.base == base and not one.sizes}
    found = [(title, changes) for title, changes in arms.items() if not {"value", "rollout"} & changes.keys()]
    masks = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16)
    found += [(f"random, {n} masks", {"objective": {"kind": "random_mask_rl", "num_masks": n}}) for n in masks]
    found += [(f"coupled, {n} pairs", {"objective": {"kind": "coupled_rl", "num_masks": n}}) for n in masks[:7]]
    return [(title, positions(c["objective"], episodes, model.family), passes(c)) for title, c in found]


def show(seed: int, place: Place) -> None:
    """Print the positions of all bases, beside those of TraceRL."""
    hold_to_protocol(place)
    for base in BASES:
        rows = calibrate(base, seed, place)
        trace = next((size, times) for title, size, times in rows if title == RL_ARMS[f"{base}-trace"].title)
        table = Table("", "positions", "/ TraceRL", "compute / TraceRL", title=f"{BASES[base].title}, seed {seed}")
        for title, size, times in rows:
            shares = (size / trace[0], size * times / (trace[0] * trace[1]))
            table.add_row(title, f"{size:,}", *(f"{share:.2f}" for share in shares))
        Console(width=100).print(table)
