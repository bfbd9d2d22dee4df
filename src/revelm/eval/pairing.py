"""Two evaluations side by side: which problems both answered under a setting of the same name, and how.

``folder@setting`` is one setting of an evaluation, to be compared with another, of the same evaluation or not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
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
    """What both answered of a task under a setting, or under two: "first → second".

    ``left_out``: problems that only one has, or has otherwise. ``otherwise``: what was asked in
    another way, as (first, second) by the name of the field.
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


@dataclass(frozen=True)
class _Side:
    """One of the two: its folder, the one setting that is meant (None: all), what it found, and its files of samples
    by task and setting."""

    folder: Path
    only: str | None
    summary: Mapping[str, Any]
    places: Mapping[tuple[str, str], Path]


def paired_evaluations(first: Path, second: Path) -> Pairing:
    """An entry for each task and setting with problems that both answered; of ``folder@setting`` for each task.

    ValueError for a folder that is no finished evaluation, an unknown setting, and where nothing is common.
    """
    sides = _side(first), _side(second)
    found, keys = [], []
    for key, other in product(*(side.places for side in sides)):
        if key[0] != other[0] or (key[1] != other[1] and None in (sides[0].only, sides[1].only)):
            continue
        one = _paired(sides, key, other)
        found += [one] if one.problems else []
        keys += [(key, other)] if one.problems else []
    if not found:
        raise ValueError(
            f"{first} and {second}: no problem was answered in both under a setting of the same name; "
            f"{_told(sides[0])}; {_told(sides[1])}; two settings are compared as {sides[0].folder}@NAME"
        )
    used = [set(some) for some in zip(*keys, strict=True)]
    only = [["/".join(key) for key in side.places if key not in some] for side, some in zip(sides, used, strict=True)]
    return Pairing(found, *only)


def _paired(sides: tuple[_Side, _Side], key: tuple[str, str], other: tuple[str, str]) -> Paired:
    """What ``key`` of the first and ``other`` of the second have in common."""
    keys = key, other
    ones, others = (_by_question(read_samples(side.places[at])) for side, at in zip(sides, keys, strict=True))
    both = [Both(ones[name], others[name]) for name in ones if name in others]
    told = [dict(_leaves(_said(side.summary, *at))) for side, at in zip(sides, keys, strict=True)]
    names = [name for name in dict.fromkeys([*told[0], *told[1]]) if told[0].get(name) != told[1].get(name)]
    otherwise = {name: (told[0].get(name), told[1].get(name)) for name in names}
    setting = key[1] if key == other else f"{key[1]} → {other[1]}"
    return Paired(key[0], setting, both, len({*ones, *others}) - len(both), otherwise)


def _side(path: Path) -> _Side:
    """What is meant by a folder, or by ``folder@setting``."""
    before, at, only = path.name.rpartition("@")
    if not at or not only or path.is_dir():
        summary = _summary(path)
        return _Side(path, None, summary, _places(path, summary))
    folder = path.with_name(before) if before else path.parent
    summary = _summary(folder)
    places = _places(folder, summary)
    meant = {key: place for key, place in places.items() if key[1] == only}
    if not meant:
        raise ValueError(f"{path}: no setting {only!r}; {folder} has {', '.join(dict.fromkeys(s for _, s in places))}")
    return _Side(folder, only, summary, meant)


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


def _told(side: _Side) -> str:
    return f"{side.folder} has {', '.join(f'{task}/{setting}' for task, setting in side.places)}"
