"""Supervised fine-tuning: texts in, checkpoints out.

Every step takes the next ``batch_size`` samples of a seeded permutation of each epoch, or of a mixture
(``revelm.data.mixture``), so the step number alone says which samples come next; noise is seeded by (run, step,
sample). A resumed run therefore goes on bit for bit, and any number of processes trains on the same rows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from revelm.core.registry import build
from revelm.core.seeds import derive_seed
from revelm.core.types import Family, require_diffusion
from revelm.objectives.batch import Text
from revelm.objectives.objective import FamilyObjective, RLObjective
from revelm.objectives.packing import micro_batches, padding_share
from revelm.objectives.supervised import SFT_KINDS
from revelm.parallel import world
from revelm.trainers.batches import draw_batch
from revelm.trainers.config import SFTConfig
from revelm.trainers.evaluation import Evaluation, plan_evaluation
from revelm.trainers.loop import train
from revelm.trainers.session import Session, Start, find_start, open_session
from revelm.trainers.texts import Texts, read_texts
from revelm.trainers.trackers import check_trackers
from revelm.trainers.update import update


def run(config: SFTConfig) -> Path:
    """Train as ``config`` says; returns the run directory. KeyboardInterrupt after a saved, polite stop."""
    check_objective(config.objective, field="objective")
    check_trackers(config.trackers)
    with world.joined(config.model.device) as processes:
        start = find_start(config, settle=settle_objective, world=processes)
        objective = build("objectives", start.config.objective, field="objective")
        texts = read_texts(config, start, objective)
        evaluation = _evaluation(config, start, processes)
        session = open_session(start, updates_per_step=1, world=processes)
        texts.check_unchanged(session.cursor)
        return train(session, "sft", lambda _: _step(session, objective, texts, config), evaluation, shows="loss")


def check_objective(spec: Mapping[str, Any] | None, *, field: str) -> None:
    """ValueError for an objective that cannot be built, or not be used here; before the model is known.

    Without a kind, its fields are looked up where every default objective's fields are known.
    """
    given = {"kind": SFT_KINDS["full"], **(spec or {})}
    if isinstance(build("objectives", given, field=field), RLObjective):
        raise ValueError(f"{field}.kind: {given['kind']!r} learns from scored answers; train with it by `revelm rl`")


def settle_objective(config: SFTConfig, family: Family) -> SFTConfig:
    """``config`` with the objective that ``family`` needs where none is named. ValueError when it cannot be trained."""
    require_diffusion(family)
    spec = {"kind": SFT_KINDS[family.attention], **(config.objective or {})}
    objective = build("objectives", spec, field="objective")
    if isinstance(objective, FamilyObjective):
        objective.check_family(family)
    return config.model_copy(update={"objective": spec})


def _evaluation(config: SFTConfig, start: Start, processes: world.World) -> Evaluation | None:
    if not config.eval_every:
        return None
    task = build("tasks", config.task or {}, field="task")
    parts = {"family": start.family, "tokenizer": start.tokenizer, "world": processes}
    return plan_evaluation(task, config.eval, num_samples=config.eval_samples, **parts)


def _samples(texts: Sequence[Text], places: Sequence[int]) -> list[Text]:
    """The texts at ``places``. One that comes again in the same step, as few texts do, has noise of its own."""
    seen: Counter[int] = Counter()
    found = []
    for i in places:
        found.append(replace(texts[i], key=texts[i].key + len(texts) * seen[i]))
        seen[i] += 1
    return found


def _step(session: Session, objective: Any, texts: Texts, config: SFTConfig) -> dict[str, float]:
    first = session.step * config.batch_size
    places = texts.mixture.places(config.train.seed, range(first, first + config.batch_size))
    seed = derive_seed(config.train.seed, "noise", session.step)
    samples = _samples(texts.samples, places)
    batch = draw_batch(objective, samples, session.model.family, seed=seed, world=session.world)
    pieces = micro_batches(batch, session.train.max_positions, packing=session.train.packing) or [batch]
    positions = session.world.sum(float(batch.lengths.sum()))
    found = update(session.model, session.optimizer, objective, pieces)
    return {**found, "positions": positions, "padding": padding_share(pieces)}
