"""The answers to one task under one setting: batch by batch, each kept when it is there, shared over processes."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from revelm.core.types import Problem
from revelm.engine.engine import Engine
from revelm.eval.jobs import Job
from revelm.eval.run import answers_to
from revelm.eval.samples import samples_of
from revelm.eval.store import Part, read_parts, save_part
from revelm.parallel.world import World
from revelm.tasks.task import Task
from revelm.trajectories.record import Trajectory

BATCHES = 4
"""Answers for each slot of the engine between two saves: slots are idle at the end of a batch."""


@dataclass(frozen=True)
class Asked:
    """A task of the evaluation with its problems. ``folder``: where its files go; None: nowhere."""

    job: Job
    task: Task
    problems: Sequence[Problem]
    folder: Path | None


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` problems of a task have answers under a setting; the other numbers are those of the last
    batch of this process: the share of right answers, and tokens per second."""

    task: str
    setting: str
    done: int
    total: int
    right: float
    speed: float


Tell = Callable[[Progress], None]


def answer_all(
    asked: Asked, setting: str, engine: Engine, world: World, *, save_every: int | None, tell: Tell | None
) -> list[Part]:
    """All answers under ``setting``: those that were kept, and the rest, asked now; the same in every process.

    ``tell``: what the main process says after each batch, speaking for as many problems of the others.
    """
    with world.together():
        kept = read_parts(asked.folder, setting) if asked.folder is not None and world.is_main else []
    kept = world.broadcast(kept)
    done = {one.group for part in kept for one in part.samples}
    missing = [place for place in range(len(asked.problems)) if place not in done]
    mine, size = missing[world.rank :: world.size], save_every or _batch_size(asked, setting, engine)
    fresh: list[Part] = []
    with world.together():
        for start in range(0, len(mine), size):
            part, trajectories = _ask(asked, setting, engine, mine[start : start + size])
            part = replace(part, process=world.rank)
            if asked.folder is not None:
                save_part(asked.folder, setting, part, trajectories)
            fresh.append(part)
            if tell is not None and world.is_main:
                so_far = len(done) + min(len(missing), world.size * (start + size))
                tell(_progress(asked, setting, part, so_far))
    return kept + [part for parts in world.gather(fresh) for part in parts]


def times(parts: Sequence[Part]) -> dict[str, float]:
    """``seconds`` of the process that took longest, over all its parts; ``tokens_per_second`` of all together, over the
    seconds of the process that decoded longest."""
    decoding, total = defaultdict[int, float](float), defaultdict[int, float](float)
    for part in parts:
        decoding[part.process] += part.spent.decoding
        total[part.process] += part.spent.total
    return {
        "tokens_per_second": sum(one.tokens for part in parts for one in part.samples) / max(decoding.values()),
        "seconds": max(total.values()),
    }


def _batch_size(asked: Asked, setting: str, engine: Engine) -> int:
    """Problems of a batch."""
    return max(1, BATCHES * engine.num_slots // asked.job.asked.num_answers(setting))


def _ask(asked: Asked, setting: str, engine: Engine, places: Sequence[int]) -> tuple[Part, list[Trajectory]]:
    """The answers to the problems at ``places``."""
    problems = [asked.problems[place] for place in places]
    found, spent = answers_to(engine, asked.task, problems, asked.job.asked, setting=setting)
    samples = samples_of(found, asked.task, tokenizer=engine.tokenizer, places=places)
    return Part(0, spent, tuple(samples), f"{places[0]:06d}"), [one.trajectory for one in found]


def _progress(asked: Asked, setting: str, part: Part, done: int) -> Progress:
    right = sum(one.correct for one in part.samples) / len(part.samples)
    speed = sum(one.tokens for one in part.samples) / part.spent.decoding
    return Progress(asked.job.name, setting, done, len(asked.problems), right, speed)
