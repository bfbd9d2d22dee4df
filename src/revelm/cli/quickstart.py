"""``revelm quickstart``: the whole path on a CPU, in minutes."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    from revelm.core.registry import names

    what = "build a tiny model, fine-tune it, improve it by RL, and report"
    parser = verbs.add_parser("quickstart", help=what, description=f"{what[0].upper() + what[1:]}.", allow_abbrev=False)
    parser.add_argument(
        "--task", metavar="NAME", help=f"{' or '.join(names('tasks'))} (default: the one in the README)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--out", metavar="DIR", help="run directory")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run in the same directory")
    parser.add_argument(
        "--smoke", action="store_true", help="a few steps of everything: does it run, not does it learn"
    )
    parser.set_defaults(call=call)


def call(words: argparse.Namespace) -> None:
    """Run it, print what changed, and say where the report is."""
    from revelm.trainers import quickstart

    given = {name: value for name, value in (("task", words.task), ("out", words.out)) if value is not None}
    folder = quickstart.run(seed=words.seed, resume=words.resume, smoke=words.smoke, **given)
    show(json.loads((folder / "summary.json").read_text(encoding="utf-8")), folder)


def show(summary: Mapping[str, Any], folder: Path) -> None:
    """Print the before/after table of a summary.json, with 95 % intervals."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="before and after RL, mean [95 % interval]")
    for column in ("", "after SFT", "after RL"):
        table.add_column(column, justify="left" if not column else "right")
    for name in summary["sft"]:
        table.add_row(name, *(_interval(summary[at][name]) for at in ("sft", "rl")))
    console = Console(width=100)
    console.print(table)
    seconds = ", ".join(f"{phase} {value:.0f}" for phase, value in summary["seconds"].items())
    console.print(f"seconds: {seconds}", highlight=False)
    console.print(f"run directory: {folder}\nreport: {folder / 'report.html'}", highlight=False, soft_wrap=True)


def _interval(metric: Mapping[str, float]) -> str:
    return f"{metric['mean']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"
