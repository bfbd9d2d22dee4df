"""Two evaluations compared, as a self-contained page: the numbers, and where they differ, answers side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from revelm.viz.answer_view import AnswerView, answer_view, preview, shown
from revelm.viz.entry import plain_text
from revelm.viz.templating import fill

MAX_PROBLEMS = 500
MAX_SIZE = 10_000_000
"""Characters of all answers on the page together."""
RESULTS = ("won", "lost")


@dataclass(frozen=True)
class Differing:
    """A problem on which two evaluations differ.

    ``first``, ``second``: what is said of the answers of either, and those to show, as rows of a file of samples.
    """

    task: str
    setting: str
    is_won: bool
    problem: str
    question: str
    reference: str
    first: tuple[str, Sequence[Mapping[str, Any]]]
    second: tuple[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Side:
    """The answers of one of the two evaluations to a problem."""

    told: str
    answers: tuple[AnswerView, ...]


@dataclass(frozen=True)
class DifferingView:
    """A problem as text; ``result`` is one of ``RESULTS``."""

    task: str
    setting: str
    result: str
    problem: str
    preview: str
    question: str
    reference: str
    first: Side
    second: Side

    @property
    def size(self) -> int:
        """Characters that it takes on a page."""
        answers = (*self.first.answers, *self.second.answers)
        return len(self.question) + len(self.reference) + sum(len(one.text) + len(one.extracted) for one in answers)


@dataclass(frozen=True)
class ResultView:
    """The numbers of a task under a setting, ready to print. ``verdict``: better, worse, or "" where 0 is possible."""

    task: str
    setting: str
    first: str
    second: str
    difference: str
    interval: str
    verdict: str
    problems: str
    counts: str
    p: str
    p_holm: str
    otherwise: tuple[str, ...]


def comparison_page(found: Mapping[str, Any], differing: Sequence[Sequence[Differing]]) -> str:
    """The page as an HTML document.

    ``found``: as ``revelm.eval.compare`` has it; ``differing``: of each of its entries. Of many problems it shows as
    many of each entry, the first ones.
    """
    results = [_result(one) for one in found["comparisons"]]
    views = [one for some in differing for one in _some(some, len(differing))]
    tasks, settings = (list(dict.fromkeys(vars(one)[name] for one in results)) for name in ("task", "setting"))
    first, second = plain_text(str(found["first"])), plain_text(str(found["second"]))
    return fill(
        "comparison.html",
        title=f"{first} → {second}",
        first=first,
        second=second,
        results=results,
        filters=(("task", tasks), ("setting", settings), ("result", RESULTS)),
        differing=views,
        shown=len(views),
        left=sum(map(len, differing)) - len(views),
        only=[plain_text(", ".join(found[name])) for name in ("only_first", "only_second")],
    )


def _some(differing: Sequence[Differing], num_entries: int) -> list[DifferingView]:
    found: list[DifferingView] = []
    size = MAX_SIZE // num_entries
    for one in differing[: max(1, MAX_PROBLEMS // num_entries)]:
        if size > 0:
            found.append(_view(one))
            size -= found[-1].size
    return found


def _view(one: Differing) -> DifferingView:
    sides = [
        Side(plain_text(told), tuple(answer_view(one.task, one.setting, row) for row in rows))
        for told, rows in (one.first, one.second)
    ]
    question = shown(one.question)
    return DifferingView(
        task=plain_text(one.task),
        setting=plain_text(one.setting),
        result=RESULTS[0] if one.is_won else RESULTS[1],
        problem=shown(one.problem),
        preview=preview(question),
        question=question,
        reference=shown(one.reference),
        first=sides[0],
        second=sides[1],
    )


def _result(one: Mapping[str, Any]) -> ResultView:
    d = one["difference"]
    counts = f"{len(one['won'])} won, {len(one['lost'])} lost, {one['num_equal']} equal"
    left = f", {one['left_out']} left out" if one["left_out"] else ""
    otherwise = [plain_text(f"{name}: {was}, then {now}") for name, (was, now) in one["otherwise"].items()]
    return ResultView(
        task=plain_text(one["task"]),
        setting=plain_text(one["setting"]),
        first=f"{100 * one['first']:.1f} %",
        second=f"{100 * one['second']:.1f} %",
        difference=f"{100 * d['mean']:+.1f} points",
        interval=f"[{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]",
        verdict="better" if d["low"] > 0 else "worse" if d["high"] < 0 else "",
        problems=str(d["n"]),
        counts=counts + left,
        p=f"{one['p']:.4f}",
        p_holm=f"Holm {one['p_holm']:.4f}",
        otherwise=tuple(otherwise),
    )
