r"""What the math verifier makes of the gold answers of public data: ``python -m benchmarks.rewards_math [DATA]``.

For each data set below DATA (default ``../shared/data``):

self       each reference in a box against itself
respelled  against itself written otherwise: other commands, a fraction expanded, ``0+(...)`` around a formula; what is
           only equal if it is read and evaluated, not compared as text
solution   the worked solution of the file against the reference, where there is one (a box or ``####``)
others     3 references of other problems, by a seeded shuffle, against it: whatever is accepted is printed
wrong      the reference changed: a number more, the other sign, other brackets, an element less, an order reversed

and the verdicts per second of CPU time, in one process, over all of these pairs.

``--against-math-verify`` compares verdicts with those of that library instead (``benchmarks.math_against``), in two
minutes of CPU time.
"""

import argparse
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.math_against import judge, show
from revelm.rewards.boxed import last_boxed
from revelm.rewards.final_answer import STATED, final_answer
from revelm.rewards.math_answer import compare
from revelm.rewards.math_quantity import read_quantity
from revelm.rewards.math_score import score_math
from revelm.rewards.math_text import spell
from revelm.rewards.math_units import split_unit

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
NUM_OTHERS = 3
_PLAIN = re.compile(r"-?\d+(\.\d+)?")
_FRACTION = re.compile(r"^(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}$")
_FORMULA = re.compile(r"^[^,=<>%$]*$")
_NO_FORMULA = re.compile(
    r" or |\\(?:text|mbox|circ|begin|in|cup|[lg]eq?|infty)(?![a-zA-Z])|\\circ|_\{?\d+\}?$|^[A-Za-z ]{2,}$"
)


class Gold(NamedTuple):
    """A reference and the solution that came with it, "" for none."""

    reference: str
    solution: str


def _rows(*files: Path) -> Iterator[dict[str, Any]]:
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.strip():
                yield json.loads(line)


def _final(solution: str) -> str:
    answer = final_answer(solution, sources=("box", "bare box"))
    return answer.text.strip() if answer else ""


def load(data: Path) -> dict[str, list[Gold]]:
    """The gold answers of every data set."""

    def rows(name: str, *files: str) -> Iterator[dict[str, Any]]:
        return _rows(*(data / name / file for file in files or ("test.jsonl",)))

    return {
        "gsm8k": [
            Gold(r["answer"].rpartition("####")[2].strip(), r["answer"])
            for r in rows("gsm8k", "train.jsonl", "test.jsonl")
        ],
        "math500": [Gold(r["answer"], r["solution"]) for r in rows("math500")],
        "math_train": [Gold(_final(r["solution"]), r["solution"]) for r in rows("math_train", "train.jsonl")],
        "aime2024": [Gold(str(r["answer"]), r["solution"]) for r in rows("aime2024")],
        "aime2025": [Gold(r["expected_answer"], r["reference_solution"]) for r in rows("aime2025")],
        "amc23": [Gold(f"{r['answer']:g}", "") for r in rows("amc23")],
        "minerva_math": [Gold(_final(r["solution"]), r["solution"]) for r in rows("minerva_math")],
        "olympiadbench": [Gold(", ".join(r["final_answer"]), "") for r in rows("olympiadbench")],
    }


def respelled(reference: str) -> str:
    """The same answer in another spelling."""
    if fraction := _FRACTION.match(reference):
        return f"{fraction[1]}\\dfrac{{{3 * int(fraction[2])}}}{{{3 * int(fraction[3])}}}"
    if _PLAIN.fullmatch(reference):
        return reference + ("0" if "." in reference else ".0")
    is_number = read_quantity(split_unit(spell(reference)).body) is not None  # that is to be answered by a number
    if (
        not is_number
        and re.search(r"[\\^a-z]", reference)
        and _FORMULA.match(reference)
        and not _NO_FORMULA.search(reference)
    ):
        return f"0+({reference.strip('. ')})"
    changed = reference.replace("^\\circ", "°").replace(r"\frac", r"\dfrac ").replace("{,}", ",")
    changed = changed.replace("(", r"\left(").replace(")", r"\right)")
    return changed if re.search(r"\d,\d{3}(?!\d)", changed) else changed.replace(",", " , ")


