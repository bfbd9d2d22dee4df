"""Checkpoints: complete or absent, never half a one, and everything a run needs to go on as if never interrupted.

``checkpoint-<step>/`` is a Hugging Face directory plus ``trainer/`` (optimiser, schedule position, random states, data
cursor), and with averaged weights a second one in ``ema/``. Where an adapter is trained, the directory is that
adapter's in peft's layout: it names its base model and does not copy it. It is filled under another name, flushed to
disk and renamed; then the ``LATEST`` file is replaced.

Several processes fill one directory together, on a disk that all of them see: the main one writes the weights, gathered
tensor by tensor where they are in shards, and each writes its part of the trainer's state under the parameters' names.
Any number of processes, with any placement of the weights, goes on from there.
"""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from revelm.core.atomic import atomic_directory, write_text_atomic
from revelm.data.tokenizer import save_tokenizer
from revelm.models.checkpoint_files import BEST, RUN_CHECKPOINT
from revelm.models.language_model import LanguageModel
from revelm.models.load import LATEST, save_model
from revelm.models.lora import save_adapter
from revelm.parallel.replica import Replica
from revelm.parallel.world import World
from revelm.trainers.optimizer import MASTER, Optimizer
from revelm.trainers.saved_state import load_state, save_state, state_names

EMA, TRAINER, OPTIMIZER = "ema", "trainer", "optimizer"
REMOVED = ".removed"


def save_checkpoint(
    run: Path,
    step: int,
    write: Callable[[Path], None],
    *,
    tokenizer: Any,
    cursor: Mapping[str, Any],
    world: World | None = None,
) -> Path:
    """Write ``checkpoint-<step>`` below ``run`` and point LATEST at it. ``cursor`` is plain JSON data.

    ``write`` puts what is trained into a folder, as ``save_trained`` does. ``world``: processes that all call this.
    OSError, with what was there before untouched, when one of them cannot write (disk full, rights).
    """
    place = world or World()
    with _checkpoint_directory(run, step, place) as folder:
        write(folder)
        with place.together():
            if place.is_main:
                _save_rest(folder, tokenizer, {"step": step, **cursor})
    return run / f"{RUN_CHECKPOINT}{step}"


@contextmanager
def _checkpoint_directory(run: Path, step: int, world: World) -> Iterator[Path]:
    """A folder that all processes fill; when the block ends it is ``checkpoint-<step>``, and LATEST points at it.

    An error in the block has to be one of all processes (``World.together``); it leaves everything as it was.
    """
    target = run / f"{RUN_CHECKPOINT}{step}"
    with ExitStack() as stack:
        with world.together():
            folder = stack.enter_context(atomic_directory(target)) if world.is_main else None
        yield world.broadcast(folder)
        with world.together():
            stack.close()
            if world.is_main:
                write_text_atomic(run / LATEST, target.name + "\n")


def write_model(model: LanguageModel, folder: Path) -> None:
    """The model's own directory, or that of the adapter it is trained with."""
    if model.adapter is None:
        save_model(model, folder)
    else:
        save_adapter(model, folder)


def save_trained(
    model: Any, folder: Path, optimizer: Optimizer, *, write: Callable[[Any, Path], None] = write_model
) -> None:
    """Weights of ``model`` into ``folder``, averaged ones into its ``ema/``, the optimiser into its ``trainer/``.

    ``write`` puts one model, whole and on one device, into a folder. Collective.
    """
    _write_weights(model, folder, optimizer, write=write, replaced={})
    if optimizer.averages:
        averages = {id(p): average for p, average in zip(optimizer.parameters, optimizer.averages, strict=True)}
        replaced = {name: averages[id(p)] for name, p in model.named_parameters() if id(p) in averages}
        _write_weights(model, folder / EMA, optimizer, write=write, replaced=replaced)
    save_state(optimizer.state(), folder / TRAINER / OPTIMIZER)


def _write_weights(
    model: Any, folder: Path, optimizer: Optimizer, *, write: Callable[[Any, Path], None], replaced: dict[str, Tensor]
) -> None:
    """``write`` by the main process, from a copy on the host where weights are in shards or ``replaced`` by others."""
    placement, whole = optimizer.placement, model
    if placement.is_sharded or replaced:
        host = torch.device("cpu")
        copy = Replica(placement.plain(model), device=host, shares_frozen=not placement.is_sharded)
        copy.fill(dict(model.named_parameters()) | replaced, keeps=placement.world.is_main)
        whole = copy.module
    with placement.world.together():
        if placement.world.is_main:
            write(whole, folder)


