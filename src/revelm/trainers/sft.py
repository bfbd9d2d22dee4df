"""Supervised fine-tuning: texts in, checkpoints out.

Every step takes the next ``batch_size`` samples of a seeded permutation of each epoch, so the step number alone says
which samples come next; noise is seeded by (run, step, sample). A resumed run therefore goes on bit for bit.
"""

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from revelm.core.grid import padded_length
from revelm.core.registry import build
from revelm.core.seeds import derive_seed
from revelm.core.types import Family, require_diffusion
from revelm.data.chat_rows import read_chat_rows
from revelm.data.stream import stream
from revelm.data.tokenizer import encode_demonstration
from revelm.objectives.batch import Text
from revelm.objectives.masked_sft import SFT_KINDS, MaskedSFT
from revelm.objectives.objective import FamilyObjective, RLObjective
from revelm.tasks.task import DemonstrationTask
from revelm.trainers.config import SFTConfig
from revelm.trainers.run_log import RunLog, interruptible
from revelm.trainers.session import Session, close_session, find_start, open_session
from revelm.trainers.update import update


def run(config: SFTConfig) -> Path:
    """Train as ``config`` says; returns the run directory. KeyboardInterrupt after a saved, polite stop."""
    check_objective(config.objective, field="objective")
    demonstrations = _demonstrations(config)
    start = find_start(config, settle=settle_objective)
    objective = build("objectives", start.config.objective, field="objective")
    texts = encode_texts(demonstrations, start.tokenizer, start.family, objective=objective)
    session = open_session(start, updates_per_step=1)
    total = config.train.steps
    with RunLog(session.run, phase="sft", total=total, start=session.step) as log, interruptible() as interrupt:
        while session.step < total and not interrupt.is_requested:
            began = perf_counter()
            metrics = _step(session, objective, texts, config)
            session.step += 1
            log.write(session.step, metrics | {"seconds": perf_counter() - began})
            log.show(session.step, f"loss {metrics['loss']:.3f}")
            if session.is_due(config.train.save_every):
                session.save()
    close_session(session, is_interrupted=interrupt.is_requested)
    return session.run


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


def _step(session: Session, objective: Any, texts: list[Text], config: SFTConfig) -> dict[str, float]:
    first = session.step * config.batch_size
    places = stream(config.train.seed, range(first, first + config.batch_size), len(texts))
    seed = derive_seed(config.train.seed, "noise", session.step)
    batch = objective.prepare([texts[i] for i in places], session.model.family, seed)
    return update(session.model, session.optimizer, objective, batch.split(config.train.max_positions))


def _demonstrations(config: SFTConfig) -> list[Any]:
    if config.data.path is not None:
        return list(read_chat_rows(config.data.path))
    if config.task is None:
        raise ValueError("data.path and task are both missing; give a file of chats, or a task with demonstrations")
    task = build("tasks", config.task, field="task")
    if not isinstance(task, DemonstrationTask):
        raise ValueError(f"task {task.name!r} has no demonstrations to learn from; give a file of chats in data.path")
    return list(task.demonstrations(config.data.num, config.data.seed))


def encode_texts(demonstrations: list[Any], tokenizer: Any, family: Family, *, objective: Any) -> list[Text]:
    """Demonstrations as token ids. ValueError, with its number, for a sample that is refused or too long."""
    texts = []
    for i, demonstration in enumerate(demonstrations):
        try:
            ids, prompt_length = encode_demonstration(tokenizer, demonstration.messages)
        except ValueError as error:
            raise ValueError(f"data row {i + 1}: {error}") from error
        if isinstance(objective, MaskedSFT):
            size = objective.num_positions(len(ids), family)
        else:
            size = padded_length(len(ids), family.block_size or 1)
        if size > family.max_length:
            raise ValueError(
                f"data row {i + 1} has {len(ids)} tokens and takes {size} positions; the model has "
                f"{family.max_length}; shorten or remove the row"
            )
        if max(ids) >= family.vocab_size:
            raise ValueError(
                f"data row {i + 1} has the token id {max(ids)}, and the model's vocabulary has {family.vocab_size} "
                "entries; give it the tokenizer it was made with"
            )
        texts.append(Text(np.array(ids, dtype=np.int64), prompt_length, i))
    if not texts:
        raise ValueError("data: no samples to train on")
    return texts
