"""``python -m benchmarks.rewards_pool``: verdicts about mathematics on a quiet and on an overloaded machine.

2,000 pairs of a reference and an answer, made of the golds in ``../shared/data``: as they are, spelt differently, with
something added that means nothing (wrong where the gold is a number), and another problem's; and some that no verifier
should be given. They are judged by two workers on a quiet machine, then while eight spinning processes per two cores
compete with them. The verdicts must be the same; pairs whose CPU time was within a factor of two of the limit are
listed, since for those CPU time itself (caches, clock rates) decides. Two minutes on two cores.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from benchmarks.timed_math import TimedMath
from revelm.core.cores import usable_cores
from revelm.core.types import Completion, Problem, Score
from revelm.data.rows import read_rows
from revelm.rollout.workers import ScorePool
from revelm.tasks.math_rows import math_problem

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = ("math500", "olympiadbench", "minerva_math", "gsm8k", "amc23", "aime2024", "aime2025")
HOSTILE = (
    ("1", "9^{9^{9^{9}}}"),
    ("2", r"\binom{10^9}{5\cdot 10^8}"),
    ("3", "100000000!"),
    ("4", r"\int_0^1 \sin(\cos(\tan(x^{x^x})))\,dx"),
    ("5", r"\sum_{k=1}^{10^{12}} \frac{1}{k^k}"),
    ("x+1", "(x+1)^{1000}/(x+1)^{999}"),
    (r"\sqrt{2}", r"\sqrt{2+\sqrt{2+\sqrt{2+\sqrt{2+\sqrt{2}}}}}"),
    ("7", "{" * 200 + "7" + "}" * 200),
)
Item = tuple[Problem, Completion]


def pairs(count: int, seed: int = 0) -> list[Item]:
    """``count`` pairs, the same ones every time."""
    golds = []
    for name in SETS:
        rows = read_rows(str(DATA / name / "test.jsonl"))
        golds += [(f"{name}:{row.number}", math_problem(row, "").reference) for row in rows]
    rng = Random(seed)
    found = [(f"hostile:{i}", reference, answer) for i, (reference, answer) in enumerate(HOSTILE)]
    while len(found) < count:
        name, gold = rng.choice(golds)
        how, answer = rng.choice(
            [
                ("same", gold),
                ("spelt", gold.replace("\\frac", "\\dfrac").replace("(", "\\left(").replace(")", "\\right)")),
                ("sum", f"{gold} + 0"),
                ("doubled", f"\\frac{{2 ({gold})}}{{2}}"),
                ("other", rng.choice(golds)[1]),
            ]
        )
        found.append((f"{name}:{how}", gold, answer))
    return [
        (Problem(name, "", gold), Completion(f"so \\boxed{{{answer}}}.", 0, 0, "stop")) for name, gold, answer in found
    ]


@contextmanager
def load(processes: int) -> Iterator[None]:
    """That many processes that spin, each in a session of its own, as the kernel shares time among sessions first."""
    words = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(words, start_new_session=True) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def timed(items: list[Item], workers: int) -> tuple[list[Score], float]:
    """The verdicts, and the seconds they took; workers have started and loaded their libraries before."""
    with ScorePool(workers) as pool:
        pool.score(TimedMath(), items[len(HOSTILE) : len(HOSTILE) + 8 * workers])
        began = time.perf_counter()
        return pool.score(TimedMath(), items), time.perf_counter() - began


def verdict(score: Score) -> tuple[float, float, str]:
    """What must not depend on the load."""
    return score.value, score.breakdown.get("error", 0.0), score.reason


def main() -> int:
    """Print what was found; 1 where a verdict changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--overload", type=int, default=4, help="spinning processes per core")
    words = parser.parse_args()
    items = pairs(words.pairs)
    limit = TimedMath().score_seconds
    plain = items[len(HOSTILE) :]
    _, quick = timed(plain, words.workers)
    idle, idle_seconds = timed(items, words.workers)
    with load(words.overload * usable_cores()):
        loaded, loaded_seconds = timed(items, words.workers)
    took = [score.breakdown.get("cpu_seconds", limit) for score in idle]
    near = [item[0].id for item, seconds in zip(items, took, strict=True) if limit / 2 <= seconds < 2 * limit]
    changed = [item[0].id for item, a, b in zip(items, idle, loaded, strict=True) if verdict(a) != verdict(b)]
    report = {
        "pairs": len(items),
        "pairs_per_second": round(len(plain) / quick, 1),
        "pairs_per_cpu_second": round(len(plain) / sum(took[len(HOSTILE) :]), 1),
        "seconds_idle": round(idle_seconds, 2),
        "seconds_loaded": round(loaded_seconds, 2),
        "equal": sum(score.value > 0 for score in idle),
        "errors": sum(score.breakdown.get("error", 0.0) > 0 for score in idle),
        "timed_out": [item[0].id for item, score in zip(items, idle, strict=True) if "timed out" in score.reason],
        "slowest_cpu_seconds": [round(seconds, 3) for seconds in sorted(took)[-10:]],
        "within_2x_of_limit": near,
        "changed_under_load": changed,
    }
    print(json.dumps(report, indent=2))
    return int(bool(changed))


if __name__ == "__main__":
    sys.exit(main())
