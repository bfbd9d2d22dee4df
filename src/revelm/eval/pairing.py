"""Two evaluations side by side: which problems both answered under a setting of the same name, and how."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revelm.eval.identity import SUMMARY, read_object
from revelm.eval.metrics import by_problem
from revelm.eval.samples import Sample
from revelm.eval.store import SAMPLES, read_samples
from revelm.eval.tables import results_of


@dataclass(frozen=True)
class Both:
    """The answers to one problem, of the first evaluation and of the second."""

    first: Sequence[Sample]
    second: Sequence[Sample]

    @property
    def right(self) -> tuple[list[float], list[float]]:
        """Whether each answer is right."""
        return [one.correct for one in self.first], [one.correct for one in self.second]

    @property
    def change(self) -> float:
        """Mean accuracy of the second minus that of the first."""
        first, second = self.right
        return sum(second) / len(second) - sum(first) / len(first)


@dataclass(frozen=True)
class Paired:
    """What both answered of a task under a setting. ``left_out``: problems that only one has, or has otherwise.

    ``otherwise``: what was asked in another way, as (first, second) by the name of the field.
    """

    task: str
    setting: str
    problems: Sequence[Both]
    left_out: int
    otherwise: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Pairing:
    """All that both have, and the tasks and settings ("task/setting") that ``only_first`` or ``only_second`` has."""

    pairs: Sequence[Paired]
    only_first: Sequence[str]
    only_second: Sequence[str]


def paired_evaluations(first: Path, second: Path) -> Pairing:
    """An entry for each task and setting with problems that both answered.

    ValueError for a folder that is no finished evaluation, and where nothing is common.
    """
    summaries = _summary(first), _summary(second)
    places = _places(first, summaries[0]), _places(second, summaries[1])
    found = []
    for key in (key for key in places[0] if key in places[1]):
        ones, others = (_by_question(read_samples(some[key])) for some in places)
        both = [Both(ones[name], others[name]) for name in ones if name in others]
        left_out = len({*ones, *others}) - len(both)
        if both:
            told = [dict(_leaves(_said(summary, *key))) for summary in summaries]
            names = [name for name in dict.fromkeys([*told[0], *told[1]]) if told[0].get(name) != told[1].get(name)]
            otherwise = {name: (told[0].get(name), told[1].get(name)) for name in names}
            found.append(Paired(*key, both, left_out, otherwise))
    if not found:
        raise ValueError(
            f"{first} and {second}: no problem was answered in both under a setting of the same name; "
            f"{_told(first, places[0])}; {_told(second, places[1])}"
        )
    keys = {(one.task, one.setting) for one in found}
    return Pairing(found, *(["/".join(key) for key in some if key not in keys] for some in places))


def _summary(folder: Path) -> dict[str, Any]:
    file = folder / SUMMARY
    if not file.is_file():
        raise ValueError(f"{file}: missing; give the folder of a finished evaluation (revelm eval --out)")
    summary = read_object(file)
    if "environment" not in summary or not ("tasks" in summary or "settings" in summary):
        raise ValueError(f"{file}: not of an evaluation that kept its samples")
    return summary


def _places(folder: Path, summary: Mapping[str, Any]) -> dict[tuple[str, str], Path]:
    """The file of samples of each task and setting."""
    return {
        (task, setting): (folder / task if "tasks" in summary else folder) / SAMPLES / f"{setting}.jsonl"
        for task, result in results_of(summary).items()
        for setting in result["settings"]
    }


def _by_question(samples: Sequence[Sample]) -> dict[tuple[str, str, str], list[Sample]]:
    """By problem: what is asked counts as well as the id, which may be a row's number in another file."""
    found: dict[tuple[str, str, str], list[Sample]] = {}
    for some in by_problem(samples):
        found.setdefault((some[0].problem, some[0].question, some[0].reference), []).extend(some)
    return found


def _said(summary: Mapping[str, Any], task: str, setting: str) -> dict[str, Any]:
    """How a task was asked under a setting."""
    result = results_of(summary)[task]
    said = {"decoding": result.get("decoding", {}).get(setting, {}), "cache": result.get("cache", {})}
    said["answers to each problem"] = result.get("answers_per_problem", {}).get(
        setting, result.get("samples_per_problem")
    )
    return {**said, "dtype": summary["environment"].get("dtype")}


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{where}.{key}" if where else str(key))
    else:
        yield where, value


def _told(folder: Path, places: Mapping[tuple[str, str], Any]) -> str:
    return f"{folder} has {', '.join(f'{task}/{setting}' for task, setting in places)}"
