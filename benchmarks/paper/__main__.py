"""``python -m benchmarks.paper EXPERIMENT``: trains and measures what is missing; ``tables`` writes what is there.

EXPERIMENT: sft, rl (rl-b4, rl-b8, rl-full), value, shrinkage, enlarge, tpf, rollouts, echoes, estimators, or all.
Every arm and seed leaves a file below ``--out``; whatever is interrupted goes on where it was. ``restore`` puts the
results in a results.json (``--from``) back there, for a series that goes on on another machine. ``calibrate`` prints
positions per update.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.paper.arms import EXPERIMENTS, GROUPS
from benchmarks.paper.place import Place
from benchmarks.paper.protocol import SMOKE, WHOLE

OTHER = ("calibrate", "restore", "tables")


def main(words: list[str] | None = None) -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    parser.add_argument("what", choices=(*EXPERIMENTS, *GROUPS, *OTHER), metavar="EXPERIMENT")
    parser.add_argument("--seeds", help="comma-separated; default: the protocol's")
    parser.add_argument("--arms", help="comma-separated; default: all of the experiment")
    parser.add_argument("--out", help="default: runs/paper, or runs/paper-smoke")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything, to see that it runs")
    parser.add_argument("--date", help="of the runs, for tables: 2026-11-21")
    parser.add_argument("--from", dest="source", default=str(Path(__file__).parent / "results.json"),
                        help="what to restore")  # fmt: skip
    parser.add_argument("--to", default=str(Path(__file__).parent), help="where tables go")
    given = parser.parse_args(words)
    out = Path(given.out or ("runs/paper-smoke" if given.smoke else "runs/paper")).resolve()
    place = Place(out, SMOKE if given.smoke else WHOLE)
    seeds = tuple(int(seed) for seed in given.seeds.split(",")) if given.seeds else None
    if given.what == "tables":
        if not given.date:
            parser.error("tables needs --date, the day the runs were made")
        from benchmarks.paper.tables import write_tables

        write_tables(place, Path(given.to), date=given.date)
    elif given.what == "restore":
        from benchmarks.paper.restore import restore

        print(f"{restore(place, Path(given.source))} results restored below {place.out}")
    elif given.what == "calibrate":
        from benchmarks.paper.calibrate import show

        for seed in seeds or (0,):
            show(seed, place)
    else:
        names = GROUPS.get(given.what, (given.what,))
        arms = set(given.arms.split(",")) if given.arms else None
        from benchmarks.paper.pool import run_all

        if not run_all(names, place, seeds=seeds, arms=arms, workers=given.workers):
            sys.exit(1)


if __name__ == "__main__":
    main()
