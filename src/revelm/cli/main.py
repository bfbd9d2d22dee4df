"""The ``revelm`` command: one verb per file of this folder. Help needs neither torch nor transformers.

What a user can mend (a wrong value, a missing file, a full disk) is one line on stderr and exit code 2; a run that
failed (nothing learnt, a gradient that is not finite) one line and 1. ``REVELM_DEBUG=1`` shows where it came from.
A plan that does not fit exits with 3, Ctrl-C with 130. Of several processes one says what all have wrong.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from revelm import __version__
from revelm.cli import convert, curriculum, evaluate, generate, listing, plan, quickstart, report, score, trace, train
from revelm.core.errors import RunError

VERBS = (quickstart, plan, train, curriculum, evaluate, score, generate, trace, report, convert, listing)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (``arguments`` default to the process's own); returns the exit code."""
    words = _parse(sys.argv[1:] if arguments is None else arguments)
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # so that `kind: my_module:Mine` finds a file beside the recipe
    try:
        code = words.call(words)
    except KeyboardInterrupt as stop:
        print(f"revelm: interrupted{f': {stop}' if stop.args else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, e.g. `revelm ls | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, RunError, FloatingPointError) as error:
        if os.environ.get("REVELM_DEBUG") == "1":
            raise
        _tell(_one_line(error))
        return 1 if isinstance(error, RunError | FloatingPointError) else 2
    return code or 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="revelm",
        description="Post-train, evaluate and run diffusion language models.",
        epilog="Recipes are YAML files; a.b=value changes any field of one.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"revelm {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in VERBS:
        verb.add_to(verbs)
    return parser


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parsed words. Overrides may stand anywhere: argparse alone takes them only before the first option."""
    parser = build_parser()
    words, rest = parser.parse_known_args(arguments)
    takes_words = "takes_words" in words
    stray = [w for w in rest if w.startswith("-") or not (takes_words or "=" in w) or "overrides" not in words]
    if stray:
        remedy = "; fields of a recipe are changed by a.b=value, without dashes" if "overrides" in words else ""
        parser.error(f"unrecognised argument: {stray[0]}{remedy}")
    if rest:
        words.overrides = [*words.overrides, *rest]
    return words


def _tell(error: str) -> None:
    """The error on stderr; of several processes that have the same one, the main one does."""
    who = "revelm"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from revelm.parallel.spokesman import speaks_of

        if not speaks_of(error):
            return
        who += f": process {os.environ.get('RANK', '0')}" if os.environ.get("RANK", "0") != "0" else ""
    print(f"{who}: error: {error}", file=sys.stderr)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
