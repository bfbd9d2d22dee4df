"""``report.html`` of an evaluation, self-contained: its numbers, and its answers to look through.

What a model wrote is hostile: every text is escaped, and the page's policy allows nothing from elsewhere.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revelm.core.atomic import write_text_atomic
from revelm.viz.answer_view import VERDICTS, AnswerView, answer_view
from revelm.viz.entry import plain_text
from revelm.viz.run_files import interval
from revelm.viz.templating import fill
from revelm.viz.ticks import is_drawable, short_number

MAX_ANSWERS = 1500
MAX_SIZE = 10_000_000
"""Characters of all answers on the page together."""


@dataclass(frozen=True)
class ResultView:
    """The numbers of a task under a setting, ready to print; "" where there is none.

    ``several``: pass@k and majority@k; ``groups``: accuracies of parts of the problems.
    """

    task: str
    setting: str
    accuracy: str
    detail: str
    several: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, str], ...]
    facts: tuple[str, ...]
    expected: str
    verdict: str


def write_evaluation_page(folder: Path, summary: Mapping[str, Any], *, out: Path | None = None) -> Path:
    """Write ``folder/report.html``, or ``out``, from the summary and the samples beside it; returns its path."""
    path = folder / "report.html" if out is None else out
    write_text_atomic(path, evaluation_page(folder, summary))
    return path


def finished_evaluation(folder: Path) -> Mapping[str, Any] | None:
    """The summary of the evaluation in ``folder``; None where there is none, as in the folder of a run."""
    file = folder / "summary.json"
    if not file.is_file():
        return None
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    is_one = isinstance(summary, dict) and "environment" in summary and ("settings" in summary or "tasks" in summary)
    return summary if is_one else None


def evaluation_page(folder: Path, summary: Mapping[str, Any]) -> str:
    """The page as an HTML document. Of many answers it shows as many of each task and setting: the first ones to each
    problem, or where there is no room for one to each, those to the first problems."""
    results = [_result(*one) for one in _results(summary)]
    answers = [one for found in _answers(folder, summary) for one in found]
    tasks, settings = (list(dict.fromkeys(vars(one)[name] for one in results)) for name in ("task", "setting"))
    return fill(
        "evaluation.html",
        title=plain_text(str(summary.get("model", folder.name))),
        results=results,
        singles=_singles(summary),
        tasks=tasks,
        filters=(("task", tasks), ("setting", settings), ("verdict", VERDICTS)),
        answers=answers,
        shown=len(answers),
        left=max(0, sum(numbers["accuracy"]["n"] for _, _, numbers in _results(summary)) - len(answers)),
        environment=plain_text(json.dumps(summary.get("environment", {}), indent=2, ensure_ascii=False)),
    )


def _answers(folder: Path, summary: Mapping[str, Any]) -> Iterator[list[AnswerView]]:
    """Of each task and setting."""
    places = [(task, setting) for task, setting, _ in _results(summary)]
    for task, setting in places:
        result = summary["tasks"][task] if "tasks" in summary else summary
        limit = max(1, MAX_ANSWERS // len(places))
        each, size = max(1, limit // max(1, result["num_problems"])), MAX_SIZE // len(places)
        found: list[AnswerView] = []
        for row in _rows(_file(folder, summary, task, setting)):
            if row["number"] < each:
                found.append(answer_view(task, setting, row))
                limit, size = limit - 1, size - found[-1].size
            if limit == 0 or size <= 0:
                break
        yield found


def _singles(summary: Mapping[str, Any]) -> list[str]:
    """What is said of settings under which all answers to a problem would be the same."""
    told: Mapping[str, Mapping[str, Any]] = summary["tasks"] if "tasks" in summary else {str(summary["task"]): summary}
    few = [
        f"{task}, {setting}"
        for task, result in told.items()
        for setting, num in result.get("answers_per_problem", {}).items()
        if num < result["samples_per_problem"]
    ]
    return [plain_text(f"One answer to each problem, as all would be the same: {'; '.join(few)}")] if few else []


def _results(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    tasks = summary["tasks"] if "tasks" in summary else {summary["task"]: summary}
    for task, result in tasks.items():
        for setting, numbers in result["settings"].items():
            yield str(task), str(setting), numbers


def _file(folder: Path, summary: Mapping[str, Any], task: str, setting: str) -> Path:
    return (folder / task if "tasks" in summary else folder) / "samples" / f"{setting}.jsonl"


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    """Row by row; none where the file is not there."""
    if file.is_file():
        with file.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _result(task: str, setting: str, numbers: Mapping[str, Any]) -> ResultView:
    accuracy, told = numbers["accuracy"], numbers.get("expected")
    names = (("pass@", "pass_at_k"), ("majority@", "majority_at_k"))
    several = [(f"{kind}{k}", _share(v)) for kind, name in names for k, v in numbers[name].items() if int(k) > 1]
    groups = [(plain_text(name), _share(part["accuracy"])) for name, part in numbers.get("groups", {}).items()]
    facts = [f"{_mean(numbers[name])} {label}" for name, label in _FACTS if _mean(numbers[name])]
    facts += [f"{_share(numbers[name])} {label}" for name, label in _SHARES if numbers[name]["mean"]]
    expected = "" if told is None else f"{100 * told['accuracy']:.1f} % ({told['source']})"
    return ResultView(
        plain_text(task),
        plain_text(setting),
        f"{100 * accuracy['mean']:.1f} %" if is_drawable(accuracy["mean"]) else "",
        f"{_bounds(accuracy)} · {accuracy['n']} answers",
        tuple(several),
        tuple(groups),
        tuple(facts),
        plain_text(expected),
        "" if told is None else plain_text(str(told["verdict"])),
    )


_FACTS = (
    ("tokens_per_forward", "tokens per forward"),
    ("forwards", "forwards"),
    ("length", "tokens"),
    ("tokens_per_second", "tokens/s"),
)
_SHARES = (("truncated", "cut at the limit"), ("errors", "without a verdict"))


def _share(numbers: Mapping[str, Any]) -> str:
    return f"{100 * numbers['mean']:.1f} % {_bounds(numbers)}" if is_drawable(numbers["mean"]) else ""


def _bounds(numbers: Mapping[str, Any]) -> str:
    ends: Sequence[Any] = (numbers["low"], numbers["high"])
    return f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]" if all(map(is_drawable, ends)) else ""


def _mean(value: Any) -> str:
    found = interval(value)
    return "" if found is None else short_number(found.mean)
