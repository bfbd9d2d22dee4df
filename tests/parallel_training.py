"""Training that processes do together, and one process does alone: what has to come out the same."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, zeros

from revelm.decoding.sampling import Sampling
from revelm.engine.engine import Engine
from revelm.models.load import load_model
from revelm.models.lora import LoraSpec, add_lora
from revelm.models.value import copied_value_model
from revelm.objectives import score as scoring_module
from revelm.objectives.batch import Batch, Loss, Scored, Text
from revelm.objectives.block_sft import BlockSFT
from revelm.objectives.score import score
from revelm.objectives.value_loss import ValueLoss, score_values, values
from revelm.parallel.placement import Strategy, place
from revelm.parallel.shard import is_shard, whole
from revelm.parallel.share import share
from revelm.parallel.world import World
from revelm.trainers.checkpoint import restore, save_checkpoint, save_trained
from revelm.trainers.config import OptimizerSpec, SFTConfig
from revelm.trainers.loop import train
from revelm.trainers.optimizer import Optimizer
from revelm.trainers.run_log import RunLog
from revelm.trainers.session import Session
from revelm.trainers.update import columns, update
from tests.tiny_checkpoint import tiny_model, tiny_tokenizer

LENGTHS = (9, 14, 16, 23, 30, 31, 12)


@dataclass(frozen=True)
class Run:
    """``cut``: who takes which samples, and how they are cut into micro-batches: "shared", "uneven" (one has rows
    alone, the other all in one) or "idle" (only the main process has any). ``changes``: of the model's config.json."""

    strategy: Strategy = "ddp"
    cut: str = "shared"
    dtype: str = "float64"
    recomputes: bool = False
    average: float = 0.0
    adapter: bool = False
    changes: tuple[tuple[str, Any], ...] = ()


