"""``python -m benchmarks.against_plain``: verdicts of the sandbox beside those of a plain harness, program by program.

Programs are the references of the public data sets, all of them with the first number moved, and each n-th of the other
mutants and variants (`benchmarks.code_mutants`, `benchmarks.code_variants`). The sandbox keeps program and tests in
different processes, the plain harness (`benchmarks.plain_harness`) in one, as the official ones do: where only one of
the two accepts a program, the reason is known (``REASONS``) or there is a fault. Prints how often the two agree by data
set and by kind, then every disagreement without a known reason. Twenty minutes on two cores.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

from benchmarks.code_mutants import mutants
from benchmarks.code_variants import changed, variants
from benchmarks.plain_harness import PASSED, official_runs, rows_of, verdicts
from benchmarks.rewards_code import DATA, SETS, Item, data_set, judged
from revelm.core.types import Problem
from revelm.rollout.workers import ScorePool

_SAFE = "no object is equal to a value of the tests because it says so"
# Kinds on which the two may disagree, and why.
REASONS = {
    "returns: an equal of everything": _SAFE,
    "returns: dataclass": _SAFE,
    "form: names of builtins": "tests see their own builtins",
    "form: names of modules": "tests see their own modules",
    "form: names of the tests": "tests see their own names",
    "form: other processes": "a pool of the plain harness has no module to import from",
    "form: fails at its end": "nothing of a program that fails is tested, but asserts and calls of print are left out",
    "form: reads at its end": "examples that read input are left out",
    "form: asserts at its end": "examples are left out",
    "returns: nothing for something": "to numpy an empty array is close to every number; here it is not",
    "returns: None for false": "to numpy None is close to an empty list; here it is not",
}
# Problems whose published tests are put right, by the end of their names.
PROBLEMS = {
    "HumanEvalPlus-OriginFmt:HumanEval/32": "as published, no program passes",
    "MbppPlus-OriginFmt:255": "inputs with results of millions of values are left out",
    **{f"MbppPlus-OriginFmt:{number}": "as published, every program passes" for number in (737, 787, 794)},
}
CASES = ("both pass", "both fail", "ours alone passes", "plain alone passes", "out of time")
References = Sequence[tuple[Problem, str, str]]


@dataclass(frozen=True)
class Pair:
    """Both verdicts on a program; empty where it passes."""

    item: Item
    ours: str
    plain: str

    @property
    def case(self) -> str:
        """How the two verdicts lie to each other."""
        if "timed out" in self.ours or "timed out" in self.plain:
            return "out of time"
        return {(True, True): "both pass", (False, False): "both fail", (True, False): "ours alone passes"}.get(
            (not self.ours, not self.plain), "plain alone passes"
        )


def compared(
    name: str, folder: Path, pool: ScorePool, *, every: int, kinds: str = "", first: int | None = None
) -> list[Pair]:
    """Both verdicts on the references, on the numbers moved, and on each n-th of all other variants.

    ``kinds``: of the kinds with this in their name alone; ``first``: of so many references.
    """
    task, references = data_set(name, folder)
    references = references[:first]
    seconds = 10.0 if name.endswith("_plus") else 2.0
    limits = replace(task.limits, seconds=seconds, total_seconds=240.0)
    items = [item for item in programs(references, every=every) if kinds in item.kind]
    rows = rows_of(name, folder)
    work = [official_runs(name, rows[item.problem.id.rpartition(":")[2]], item.program) for item in items]
    plain = verdicts(work, seconds=seconds)
    scores = judged(pool, replace(task, limits=limits), items)
    return [
        Pair(item, "" if score.value == 1.0 else score.reason, "" if other == PASSED else other)
        for item, score, other in zip(items, scores, plain, strict=True)
    ]


def programs(references: References, *, every: int) -> Iterator[Item]:
    """References and what is made of them, each kind of a different n-th of the problems."""
    for number, (problem, name, program) in enumerate(references):
        tests = problem.info["tests"]
        yield Item(problem, name, "reference", program)
        for kind, other in mutants(program, tests):
            if kind == "off by one" or (number + crc32(kind.encode())) % every == 0:
                yield Item(problem, name, kind, other)
        for kind, other in (*changed(program, tests), *variants(program, tests)):
            if (number + crc32(kind.encode())) % every == 0:
                yield Item(problem, name, kind, other)


def table(pairs: Sequence[Pair]) -> list[str]:
    """Lines of Markdown: how often, by kind, the two agree."""
    counts = Counter((pair.item.kind, pair.case) for pair in pairs)
    lines = ["| kind | programs | " + " | ".join(CASES) + " |", "|---|" + "---:|" * (len(CASES) + 1)]
    for kind in dict.fromkeys(pair.item.kind for pair in pairs):
        found = [counts[kind, case] for case in CASES]
        lines.append(f"| {kind} | {sum(found)} | " + " | ".join(map(str, found)) + " |")
    return lines


def disagreements(pairs: Sequence[Pair]) -> list[str]:
    """A line for each program that one of the two accepts, for no reason that is known."""
    found = [pair for pair in pairs if pair.case.endswith("alone passes") and pair.item.kind not in REASONS]
    found = [pair for pair in found if not pair.item.name.endswith(tuple(PROBLEMS))]
    return [f"- {p.item.kind}: {p.item.name}: {p.case} ({(p.ours or p.plain)[:160]})" for p in found]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--every", type=int, default=24, help="take every n-th mutant and variant of each kind")
    parser.add_argument("--kind", default="", help="take the kinds with this in their name alone")
    options = parser.parse_args()
    everything: list[Pair] = []
    lines = ["| data set | programs | " + " | ".join(CASES) + " | no reason known |", "|---|" + "---:|" * 7]
    print("\n".join(lines))
    with ScorePool() as pool:
        for name in options.only:
            pairs = compared(name, options.data, pool, every=options.every, kinds=options.kind)
            everything += pairs
            counts = Counter(pair.case for pair in pairs)
            cells = [name, str(len(pairs)), *(str(counts[case]) for case in CASES), str(len(disagreements(pairs)))]
            print("| " + " | ".join(cells) + " |", flush=True)
    print("\n".join(["", *table(everything), "", *disagreements(everything)]))


if __name__ == "__main__":
    main()
