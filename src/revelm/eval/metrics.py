"""The numbers of one task under one setting, from its samples. Every mean is {"mean", "low", "high", "n"}."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from revelm.eval.intervals import average, proportion, ratio, share_of_problems
from revelm.eval.samples import Sample
from revelm.eval.votes import default_ks, majority_at_k, pass_at_k

Metric = dict[str, float]


def summarise(samples: Sequence[Sample], *, pass_at: Sequence[int] = (), is_voting: bool = False) -> dict[str, Any]:
    """All numbers but the times; 95 % intervals clustered by problem.

    ``is_voting``: whether the task says which answers are the same; without it, majorities are counted where an answer
    has a key. ``accuracy``, ``pass_at_k`` and ``majority_at_k`` by k, ``tokens_per_forward``,
    ``forwards`` and ``length`` (tokens up to the stop) of an answer, ``truncated`` (share that hit the limit),
    ``errors`` (share without a verdict; they count as wrong), ``breakdown`` of scores, and ``groups``: the accuracy on
    seen and unseen problems and on each of the groups that the task tells apart.

    The length of an answer shapes no number but ``length``, ``truncated`` and the speeds: whatever a run rewards,
    ``accuracy`` is the share of right answers, those that were cut included.
    """
    clusters = [one.group for one in samples]
    tokens, forwards = [one.tokens for one in samples], [one.forwards for one in samples]
    metrics: dict[str, Any] = {
        "accuracy": proportion([one.correct for one in samples], clusters),
        "tokens_per_forward": ratio(tokens, forwards, clusters),
        "length": average(tokens, clusters),
        "truncated": proportion([float(one.finish_reason == "length") for one in samples], clusters),
        "forwards": average(forwards, clusters),
        "errors": proportion([one.breakdown.get("error", 0.0) for one in samples], clusters),
    }
    names = sorted({name for one in samples for name in one.breakdown} - {"correct"})
    metrics["breakdown"] = {n: average([one.breakdown.get(n, 0.0) for one in samples], clusters) for n in names}
    metrics["groups"] = {name: {"accuracy": _accuracy(part)} for name, part in _groups(samples).items()}
    return metrics | of_several(samples, pass_at, is_voting=is_voting)


def by_problem(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The samples of each problem, in the order of their numbers."""
    found: dict[int, list[Sample]] = {}
    for one in samples:
        found.setdefault(one.group, []).append(one)
    return [sorted(some, key=lambda one: one.number) for _, some in sorted(found.items())]


def of_several(
    samples: Sequence[Sample], pass_at: Sequence[int], *, is_voting: bool = False
) -> dict[str, dict[str, Metric]]:
    """``pass_at_k`` and ``majority_at_k``, by k as text: those of ``pass_at`` that every problem has answers for."""
    problems = by_problem(samples)
    ks = asked_ks(min(map(len, problems), default=0), pass_at)

    def mean(value: Callable[[Sequence[Sample]], float]) -> Metric:
        return share_of_problems([value(some) for some in problems], num_answers=len(samples))

    passes = {str(k): mean(lambda some, k=k: _passed(some, k)) for k in ks}
    majorities = {str(k): mean(lambda some, k=k: _voted(some, k)) for k in ks if k > 1}
    has_keys = is_voting or any(one.answer is not None for one in samples)
    return {"pass_at_k": passes, "majority_at_k": majorities if has_keys else {}}


def asked_ks(num: int, pass_at: Sequence[int]) -> list[int]:
    """The k of pass@k for ``num`` answers to a problem."""
    return [k for k in (sorted(set(pass_at)) or default_ks(num)) if k <= num]


def _passed(some: Sequence[Sample], k: int) -> float:
    return pass_at_k(len(some), sum(one.correct == 1.0 for one in some), k)


def _voted(some: Sequence[Sample], k: int) -> float:
    return majority_at_k([one.answer for one in some], [one.correct for one in some], k)


def _accuracy(samples: Sequence[Sample]) -> Metric:
    return proportion([one.correct for one in samples], [one.group for one in samples])


def _groups(samples: Sequence[Sample]) -> Mapping[str, list[Sample]]:
    """Seen and unseen problems where the task tells them apart of all, then the task's own groups, in their order."""
    found: dict[str, list[Sample]] = {}
    if all("seen" in one.info for one in samples):
        found = {
            "seen": [one for one in samples if one.info["seen"]],
            "unseen": [one for one in samples if not one.info["seen"]],
        }
    own = sorted({str(one.info["group"]) for one in samples if "group" in one.info})
    found |= {name: [one for one in samples if str(one.info.get("group")) == name] for name in own}
    return {name: part for name, part in found.items() if part}
