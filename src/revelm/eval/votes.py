"""pass@k and majority@k of the answers to one problem.

pass@k is the chance that k of the n answers, drawn without replacement, hold a right one: 1 - C(n - c, k) / C(n, k) for
c right ones (Chen et al. 2021, arXiv 2107.03374, section 2.1). Its mean over problems is unbiased for the chance that k
fresh answers hold one.

majority@k is the chance that the most frequent answer of k is right. Answers are compared by their keys
(``revelm.tasks.task.AnswerTask``); one without a key has no vote, and where several keys have most votes each wins
equally often, so that a tie counts the share of them that is right. For k below n it is the mean over the n // k
groups of k neighbours, in the order in which they were drawn: no answer is used twice, so it is unbiased as well.
"""

import math
from collections.abc import Sequence


def default_ks(num: int) -> tuple[int, ...]:
    """The powers of two up to ``num`` answers, and ``num``."""
    powers = [1 << i for i in range(num.bit_length())]
    return tuple(sorted({*powers, num}))


def pass_at_k(num: int, right: int, k: int) -> float:
    """The unbiased estimate from ``num`` answers of which ``right`` are right; ``k`` from 1 to ``num``."""
    if num - right < k:
        return 1.0
    return 1.0 - math.comb(num - right, k) / math.comb(num, k)


def majority(keys: Sequence[str | None], correct: Sequence[float]) -> float:
    """How often the most frequent key is right; 0 where there is none.

    ``correct``: 1 or 0 of each answer; answers with one key that are judged differently count by their mean.
    """
    votes: dict[str, list[float]] = {}
    for key, right in zip(keys, correct, strict=True):
        if key is not None:
            votes.setdefault(key, []).append(right)
    most = max(map(len, votes.values()), default=0)
    winners = [sum(rights) / most for rights in votes.values() if len(rights) == most]
    return sum(winners) / len(winners) if winners else 0.0


def majority_at_k(keys: Sequence[str | None], correct: Sequence[float], k: int) -> float:
    """The mean of ``majority`` over groups of ``k`` neighbours; what is left at the end is not used."""
    starts = range(0, len(keys) - k + 1, k)
    return sum(majority(keys[i : i + k], correct[i : i + k]) for i in starts) / len(starts)
