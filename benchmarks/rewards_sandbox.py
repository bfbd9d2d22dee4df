"""``python -m benchmarks.rewards_sandbox``: programs judged in a second, and 128 correct ones at once.

Trivial correct programs, as a script with one input and as a function with two asserts, through the pool of workers
that rewards and evaluations use, one worker a core. Every one must be accepted. ``fork``: programs start as copies of
a server that has imported the usual modules; ``fresh``: each in an interpreter of its own. One minute on two cores.
"""

import argparse
import time
from dataclasses import dataclass

from revelm.core.cores import usable_cores
from revelm.core.types import Completion, Problem, Score
from revelm.rewards.code_score import score_code
from revelm.rewards.code_tests import CodeTests
from revelm.rewards.sandbox.local import LocalSandbox
from revelm.rollout.workers import ScorePool
from revelm.tasks.code import Code

SCRIPT = CodeTests("stdio", inputs=("3\n",), outputs=("9\n",))
FUNCTION = CodeTests("function", statements=("assert f(3) == 9", "assert f(4) == 16"), names=("f",))
PROGRAMS = (("script", "print(int(input()) ** 2)", SCRIPT), ("function", "def f(x):\n    return x * x", FUNCTION))


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    start: str
    kind: str
    workers: int
    programs: int
    accepted: int
    seconds: float


def answers(code: str, tests: CodeTests, num: int) -> list[tuple[Problem, Completion]]:
    """Answers as the task ``code`` would be given them, numbered: equal ones would be judged once."""
    info = {"tests": tests, "is_stdio": tests.method == "stdio", "asked": ""}
    problem = Problem("benchmark", "Square a number.", "", info)
    return [(problem, Completion(f"```python\n{code}  # {i}\n```", 0, 0, "stop")) for i in range(num)]


def pooled(num: int, workers: int) -> list[Row]:
    """Forked programs through the pool."""
    rows = []
    with ScorePool(workers) as pool:
        for kind, code, tests in PROGRAMS:
            pool.score(Code(), answers(code, tests, 2 * workers))
            began = time.perf_counter()
            scores = pool.score(Code(), answers(code, tests, num))
            rows.append(Row("fork", kind, workers, num, accepted(scores), time.perf_counter() - began))
    return rows


def fresh(num: int) -> list[Row]:
    """Programs in interpreters of their own, one at a time."""
    sandbox, rows = LocalSandbox(start="fresh"), []
    for kind, code, tests in PROGRAMS:
        score_code(code, tests, executor=sandbox)
        began = time.perf_counter()
        scores = [score_code(code, tests, executor=sandbox) for _ in range(num)]
        rows.append(Row("fresh", kind, 1, num, accepted(scores), time.perf_counter() - began))
    sandbox.close()
    return rows


def accepted(scores: list[Score]) -> int:
    """How many are right."""
    return sum(score.value == 1.0 for score in scores)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=128, help="programs of each kind (128)")
    words = parser.parse_args()
    cores = usable_cores()
    print(f"{cores} cores; bar: 40 programs a second, all {words.num} accepted")
    print(f"{'start':6} {'kind':9} {'workers':>7} {'programs':>8} {'accepted':>8} {'a second':>9}")
    for row in [*pooled(words.num, cores), *fresh(min(words.num, 64))]:
        speed = row.programs / row.seconds
        print(f"{row.start:6} {row.kind:9} {row.workers:7} {row.programs:8} {row.accepted:8} {speed:9.1f}")


if __name__ == "__main__":
    main()
