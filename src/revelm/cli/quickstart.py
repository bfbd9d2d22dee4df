"""``revelm quickstart``: the whole path on a CPU, in minutes."""

import argparse
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
    """Run it and say where the report is."""
    from revelm.trainers import quickstart

    given = {name: value for name, value in (("task", words.task), ("out", words.out)) if value is not None}
    folder = quickstart.run(seed=words.seed, resume=words.resume, smoke=words.smoke, **given)
    print(f"run directory: {folder}\nreport: {folder / 'report.html'}")
