"""What every loop begins and ends with: the run directory, the weights to start from, and saving.

A loop begins in two steps. ``find_start`` reads everything but the weights: what a recipe has wrong for this model or
this run directory is an error then. ``open_session`` loads the weights.
"""

from collections.abc import Callable, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revelm.core.allocator import return_freed_memory
from revelm.core.atomic import write_text_atomic
from revelm.core.config import dump_yaml, parse_config, read_yaml
from revelm.core.seeds import derive_seed
from revelm.core.types import Family, require_diffusion
from revelm.models.blocks import decoding_model, resized
from revelm.models.language_model import LanguageModel
from revelm.models.load import LATEST, load_model, load_tokenizer, read_family, resolve_checkpoint
from revelm.models.lora import add_lora, check_adapter
from revelm.objectives.objective import Need
from revelm.parallel.placement import Placement, place
from revelm.parallel.world import World
from revelm.trainers.best import write_best
from revelm.trainers.checkpoint import (
    latest_checkpoint,
    prune_checkpoints,
    restore,
    save_checkpoint,
    save_trained,
    seed_global_generator,
    write_model,
)
from revelm.trainers.config import ModelSpec, RLConfig, SFTConfig, TrainSpec
from revelm.trainers.critic import Critic, open_critic, open_value_model, place_value_model, write_shared
from revelm.trainers.optimizer import Optimizer
from revelm.trainers.same_run import check_same_run
from revelm.trainers.value_spec import ValueSpec


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

    ``config`` is that of its ``Start``. ``model`` is what is trained, ``placement`` says where its weights are;
    ``critic``: what is trained beside it; ``reference``: the frozen weights the run began with, where needed. Under
    several processes every one has a session; what is saved, they save together.
    """

    config: Any
    run: Path
    model: LanguageModel
    tokenizer: Any
    optimizer: Optimizer
    step: int
    cursor: dict[str, Any]
    saved: int = -1
    critic: Critic | None = None
    reference: LanguageModel | None = None

    @property
    def train(self) -> TrainSpec:
        """The settings of every loop."""
        spec: TrainSpec = self.config.train
        return spec

    @property
    def placement(self) -> Placement:
        """Where the weights are."""
        return self.optimizer.placement

    @property
    def world(self) -> World:
        """The processes of this run."""
        return self.placement.world

    @property
    def trained(self) -> Any:
        """What the optimiser trains and the placement has placed: the model, or a critic that shares its backbone."""
        is_shared = self.critic is not None and self.critic.optimizer is None
        return self.critic.model if self.critic is not None and is_shared else self.model

    @property
    def plain(self) -> LanguageModel:
        """The model to decode with; where weights are in shards it has them inside ``gathered`` only."""
        found = self.placement.plain(self.trained)
        return found if self.trained is self.model else found.backbone

    def gathered(self) -> AbstractContextManager[None]:
        """Inside the block ``plain`` has its weights. Collective where they are in shards."""
        return self.placement.gathered(self.trained)

    def save(self) -> None:
        """Write a checkpoint of the current step, unless it is there already. Collective."""
        if self.saved == self.step:
            return
        save_checkpoint(
            self.run, self.step, self._save_weights, tokenizer=self.tokenizer, cursor=self.cursor, world=self.world
        )
        self.saved = self.step
        with self.world.together():
            if self.world.is_main:
                prune_checkpoints(self.run, self.train.keep_checkpoints)

    def _save_weights(self, folder: Path) -> None:
        """Policy and critic with what their optimisers know."""
        is_shared = self.trained is not self.model
        save_trained(self.trained, folder, self.optimizer, write=write_shared if is_shared else write_model)
        if self.critic is not None:
            self.critic.save(folder)

    def check_finite(self) -> None:
        """FloatingPointError when the policy's or the critic's updates are left out again and again."""
        self.optimizer.check_finite()
        if self.critic is not None and self.critic.optimizer is not None:
            self.critic.optimizer.check_finite()

    def is_due(self, every: int) -> bool:
        """Whether something that happens every ``every`` steps (0: never) is due after this one."""
        return every > 0 and self.step % every == 0


def find_start(
    config: SFTConfig | RLConfig,
    *,
    settle: Callable[[Any, Family], SFTConfig | RLConfig] | None = None,
    world: World | None = None,
) -> Start:
    """Where the run of ``config`` begins: at a model, or at the run's newest checkpoint.

    ``settle`` fills in what depends on the model's family, and refuses what that family cannot do. ``world``: the
    processes of the run, which all begin where the main one says.
    Raises ValueError when ``out`` holds a run already and ``resume`` is not set, when that run was another one, and
    when ``model.block_size`` is not the checkpoint's.
    """
    run = Path(config.out)
    latest = (world or World()).broadcast(latest_checkpoint(run))
    if latest is not None and not config.resume:
        raise ValueError(f"out: {run} already holds {latest.name}; add resume=true to go on, or give another folder")
    source = config.model.path if latest is None else latest
    family = sized_family(config.model, read_family(source))
    settled = config if settle is None else settle(config, family)
    saved = run / "config.yaml"
    if latest is not None and saved.is_file():
        before = parse_config(type(config), read_yaml(saved))
        check_same_run(settled, before if settle is None else settle(before, family), saved)
    return Start(settled, latest, family, load_tokenizer(source))


def open_session(
    start: Start, *, updates_per_step: int, world: World, value: ValueSpec | None = None, needs: Set[Need] = frozenset()
) -> Session:
    """Load the weights, and where the run is resumed its state; the configuration is saved as config.yaml.

    ``value``: of the critic to train beside. ``needs``: of the objective, which may ask for the weights the run began
    with. Collective.
    """
    config, run = start.config, Path(start.config.out)
    spec = config.model.model_copy(update={"device": str(world.device)})
    model = load_weights(start.source, spec, seed=config.train.seed)
    model.decoder.recomputes_layers = config.train.recompute_layers
    seed_global_generator(config.train.seed)
    optimizer, critic = _optimizers(model, start, world, updates=config.train.steps * updates_per_step, value=value)
    session = Session(config, run, model, start.tokenizer, optimizer, step=0, cursor={}, critic=critic)
    if start.latest is not None:
        session.cursor = restore(start.latest, optimizer)
        session.step = session.saved = session.cursor.pop("step")
    if "reference" in needs:
        session.reference = _reference(session, spec)
    with world.together():
        if world.is_main:
            run.mkdir(parents=True, exist_ok=True)
            dump_yaml(config, run / "config.yaml")
            if start.latest is not None:
                _mend_pointers(session, start.latest)
    return session


def _reference(session: Session, spec: ModelSpec) -> LanguageModel:
    """The frozen weights that the run began with, also where its ``model.path`` has moved on since.

    ValueError when they are gone.
    """
    source = session.cursor.setdefault("reference", str(resolve_checkpoint(spec.path)))
    if not Path(source).is_dir():
        raise ValueError(f"objective.reference_weight: {source}, which the run began with, is gone; put it back")
    return decoding_model(load_model(source, dtype=spec.dtype, device=spec.device), spec.block_size)


def _mend_pointers(session: Session, latest: Path) -> None:
    """LATEST and BEST as they would be, had the run not been killed between a checkpoint and its pointers."""
    write_text_atomic(session.run / LATEST, f"{latest.name}\n")
    if (told := session.cursor.get("best")) is not None:
        write_best(session.run, told)


def _optimizers(
    model: LanguageModel, start: Start, world: World, *, updates: int, value: ValueSpec | None
) -> tuple[Optimizer, Critic | None]:
    """Place the weights, and make what trains them: the policy, and the critic where there is one."""
    spec, strategy, layers = start.config.optimizer, start.config.train.strategy, list(model.decoder.layers)
    if value is None:
        placement = place(model, layers, strategy=strategy, world=world, methods=("body",))
        return Optimizer(model, spec, total_updates=updates, placement=placement), None
    critic = open_value_model(value, model, latest=start.latest)
    if value.backbone == "shared":
        placement = place(critic, layers, strategy=strategy, world=world, methods=("body",), root=model)
        own, trained = placement, critic
    else:
        placement = place(model, layers, strategy=strategy, world=world, methods=("body",))
        own, trained = place_value_model(critic, strategy=strategy, world=world), model
    idle = updates // start.config.train.steps * value.warmup_steps
    rates = value.own_rates if value.backbone == "shared" else {}
    optimizer = Optimizer(trained, spec, total_updates=updates - idle, placement=placement, own_rates=rates)
    total = updates * value.epochs
    opened = open_critic(value, critic, optimizer=spec, total_updates=total, placement=own, latest=start.latest)
    return optimizer, opened


def load_weights(source: str | Path, spec: ModelSpec, *, seed: int) -> LanguageModel:
    """The model to train, in training mode; with ``spec.lora`` under an adapter, the one in ``source`` or a new one.

    ValueError when the adapter in ``source`` is not what ``spec`` asks for.
    """
    is_adapted = spec.lora is not None
    model = load_model(
        source, dtype=spec.dtype, device=spec.device, quantize=spec.quantize, merges_adapter=not is_adapted
    )
    model = decoding_model(model, spec.block_size)
    if spec.lora is not None:
        if model.adapter is None:
            add_lora(model, spec.lora, seed=derive_seed(seed, "lora"))
        check_adapter(model, spec.lora)
    return_freed_memory(sum(parameter.nbytes for parameter in model.parameters()))
    return model.train()


def sized_family(spec: ModelSpec, family: Family) -> Family:
    """``family``, of the checkpoint, as the run trains it.

    ValueError for an autoregressive one, and when a recipe expects another block size than the checkpoint was trained
    with and does not say that it changes it.
    """
    require_diffusion(family)
    if spec.block_size in (None, family.block_size):
        return family
    if family.block_size is None:
        reason = f"is a {family.name} model with {family.attention} attention, which has no blocks"
        remedy = "leave model.block_size out"
    elif spec.resizes_blocks:
        return resized(family, spec.block_size, field="model.block_size")
    else:
        reason = f"was trained with blocks of {family.block_size}"
        remedy = "leave model.block_size out, use a checkpoint of that size, or set model.resizes_blocks to change it"
    raise ValueError(f"model.block_size: {spec.block_size}, but the checkpoint {spec.path} {reason}; {remedy}")
