"""``revelm ls``: what can be named in a recipe, from tables that import nothing."""

import argparse
from typing import Any


def add_to(verbs: Any) -> None:
    """Declare the verb."""
    from revelm.core.registry import AXES

    what = "names that recipes may use"
    parser = verbs.add_parser("ls", help=what, description=f"{what[0].upper() + what[1:]}.", allow_abbrev=False)
    parser.add_argument("axis", nargs="?", choices=list(AXES), help="only these")
    parser.set_defaults(call=call)


def call(words: argparse.Namespace) -> None:
    """Print names and the classes behind them."""
    from revelm.core.registry import AXES, summary

    for axis in AXES if words.axis is None else (words.axis,):
        if words.axis is None:
            print(f"{axis}:")
        for name, address in summary(axis).items():
            print(f"  {name:<16}{address}" if words.axis is None else f"{name:<16}{address}")
