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

    indent = "" if words.axis else "  "
    for axis in (words.axis,) if words.axis else AXES:
        if not words.axis:
            print(f"{axis}:")
        names = summary(axis)
        width = max(map(len, names), default=0)
        for name, address in names.items():
            print(f"{indent}{name:<{width}}  {address}")