def _save_rest(folder: Path, tokenizer: Any, state: Mapping[str, Any]) -> None:
    """What one process writes beside the weights: tokenizer, random states, and ``state``, which says step and more."""
    for place in (folder, folder / EMA):
        if place.is_dir():
            save_tokenizer(tokenizer, place)
    trainer = folder / TRAINER
    trainer.mkdir(exist_ok=True)
    states = BytesIO()
    torch.save(_random_states(), states)
    (trainer / "rng.pt").write_bytes(states.getvalue())
    (trainer / "state.json").write_text(json.dumps(state), encoding="utf-8")


def prune_checkpoints(run: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` complete checkpoints of ``run``, and the one that BEST names.

    What a killed process has left half written or half removed goes as well. A checkpoint loses its name before its
    files: who is killed in between leaves nothing that passes for one.
    """
    pointer = run / BEST
    best = pointer.read_text(encoding="utf-8").partition("\n")[0] if pointer.is_file() else ""
    for ending in (".tmp", ".old", REMOVED):
        for left in run.glob(f".{RUN_CHECKPOINT}*{ending}"):
            shutil.rmtree(left, ignore_errors=True)
    found = sorted((folder for folder in _complete(run) if folder.name != best), key=_step_of)
    for old in found[: max(0, len(found) - keep)]:
        shutil.rmtree(old.rename(run / f".{old.name}.{uuid4().hex}{REMOVED}"), ignore_errors=True)


def latest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of ``run``: the one LATEST names, or a later one it did not get to name."""
    found = sorted(_complete(run), key=_step_of)
    return found[-1] if found else None


def restore(folder: Path, optimizer: Optimizer) -> dict[str, Any]:
    """Load optimiser and random states from a checkpoint whose weights the model already has; returns the cursor.

    Collective. The checkpoint may be that of other processes, more or fewer.
    """
    trainer = folder / TRAINER
    with _named_damage(folder):
        restore_optimizer(folder, optimizer)
        _set_random_states(torch.load(trainer / "rng.pt", weights_only=True))
        state: dict[str, Any] = json.loads((trainer / "state.json").read_text(encoding="utf-8"))
        return state | {"step": int(state["step"])}


def restore_optimizer(folder: Path, optimizer: Optimizer) -> None:
    """Load what ``save_trained`` has put into ``folder``'s ``trainer/``: masters, moments, averages, counts."""
    place = folder / TRAINER / OPTIMIZER
    with _named_damage(folder):
        saved = state_names(place)
        trained = {name.removeprefix(f"{MASTER}.") for name in saved if name.startswith(f"{MASTER}.")}
        if trained != set(optimizer.names):
            raise ValueError(f"it has {len(trained)} trained tensors, the model has {len(optimizer.names)} others")
        optimizer.resume(saved, lambda state: load_state(state, place))


@contextmanager
def _named_damage(folder: Path) -> Iterator[None]:
    """One sentence for whatever a file that is missing, cut short or another one's leads to."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, EOFError, LookupError, TypeError, pickle.PickleError) as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{folder / TRAINER} is damaged"):
            raise
        reason = str(error).strip().split("\n")[0][:120]
        remedy = f"remove {folder} to resume from the one before"
        raise ValueError(f"{folder / TRAINER} is damaged ({type(error).__name__}: {reason}); {remedy}") from error


def _random_states() -> dict[str, Tensor]:
    """Of torch's global generators: the host's, and that of this process's CUDA device where one is in use."""
    found = {"cpu": torch.get_rng_state()}
    return found | {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else found


def _set_random_states(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _complete(run: Path) -> list[Path]:
    """Checkpoints by their own names; what people put beside them (checkpoint-10-old) is not touched."""
    found = (p for p in run.glob(f"{RUN_CHECKPOINT}*") if p.name.removeprefix(RUN_CHECKPOINT).isdecimal())
    return [p for p in found if (p / "trainer" / "state.json").is_file()]


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix(RUN_CHECKPOINT))


def seed_global_generator(seed: int) -> None:
    """Seed torch's global generator, for components that use it; the loops themselves draw from derived seeds."""
    torch.manual_seed(seed)