class Training:
    """A model that is trained by ``world`` as ``run`` says, from its first weights or from a checkpoint."""

    def __init__(self, world: World, run: Run, *, source: Path | None = None) -> None:
        self.world, self.run, self.objective = world, run, BlockSFT()
        changes: dict[str, Any] = dict(run.changes)
        self.model: Any = (
            tiny_model(dtype=run.dtype, **changes) if source is None else load_model(source, dtype=run.dtype)
        )
        if run.adapter:
            add_lora(self.model, LoraSpec(rank=2), seed=0)
        self.model.train()
        self.model.decoder.recomputes_layers = run.recomputes
        layers = list(self.model.decoder.layers)
        self.placement = place(self.model, layers, strategy=run.strategy, world=world, methods=("body",))
        spec = OptimizerSpec(learning_rate=3e-3, schedule="cosine", weight_decay=0.1, ema_decay=run.average)
        self.optimizer = Optimizer(self.model, spec, total_updates=20, placement=self.placement)
        if self.placement.is_sharded:
            pairs = zip(self.optimizer.masters, self.optimizer.parameters, strict=True)
            assert all(master is parameter for master, parameter in pairs), "shards are the masters"
        self.step = 0
        if source is not None:
            self.step = restore(source, self.optimizer)["step"]

    def texts(self) -> list[Text]:
        """All samples."""
        rng = np.random.default_rng(0)
        return [Text(rng.integers(3, 262, n), n // 3, key=n) for n in LENGTHS]

    def batches(self) -> list[Batch]:
        """This process's micro-batches of the next step."""
        texts = self.texts()
        rank, size, cut = self.world.rank, self.world.size, self.run.cut
        mine = share(LENGTHS, size, rank)
        if cut == "idle":
            mine = list(range(len(LENGTHS))) if rank == 0 else []
        batch = self.objective.prepare([texts[i] for i in mine], self.model.family, self.step)
        limits = {"shared": 150, "uneven": 1 if rank == 0 else 10_000, "idle": 150}
        return batch.split(limits[cut]) or [batch]

    def train(self, steps: int) -> list[dict[str, float]]:
        """Metrics of the next ``steps`` updates."""
        found = []
        for _ in range(steps):
            found.append(update(self.model, self.optimizer, self.objective, self.batches()))
            self.step += 1
        return found

    def save(self, folder: Path, *, tokenizer: Any = None) -> Path:
        """A checkpoint below ``folder``."""
        told = {"tokenizer": tokenizer or tiny_tokenizer(), "cursor": {}, "world": self.world}
        return save_checkpoint(folder, self.step, lambda place: save_trained(self.model, place, self.optimizer), **told)

    def state(self) -> dict[str, Tensor]:
        """The optimiser's state, whole."""
        return {name: whole(tensor).detach().clone() for name, tensor in self.optimizer.state().items()}


def trained(world: World, run: Run, steps: int) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Metrics of ``steps`` updates; the state after the first one, which has the first gradients."""
    training = Training(world, run)
    metrics = training.train(1)
    state = training.state()
    return metrics + training.train(steps - 1), state


def trained_in_chunks(world: World, run: Run, steps: int) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """``trained``, with logits of single rows already too many to keep."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("KEPT_LOGITS", 0), ("CHUNK_ROWS", 1), ("CACHED_LOGITS", 1)):
            patch.setattr(scoring_module, name, value)
        return trained(world, run, steps)


EMPTY = zeros(0)


class Poisoned(BlockSFT):
    """Its loss is not a number."""

    def judge(self, scored: Scored, batch: Batch) -> Loss:
        """As that of its kind, but for the sum."""
        return replace(super().judge(scored, batch), sum=scored.logprob.sum() * float("nan"))


class Infinite(BlockSFT):
    """Its loss is infinite, and its gradient is not."""

    def judge(self, scored: Scored, batch: Batch) -> Loss:
        """As that of its kind, but for the sum."""
        loss = super().judge(scored, batch)
        return replace(loss, sum=loss.sum + float("inf"))


def poisoned(world: World, run: Run) -> tuple[list[float], list[int], dict[str, Tensor]]:
    """A good update, two whose loss is not finite in the last process, a good one: what was skipped; the counts."""
    training = Training(world, run)
    good, skipped = training.objective, []
    for bad in (None, Poisoned(), Infinite(), None):
        training.objective = bad if bad is not None and world.rank == world.size - 1 else good
        skipped += [found["skipped"] for found in training.train(1)]
    return skipped, training.state()["counts"].tolist(), training.state()


def behaviour(model: Any, batch: Batch) -> dict[str, Tensor]:
    """Log-probabilities."""
    return {"behaviour": score(model, batch).logprob}


def old_values(model: Any, batch: Batch) -> dict[str, Tensor]:
    """What a critic says."""
    return {"value": values(model, batch)}


def numbers(world: World, run: Run) -> list[list[float]]:
    """Log-probabilities of all processes' targets before, between and after two updates, sorted."""
    training = Training(world, run)
    found = []
    for _ in range(3):
        training.step = 0
        valued = columns(training.model, training.batches(), behaviour, placement=training.placement)
        assert is_shard(training.model.lm_head.weight) == (run.strategy == "fsdp" and world.size > 1)
        mine = [number for batch in valued for number in batch.columns.get("behaviour", EMPTY).tolist()]
        found.append(sorted(number for part in world.gather(mine) for number in part))
        training.train(1)
    return found


def decoded(world: World, run: Run) -> tuple[list[list[int]], list[int]]:
    """What an engine answers after one update and after two, made once; bytes of its weights outside the rollouts.

    The last of several processes asks nothing.
    """
    training = Training(world, run)
    plain = training.placement.plain(training.model)
    engine = Engine(plain, num_slots=4)
    prompts = [] if world.rank and world.rank == world.size - 1 else [[5, 6, 7, 8, 9], [10, 11, 12]]
    answers, sizes = [], []
    for version in (1, 2):
        training.train(1)
        training.model.eval()
        with training.placement.gathered(training.model):
            engine.weights_version = version
            answers += [t.completion_ids.tolist() for t in engine.generate(prompts, Sampling(max_new_tokens=8))]
        sizes.append(sum(p.untyped_storage().nbytes() for p in plain.parameters()))
    return answers, sizes


def critic_trained(world: World, run: Run) -> list[dict[str, float]]:
    """Three updates of a critic on rewards made up from the targets."""
    training = Training(world, run)
    critic: Any = copied_value_model(tiny_model(dtype=run.dtype))
    layers = list(critic.backbone.decoder.layers)
    how = {"strategy": run.strategy, "world": world, "methods": ("body",)}
    placement = place(critic, layers, root=critic.backbone, **how)
    optimizer = Optimizer(critic, OptimizerSpec(learning_rate=1e-2), total_updates=9, placement=placement)
    found = []
    for _ in range(3):
        valued = columns(critic, training.batches(), old_values, placement=placement)
        batches = [batch.with_columns(**{"return": (batch.targets % 7).double()}) for batch in valued]
        found.append(update(critic, optimizer, ValueLoss(), batches, scoring=score_values))
    return found


def saved_and_gone_on(world: World, run: Run, folder: Path) -> list[dict[str, float]]:
    """Three updates, a checkpoint below ``folder``, and the metrics of three more."""
    training = Training(world, run)
    training.train(3)
    training.save(folder)
    return training.train(3)


def resumed(world: World, run: Run, folder: Path) -> list[dict[str, float]]:
    """The metrics of three updates from the checkpoint below ``folder`` on."""
    training = Training(world, run, source=folder / "checkpoint-3")
    assert training.step == 3
    return training.train(3)


def told(world: World, failing: int, error: Exception) -> tuple[str, str]:
    """What each process hears when one fails in something that they do together."""
    try:
        with world.together():
            if world.rank == failing:
                raise error
    except Exception as heard:  # noqa: BLE001 - which one it is, is the question
        return type(heard).__name__, str(heard)
    return "", ""


def unlogged(world: World, folder: Path, fails_early: bool) -> tuple[str, int, list[int]]:
    """What each process hears of a run whose second row of metrics cannot be written, or no log be opened (early); its
    last step; who came back."""
    training = Training(world, Run())
    config = SFTConfig.model_validate({"model": {"path": "tiny"}, "train": {"steps": 5}, "out": str(folder)})
    session = Session(config, folder, training.model, tiny_tokenizer(), training.optimizer, step=0, cursor={})
    if fails_early and world.is_main:
        folder.touch()

    def step(log: RunLog) -> dict[str, float]:
        found = training.train(1)[0]
        if world.is_main and session.step == 1:
            log.file.unlink()
            log.file.mkdir()  # where a file is to be
        return found

    try:
        train(session, "sft", step, None, shows="loss")
    except OSError as error:
        return str(error), session.step, world.gather(world.rank)
    return "", session.step, world.gather(world.rank)


class FullDisk:
    """A tokenizer that does not fit on the disk."""

    def save_pretrained(self, folder: Path) -> None:
        """What the system does then."""
        raise OSError(28, "No space left on device", str(folder))


def unsaved(world: World, run: Run, folder: Path, fails_early: bool) -> tuple[str, list[float]]:
    """What each process hears when the main one cannot write a second checkpoint, and the losses after it."""
    training = Training(world, run)
    training.train(1)
    training.save(folder)
    training.train(1)
    if fails_early and world.is_main:
        (folder / ".checkpoint-2.tmp").touch()  # where a folder is to be
    try:
        training.save(folder, tokenizer=tiny_tokenizer() if fails_early else FullDisk())
    except OSError as error:
        return str(error), [found["loss"] for found in training.train(1)]
    return "", []
