"""``python -m benchmarks.rewards_code``: reference programs against their tests, and the same made wrong.

Every reference of the public data sets in ``--data`` (default: ``shared/data`` beside the repository) has to pass,
every mutant (`benchmarks.code_mutants`) to fail. Prints a table, then what does not do so, by name. Programs run in the
sandbox of the worker processes that training and evaluation use. A quarter of an hour on two cores; ``--only`` and
``--every`` take less.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.code_mutants import KINDS, mutants
from revelm.core.types import Completion, Problem, Score
from revelm.rollout.workers import ScorePool
from revelm.tasks.code import Code
from revelm.tasks.code_collections import Apps
from revelm.tasks.code_task import CodeTask
from revelm.tasks.humaneval import HumanEval, HumanEvalPlus
from revelm.tasks.mbpp import Mbpp, MbppPlus, numbered_problems

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
SETS = ("humaneval", "humaneval_plus", "mbpp", "mbpp_sanitized", "mbpp_plus", "leetcode", "apps", "stdio")
# References that do not pass, and why; by the end of the problem's id.
KNOWN: dict[str, str] = {}
# Mutants that pass, and why.
WEAK = {
    "mbpp_sanitized:82": "one more is within the tolerance of its tests, 0.1 %",
    "mbpp_sanitized:85": "one more is within the tolerance of its tests, 0.1 %",
}


@dataclass(frozen=True)
class Item:
    """A program that is to pass (``kind`` "reference") or to fail."""

    problem: Problem
    name: str
    kind: str
    program: str


def data_set(name: str, folder: Path) -> tuple[CodeTask, list[tuple[Problem, str, str]]]:
    """The task of a data set, and its references: (problem, name, program)."""
    files = {
        "humaneval": lambda: HumanEval(data=str(folder / "humaneval" / "HumanEval.jsonl.gz")),
        "humaneval_plus": lambda: HumanEvalPlus(
            data=str(folder / "humanevalplus" / "HumanEvalPlus-OriginFmt.jsonl.gz")
        ),
        "mbpp": lambda: Mbpp(data=str(folder / "mbpp" / "mbpp.jsonl")),
        "mbpp_sanitized": lambda: Mbpp(data=str(folder / "mbpp" / "mbpp_sanitized.jsonl")),
        "mbpp_plus": lambda: MbppPlus(data=str(folder / "mbppplus" / "MbppPlus-OriginFmt.jsonl.gz")),
        "leetcode": lambda: Code(data=str(folder / "function_code" / "leetcode_test.json"), test_share=0.0),
        "apps": lambda: Apps(data=str(folder / "apps_sample" / "apps_train_5.jsonl"), test_share=0.0),
        "stdio": lambda: Code(data=str(folder / "stdio_code" / "code_contests_test.json"), test_share=0.0),
    }
    task: CodeTask = files[name]()
    if name == "apps":
        return task, list(_human_solutions(task, folder))
    if name == "stdio":
        problems = task.problems("train")
        return task, [(problems[number], problems[number].id, program) for number, program in STDIO.items()]
    if isinstance(task, Mbpp):
        problems = numbered_problems(task, str(task.data))
    else:
        problems = [*task.problems("train"), *task.problems("test")]
    return task, [(problem, problem.id, problem.reference) for problem in problems]


def items_of(references: Sequence[tuple[Problem, str, str]], kinds: Sequence[str] = KINDS) -> list[Item]:
    """References and their mutants of these kinds."""
    found = []
    for problem, name, program in references:
        found.append(Item(problem, name, "reference", program))
        made = mutants(program, problem.info["tests"])
        found += [Item(problem, name, kind, wrong) for kind, wrong in made if kind in kinds]
    return found


def judged(pool: ScorePool, task: CodeTask, items: Sequence[Item]) -> list[Score]:
    """The verdict on each program, as an answer."""
    answers = [(item.problem, Completion(f"~~~~~~python\n{item.program}\n~~~~~~", 1, 1, "stop")) for item in items]
    return pool.score(task, answers)


def _human_solutions(task: CodeTask, folder: Path) -> Iterator[tuple[Problem, str, str]]:
    """All solutions of the sample of APPS, not only the first of each problem."""
    lines = (folder / "apps_sample" / "apps_train_5.jsonl").read_text(encoding="utf-8").splitlines()
    for problem, line in zip(task.problems("train"), lines, strict=True):
        for number, program in enumerate(json.loads(line)["solutions"]):
            yield problem, f"{problem.id}/{number}", program


# Our own solutions of a few problems of CodeContests, by their place in the file.
STDIO = {
    139: """for _ in range(int(input())):
    s = input()
    half = len(s) // 2
    print("YES" if len(s) % 2 == 0 and s[:half] == s[half:] else "NO")
