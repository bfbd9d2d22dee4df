"""What an evaluation leaves behind, so that it can be stopped at any moment and gone on with, and looked at later.

In the folder of the evaluation: ``config.yaml``, ``state.json`` (what a resume checks), ``summary.json``,
``summary.md``, ``report.html``. In the folder of each task (the same one where there is one task):
``samples/<setting>.jsonl``, a row for each answer, and ``trajectories/<setting>.parquet``, in the same order.

Until all is there, answers are kept in ``parts/<setting>/<n>.json`` with ``<n>.parquet``: those to a batch of problems,
of which n is the first. The JSON file is written last, whole or not at all; without it there is no part. Any number of
processes write parts, each problem is in one of them, and who goes on asks what is in none.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from revelm.core.atomic import finite, write_text_atomic
from revelm.eval.samples import Sample
from revelm.trajectories.record import Trajectory
from revelm.trajectories.store import count_trajectories, join_trajectories, write_trajectories

SAMPLES = "samples"
TRAJECTORIES = "trajectories"
PARTS = "parts"


@dataclass(frozen=True)
class Spent:
    """Seconds: of the engine's work, and of all, which has verdicts in it."""

    decoding: float
    total: float


@dataclass(frozen=True)
class Part:
    """The answers to some problems: who asked, the time it took, and the name of its files ("": none)."""

    process: int
    spent: Spent
    samples: tuple[Sample, ...]
    name: str = ""


def save_part(folder: Path, setting: str, part: Part, trajectories: Sequence[Trajectory]) -> None:
    """Keep a part; its trajectories are in the order of its samples. OSError when the disk is full."""
    place = folder / PARTS / setting
    with _told(place / f"{part.name}.parquet") as file:
        write_trajectories(file, trajectories)
    content = {"process": part.process, "seconds": asdict(part.spent), "samples": [one.row() for one in part.samples]}
    with _told(place / f"{part.name}.json") as file:
        write_text_atomic(file, json.dumps(content))


def read_parts(folder: Path, setting: str) -> list[Part]:
    """The parts that are complete; one whose trajectories a power cut took away is not. ValueError names a file that is
    none."""
    parts = []
    for file in sorted((folder / PARTS / setting).glob("*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            samples = tuple(Sample(**row) for row in content["samples"])
            if count_trajectories(file.with_suffix(".parquet")) == len(samples):
                parts.append(Part(content["process"], Spent(**content["seconds"]), samples, file.stem))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: damaged ({error}); remove it to have its problems asked again") from error
    return parts


def join_parts(folder: Path, setting: str, parts: Sequence[Part], samples: Sequence[Sample]) -> None:
    """Write samples and trajectories of all ``parts``, in the order of ``samples``."""
    places = {(one.group, one.number): i for i, one in enumerate(one for part in parts for one in part.samples)}
    files = [folder / PARTS / setting / f"{part.name}.parquet" for part in parts]
    order = [places[one.group, one.number] for one in samples]
    with _told(folder / TRAJECTORIES / f"{setting}.parquet") as file:
        join_trajectories(file, files, order)
    lines = [json.dumps(finite(one.row()), allow_nan=False) + "\n" for one in samples]
    with _told(folder / SAMPLES / f"{setting}.jsonl") as file:
        write_text_atomic(file, "".join(lines))


@contextmanager
def _told(file: Path) -> Iterator[Path]:
    """``file``; an error while it is written names it and says that nothing is lost."""
    try:
        yield file
    except OSError as error:
        reason = f"{error.strerror or error}; answers so far are kept, --resume goes on"
        raise OSError(error.errno, reason, str(file)) from error


def forget_parts(folder: Path) -> None:
    """Remove the parts, once everything that is made of them is written."""
    shutil.rmtree(folder / PARTS, ignore_errors=True)


def read_samples(file: Path) -> list[Sample]:
    """The rows of a file of samples. ValueError names file and line of one that is none."""
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(Sample(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}, line {number}: not a sample of an evaluation ({error})") from error
    return rows
