"""``python -m benchmarks.run [engine] [canvases] [update] [methods]``: what this project claims of speed and learning.

``engine`` takes about ten minutes, ``canvases`` six, ``update`` eight and 9 GB; ``methods`` trains 3 seeds x 6 methods,
about a quarter of an hour on two cores.
"""

import argparse
import re
from pathlib import Path

from benchmarks import canvases, engine, methods, update

PARTS = ("engine", "canvases", "update", "methods")


def main() -> None:
    """Run what was asked for; all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; all by default")
    parser.add_argument("--task", default="chain")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", default="runs", help="folder for what was measured; stopped methods go on from there")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repetitions of the speed benchmarks")
    parser.add_argument("--cases", default="", help="update: only those whose names contain this, as in '8,192: 4 x 1'")
    words = parser.parse_args()
    parts = words.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown parts {sorted(unknown)}; allowed: {', '.join(PARTS)}")
    if words.cases and "update" not in words.parts:
        parser.error("--cases is about the part update; name it")
    try:
        update.chosen(words.cases)
    except ValueError as error:
        parser.error(f"--cases: {error}")
    if "engine" in parts:
        engine.show(engine.benchmark(repeats=words.repeats, out=Path(words.out) / "engine.json"))
    if "canvases" in parts:
        canvases.show(canvases.benchmark(repeats=words.repeats, out=Path(words.out) / "canvases.json"))
    if "update" in parts:
        file = "-".join(["update", *re.findall(r"\w+", words.cases)]) + ".json"  # some cases have a file of their own
        found = update.benchmark(repeats=words.repeats, out=Path(words.out) / file, only=words.cases)
        update.show(found)
    if "methods" in parts:
        folder = str(Path(words.out) / "methods")
        methods.show(methods.benchmark(task=words.task, seeds=tuple(words.seeds), out=folder))


if __name__ == "__main__":
    main()