""",
    140: """import sys
from math import isqrt


def roots(n, power):
    root = round(n ** (1 / power))
    while root**power > n:
        root -= 1
    while (root + 1) ** power <= n:
        root += 1
    return root


for line in sys.stdin.read().split()[1:]:
    n = int(line)
    print(isqrt(n) + roots(n, 3) - roots(n, 6))
""",
    113: """for _ in range(int(input())):
    (x, p), (y, q) = (map(int, input().split()) for _ in range(2))
    shift = min(p, q)
    p, q = p - shift, q - shift
    if p > 7 or q > 7:
        print(">" if p > 7 else "<")
        continue
    left, right = x * 10**p, y * 10**q
    print("<" if left < right else ">" if left > right else "=")
""",
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--every", type=int, default=1, help="take every n-th problem")
    parser.add_argument("--workers", type=int, default=None)
    options = parser.parse_args()
    lines = ["| data set | references | pass | " + " | ".join(f"{kind}: fail" for kind in KINDS) + " | programs/s |"]
    lines.append("|---|" + "---:|" * (len(KINDS) + 3))
    notes: list[str] = []
    with ScorePool(options.workers) as pool:
        for name in options.only:
            task, references = data_set(name, options.data)
            task = replace(task, limits=replace(task.limits, total_seconds=240.0))
            items = items_of(references[:: options.every])
            began = time.perf_counter()
            scores = judged(pool, task, items)
            rate = len(items) / (time.perf_counter() - began)
            lines.append(_line(name, items, scores, rate))
            notes += _notes(items, scores)
            print("\n".join(lines[-1:]), flush=True)
    print("\n".join(["", *lines, "", *notes]))


def _line(name: str, items: Sequence[Item], scores: Sequence[Score], rate: float) -> str:
    cells = [name, str(sum(item.kind == "reference" for item in items))]
    for kind in ("reference", *KINDS):
        found = [score.value for item, score in zip(items, scores, strict=True) if item.kind == kind]
        right = sum(value == (1.0 if kind == "reference" else 0.0) for value in found)
        cells.append(str(right) if kind == "reference" else f"{right}/{len(found)}")
    return "| " + " | ".join([*cells, f"{rate:.1f}"]) + " |"


def _notes(items: Sequence[Item], scores: Sequence[Score]) -> list[str]:
    """What did not do as it should."""
    notes = []
    moved = []
    for item, score in zip(items, scores, strict=True):
        if item.kind == "reference" and score.value < 1.0:
            reason = next((why for end, why in KNOWN.items() if item.name.endswith(end)), "NOT KNOWN")
            notes.append(f"- reference fails: {item.name}: {score.reason} ({reason})")
        if item.kind == KINDS[-1] and score.value == 1.0:
            moved.append(item.name.rpartition(":")[2])
        elif item.kind != "reference" and score.value == 1.0:
            reason = next((why for end, why in WEAK.items() if item.name.endswith(end)), "NOT KNOWN")
            notes.append(f"- mutant passes ({item.kind}): {item.name} ({reason})")
    return [*notes, *([f"- pass with a number moved: {', '.join(moved)}"] if moved else [])]


if __name__ == "__main__":
    main()
