"""``python -m benchmarks.run [engine] [methods]``: everything this project claims about speed and learning, printed.

``engine`` takes a few minutes; ``methods`` trains 3 seeds x 6 methods, about a quarter of an hour on two cores.
"""

import argparse

from benchmarks import engine, methods


def main() -> None:
    """Run what was asked for; all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["engine", "methods"], default=["engine", "methods"])
    parser.add_argument("--task", default="chain")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", default="runs/methods", help="where runs are kept (a stopped benchmark resumes)")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repetitions of the engine benchmark")
    words = parser.parse_args()
    if "engine" in words.parts:
        engine.show(engine.benchmark(repeats=words.repeats))
    if "methods" in words.parts:
        methods.show(methods.benchmark(task=words.task, seeds=tuple(words.seeds), out=words.out))


if __name__ == "__main__":
    main()
