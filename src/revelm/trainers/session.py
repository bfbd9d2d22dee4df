"""What every loop begins and ends with: the run directory, the weights to start from, and saving.

A loop begins in two steps. ``find_start`` reads everything but the weights: what a recipe has wrong for this model or
this run directory is an error then. ``open_session`` loads the weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any

from revelm.core.allocator import return_freed_memory
from revelm.core.atomic import write_json_atomic
from revelm.core.config import dump_yaml, parse_config, read_yaml
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
from revelm.trainers.config import ModelSpec, RLConfig, SFTConfig, TrainSpec
from revelm.trainers.optimizer import Optimizer
from revelm.trainers.run_log import read_rows
from revelm.viz.report import write_report

KEPT = ("task", "data", "batch_size", "objective", "optimizer", "rollout", "updates_per_step", "rewards")
KEPT_OF_PARTS = (("model", "dtype"), ("model", "lora"), ("model", "quantize"), ("train", "seed"))


@dataclass(frozen=True)
class Start:
    """What a run begins from, known before any weights are loaded.

    ``config`` is what the run was told, settled: as saved in config.yaml. ``latest``: the run's own newest checkpoint,
    where it is resumed.
    """

    config: Any
    latest: Path | None
    family: Family
    tokenizer: Any

    @property
    def source(self) -> str | Path:
        """The checkpoint to load: directory, run directory or hub id."""
        path: str = self.config.model.path
        return path if self.latest is None else self.latest


@dataclass
class Session:
    """A run under way: ``step`` rounds are done; ``cursor`` is what the loop keeps between rounds (plain JSON data).

    ``config`` is that of its ``Start``.
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


def find_start(
    config: SFTConfig | RLConfig, *, settle: Callable[[Any, Family], SFTConfig | RLConfig] | None = None
) -> Start:
    """Where the run of ``config`` begins: at a model, or at the run's newest checkpoint.

    ``settle`` fills in what depends on the model's family, and refuses what that family cannot do.
    Raises ValueError when ``out`` holds a run already and ``resume`` is not set, when that run was another one, and
    when ``model.block_size`` is not the checkpoint's.
    """
    run = Path(config.out)
    latest = latest_checkpoint(run)
    if latest is not None and not config.resume:
        raise ValueError(f"out: {run} already holds {latest.name}; add resume=true to go on, or give another folder")
    source = config.model.path if latest is None else latest
    family = read_family(source)
    require_diffusion(family)
    check_block_size(config.model, family)
    settled = config if settle is None else settle(config, family)
    saved = run / "config.yaml"
    if latest is not None and saved.is_file():
        before = parse_config(type(config), read_yaml(saved))
        check_same_run(settled, before if settle is None else settle(before, family), saved)
    return Start(settled, latest, family, load_tokenizer(source))


def open_session(start: Start, *, updates_per_step: int) -> Session:
    """Load the weights, and where the run is resumed its state; the configuration is saved as config.yaml."""
    config, run = start.config, Path(start.config.out)
    weights = load_weights(start.source, config.model, seed=config.train.seed)
    weights.decoder.recomputes_layers = config.train.recompute_layers
    seed_global_generator(config.train.seed)
    updates = Optimizer(weights, config.optimizer, total_updates=config.train.steps * updates_per_step)
    session = Session(config, run, config.train, weights, start.tokenizer, updates, step=0, cursor={})
    if start.latest is not None:
        session.cursor = restore(start.latest, session.optimizer)
        session.step = session.saved = session.cursor.pop("step")
    run.mkdir(parents=True, exist_ok=True)
    dump_yaml(config, run / "config.yaml")
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


def check_same_run(now: SFTConfig | RLConfig, before: SFTConfig | RLConfig, saved: Path) -> None:
    """ValueError when what a resumed run is told would change what it learns, from what it was told ``before``.

    Its length, its reporting and the device may change. ``saved``: the file that holds ``before``, for the error.
    """
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    pairs = {name: (old[name], new[name]) for name in KEPT if name in new}
    pairs |= {f"{part}.{name}": (old[part][name], new[part][name]) for part, name in KEPT_OF_PARTS}
    if not _is_same_place(before, now):
        pairs["model.path"] = (before.model.path, now.model.path)
    for name, (was, told) in pairs.items():
        if was != told:
            raise ValueError(f"resume: {name} is {told}, but {saved} says {was}; keep it, or change out")


def _is_same_place(before: SFTConfig | RLConfig, now: SFTConfig | RLConfig) -> bool:
    """Whether both begin at the same model, however it is spelt: also when it was moved together with the run."""
    places = [(Path(c.model.path).resolve(), Path(c.out).resolve()) for c in (before, now)]
    return len({path for path, _ in places}) == 1 or len({relpath(path, out) for path, out in places}) == 1


def check_block_size(spec: ModelSpec, family: Family) -> None:
    """ValueError when a recipe expects another block size than the checkpoint was trained with."""
    if spec.block_size in (None, family.block_size):
        return
    if family.block_size is None:
        reason = f"is a {family.name} model with {family.attention} attention, which has no blocks"
    else:
        reason = f"was trained with blocks of {family.block_size}"
    raise ValueError(
        f"model.block_size: {spec.block_size}, but the checkpoint {spec.path} {reason}; leave model.block_size out, or "
        "use a checkpoint of that size"
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
