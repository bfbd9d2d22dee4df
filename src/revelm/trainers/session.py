"""What every loop begins and ends with: the run directory, the weights to start from, and saving."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from revelm.core.allocator import return_freed_memory
from revelm.core.atomic import write_json_atomic
from revelm.core.config import dump_yaml, read_yaml
from revelm.core.errors import RunError
from revelm.core.seeds import derive_seed
from revelm.core.types import Family, require_diffusion
from revelm.models.language_model import LanguageModel
from revelm.models.load import load_model, load_tokenizer, read_family
from revelm.models.lora import add_lora, check_adapter
from revelm.trainers.checkpoint import (
    latest_checkpoint,
    prune_checkpoints,
    restore,
    save_checkpoint,
    seed_global_generator,
)
from revelm.trainers.config import ModelSpec, OptimizerSpec, TrainSpec
from revelm.trainers.optimizer import Optimizer
from revelm.trainers.run_log import read_rows
from revelm.viz.report import write_report


@dataclass
class Session:
    """A run under way: ``step`` rounds are done; ``cursor`` is what the loop keeps between rounds (plain JSON data).

    ``config`` is what the run was told, settled: as saved in config.yaml.
    """

    config: Any
    run: Path
    train: TrainSpec
    model: LanguageModel
    tokenizer: Any
    optimizer: Optimizer
    step: int
    cursor: dict[str, Any]
    saved: int = -1

    def save(self) -> None:
        """Write a checkpoint of the current step, unless it is there already."""
        if self.saved == self.step:
            return
        save_checkpoint(
            self.run,
            self.step,
            model=self.model,
            tokenizer=self.tokenizer,
            optimizer=self.optimizer,
            cursor=self.cursor,
        )
        self.saved = self.step
        prune_checkpoints(self.run, self.train.keep_checkpoints)

    def is_due(self, every: int) -> bool:
        """Whether something that happens every ``every`` steps (0: never) is due after this one."""
        return every > 0 and self.step % every == 0


def open_session(
    config: BaseModel,
    *,
    model: ModelSpec,
    train: TrainSpec,
    optimizer: OptimizerSpec,
    updates_per_step: int,
    settle: Callable[[Any, Family], BaseModel] | None = None,
) -> Session:
    """Load or resume. ``config`` has ``out`` and ``resume``; it is saved as config.yaml.

    ``settle`` fills in what depends on the model's family, and refuses what that family cannot do.
    Raises ValueError when ``out`` holds a run already and ``resume`` is not set, or when ``model.block_size`` is not
    the checkpoint's.
    """
    settings: Mapping[str, Any] = dict(config)
    run = Path(settings["out"])
    latest = latest_checkpoint(run)
    if latest is not None and not settings["resume"]:
        raise ValueError(f"out: {run} already holds {latest.name}; add resume=true to go on, or give another folder")
    source = model.path if latest is None else latest
    family = read_family(source)
    require_diffusion(family)
    check_block_size(model, family)
    settled = config if settle is None else settle(config, family)
    if latest is not None:
        check_same_run(settled, run / "config.yaml")
    weights, tokenizer = load_weights(source, model, seed=train.seed), load_tokenizer(source)
    weights.decoder.recomputes_layers = train.recompute_layers
    seed_global_generator(train.seed)
    total = train.steps * updates_per_step
    updates = Optimizer(weights, optimizer, total_updates=total)
    session = Session(settled, run, train, weights, tokenizer, updates, step=0, cursor={})
    if latest is not None:
        session.cursor = restore(latest, session.optimizer)
        session.step = session.saved = session.cursor.pop("step")
    run.mkdir(parents=True, exist_ok=True)
    dump_yaml(settled, run / "config.yaml")
    return session


def load_weights(source: str | Path, spec: ModelSpec, *, seed: int) -> LanguageModel:
    """The model to train, in training mode; with ``spec.lora`` under an adapter, the one in ``source`` or a new one.

    ValueError when the adapter in ``source`` is not what ``spec`` asks for.
    """
    is_adapted = spec.lora is not None
    model = load_model(
        source, dtype=spec.dtype, device=spec.device, quantize=spec.quantize, merges_adapter=not is_adapted
    )
    if spec.lora is not None:
        if model.adapter is None:
            add_lora(model, spec.lora, seed=derive_seed(seed, "lora"))
        check_adapter(model, spec.lora)
    return_freed_memory(sum(parameter.nbytes for parameter in model.parameters()))
    return model.train()


def check_same_run(config: BaseModel, saved: Path) -> None:
    """ValueError when what a resumed run is told would change what it learns (its length and reporting may change)."""
    if not saved.is_file():
        return
    before, now = read_yaml(saved), config.model_dump(mode="json")
    for name in ("task", "data", "batch_size", "objective", "optimizer", "rollout", "updates_per_step", "rewards"):
        if name in now and before.get(name) != now[name]:
            raise ValueError(
                f"resume: {name} is {now[name]}, but {saved} says {before.get(name)}; keep it, or change out"
            )
    for name in ("lora", "quantize"):
        if before["model"].get(name) != now["model"][name]:
            raise ValueError(
                f"resume: model.{name} is {now['model'][name]}, but {saved} says {before['model'].get(name)}; keep it, "
                "or change out"
            )
    if before["train"]["seed"] != now["train"]["seed"]:
        raise ValueError(f"resume: train.seed is {now['train']['seed']}, but {saved} says {before['train']['seed']}")


def check_block_size(spec: ModelSpec, family: Family) -> None:
    """ValueError when a recipe expects another block size than the checkpoint was trained with."""
    if spec.block_size is not None and spec.block_size != family.block_size:
        raise ValueError(
            f"model.block_size: {spec.block_size}, but the checkpoint {spec.path} was trained with blocks of "
            f"{family.block_size}; leave model.block_size out, or use a checkpoint of that size"
        )


def close_session(session: Session, *, is_interrupted: bool) -> None:
    """Save and report; then KeyboardInterrupt after a polite stop, or RunError when nothing was learnt."""
    session.save()
    rows = read_rows(session.run)
    seconds: dict[str, float] = {}
    for row in rows:
        seconds[row["phase"]] = seconds.get(row["phase"], 0.0) + row.get("seconds", 0.0)
    totals = {phase: round(value, 2) for phase, value in seconds.items() if value}
    summary = {"steps": session.step, "updates": session.optimizer.updates, "seconds": totals}
    write_json_atomic(session.run / "summary.json", summary | {"last": rows[-1] if rows else {}})
    write_report(session.run)
    if is_interrupted:
        raise KeyboardInterrupt(f"stopped after step {session.step}; resume with resume=true")
    if session.optimizer.updates == 0:
        raise RunError(
            f"{session.run}: the run ended with zero updates after {session.step} steps: no answers carried a signal "
            "(all groups scored alike, or none scored enough); try more answers per problem (rollout.group_size), "
            "easier problems or a better model"
        )