def wrong(reference: str) -> Iterator[str]:
    """Answers that look like the reference and are not."""
    if number := re.search(r"(?<![\d.])[1-9]\d*", reference):
        start, end = number.span()
        yield f"{reference[:start]}{int(number[0]) + 1}{reference[end:]}"
        yield f"{reference[:start]}{number[0]}0{reference[end:]}"
    if reference.startswith("-"):
        yield reference[1:]
    elif reference != "0":
        yield "-" + reference if not reference.startswith(("(", "[", "\\{", "$", "\\begin", "\\text")) else "0"
    if "," in reference:
        yield reference.rpartition(",")[0]
    if reference.startswith(("(", "\\left(")) and reference.count(",") == 1:
        yield reference.replace("(", "[", 1)


def _judged(pairs: list[tuple[str, str]]) -> tuple[list[str], list[float]]:
    """Verdicts, and the CPU seconds of each."""
    verdicts: list[str] = []
    seconds = []
    for reference, answer in pairs:
        start = time.process_time()
        verdicts.append(compare(reference, answer))
        seconds.append(time.process_time() - start)
    return verdicts, seconds


def _listed(title: str, pairs: list[tuple[str, str]], *, limit: int) -> None:
    for reference, answer in pairs[:limit]:
        print(f"    {title}: {answer[:90]!r} for {reference[:90]!r}")
    if len(pairs) > limit:
        print(f"    {title}: {len(pairs) - limit} more")


def report(name: str, golds: list[Gold], *, limit: int) -> tuple[int, float]:
    """Print what is found in one data set. Returns how many pairs were compared, and in how many seconds."""
    rng = random.Random(0)
    usable = [gold for gold in golds if gold.reference]
    references = [gold.reference for gold in usable]
    own = [(r, f"\\boxed{{{r}}}") for r in references]
    told = [(g.reference, g.solution) for g in usable if g.solution]
    bad_own = [pair for pair in own if score_math(pair[1], pair[0]).value != 1.0]
    bad_told = [(r, last_boxed(s) or "no box") for r, s in told if score_math(s, r, sources=STATED).value != 1.0]
    other = [(r, o) for r in references for o in rng.sample(references, min(len(references), NUM_OTHERS + 1)) if o != r]
    kinds = {
        "respelled": [(r, respelled(r)) for r in references],
        "others": other,
        "wrong": [(r, w) for r in references for w in wrong(r)],
    }
    judged = {kind: _judged(pairs) for kind, pairs in kinds.items()}
    found = {
        kind: [p for p, v in zip(kinds[kind], verdicts, strict=True) if (v == "equal") != (kind == "respelled")]
        for kind, (verdicts, _) in judged.items()
    }
    total, seconds = sum(map(len, kinds.values())), sum(sum(taken) for _, taken in judged.values())
    print(f"{name}: {len(golds)} rows, {len(golds) - len(usable)} without an answer")
    print(f"  self {len(own) - len(bad_own)}/{len(own)}, solution {len(told) - len(bad_told)}/{len(told)}", end="")
    print(f", respelled {len(references) - len(found['respelled'])}/{len(references)}", end="")
    print(f", others accepted {len(found['others'])}/{len(other)}, wrong accepted {len(found['wrong'])}", end="")
    print(f"/{len(kinds['wrong'])}, {total / seconds:.0f} pairs per second")
    slowest, pair = max((t, p) for kind, (_, taken) in judged.items() for t, p in zip(taken, kinds[kind], strict=True))
    print(f"  slowest pair: {slowest:.2f} s of CPU time, {pair[1][:80]!r} for {pair[0][:80]!r}")
    timed_out = sum(verdict == "timed out" for verdicts, _ in judged.values() for verdict in verdicts)
    if timed_out:
        print(f"    timed out: {timed_out}")
    for title, pairs in (("self", bad_own), ("solution", bad_told), *found.items()):
        _listed(title, pairs, limit=limit)
    return total, seconds


def main() -> None:
    """All data sets, then the speed over all pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=DATA)
    parser.add_argument("--against-math-verify", action="store_true")
    parser.add_argument("--golds", type=int, default=240, help="of each data set, for --against-math-verify")
    words = parser.parse_args()
    data = words.data
    if words.against_math_verify:
        golds = {name: [gold.reference for gold in found if gold.reference] for name, found in load(data).items()}
        show(judge(golds, words.golds))
        return
    compare("x^2+1", "1+x^2")  # the grammar is loaded before the clock starts
    totals = [report(name, golds, limit=40) for name, golds in load(data).items()]
    pairs, seconds = (sum(column) for column in zip(*totals, strict=True))
    print(f"all: {pairs:.0f} pairs in {seconds:.1f} s, {pairs / seconds:.0f} pairs per second of CPU time")


if __name__ == "__main__":
    main()
