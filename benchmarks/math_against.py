r"""Our verdicts beside those of the math-verify library, with its own settings, over answers made from golds.

The sample is seeded: of each data set at most ``num`` golds, a quarter of them whole numbers, the others of different
shapes as far as there are. Each is changed in every way of ``math_candidates``; both sides read gold and answer out of
a box.
"""

import logging
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from time import process_time
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.math_candidates import candidates, shape_of
from revelm.rewards.math_score import score_math

_WHOLE = re.compile(r"-?\d+")
_SHOWN = 3


class Judged(NamedTuple):
    """An answer, whether it is right, and the two verdicts."""

    gold: str
    answer: str
    is_right: bool
    ours: bool
    theirs: bool


def judge(golds: Mapping[str, Iterable[str]], num: int, seed: int = 0) -> dict[tuple[str, bool], list[Judged]]:
    """All candidates, by their kind and whether they are right; says how long each side took."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)  # it logs every answer that it cannot read
    rng, took = random.Random(seed), [0.0, 0.0]
    judged: dict[tuple[str, bool], list[Judged]] = defaultdict(list)
    for references in golds.values():
        differing = sorted(set(references))
        for gold in _sample(differing, num, rng):
            parsed = parse(f"\\boxed{{{gold}}}")
            for kind, is_right, answer in candidates(gold, differing, rng):
                began = process_time()
                ours = score_math(f"\\boxed{{{answer}}}", gold).value == 1.0
                took[0] += (middle := process_time()) - began
                theirs = bool(verify(parsed, parse(f"\\boxed{{{answer}}}")))
                took[1] += process_time() - middle
                judged[kind, is_right].append(Judged(gold, answer, is_right, ours, theirs))
    logging.disable(logging.NOTSET)
    total = sum(map(len, judged.values()))
    print(f"{total} answers, CPU seconds: ours {took[0]:.1f}, math-verify {took[1]:.1f}")
    return judged


def show(judged: Mapping[tuple[str, bool], list[Judged]]) -> None:
    """One row for each kind: how many answers there are, and how many each side judges otherwise than they are."""
    table = Table(title="answers judged wrongly")
    for column in ("answer made from the gold", "is", "answers", "ours", "math-verify", "examples: gold <- answer"):
        table.add_column(column, overflow="fold")
    for (kind, is_right), found in sorted(judged.items(), key=lambda item: (not item[0][1], item[0][0])):
        ours = [one for one in found if one.ours != is_right]
        theirs = [one for one in found if one.theirs != is_right]
        shown = [f"{one.gold[:40]} <- {one.answer[:40]}" for one in (ours or theirs)[:_SHOWN]]
        cells = [str(len(found)), str(len(ours) or ""), str(len(theirs) or ""), "\n".join(shown)]
        table.add_row(kind, "right" if is_right else "wrong", *cells)
    Console(width=150, markup=False).print(table)


def _sample(golds: list[str], num: int, rng: random.Random) -> list[str]:
    whole = [gold for gold in golds if _WHOLE.fullmatch(gold)]
    other = [gold for gold in golds if not _WHOLE.fullmatch(gold)]
    rng.shuffle(other)
    shapes = {shape_of(gold): gold for gold in other}
    chosen = [*shapes.values(), *(gold for gold in other if gold not in set(shapes.values()))][: num - num // 4]
    return chosen + rng.sample(whole, min(len(whole), num // 4))
