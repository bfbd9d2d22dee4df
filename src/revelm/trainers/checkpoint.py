"""Checkpoints: complete or absent, never half a one, and everything a run needs to go on as if never interrupted.

``checkpoint-<step>/`` is a Hugging Face directory plus ``trainer/`` (optimiser, schedule position, random states, data
cursor). Where an adapter is trained, the directory is that adapter's in peft's layout: it names its base model and does
not copy it. It is filled under another name, flushed to disk and renamed; then the ``LATEST`` file is replaced.
"""

import json
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from revelm.core.atomic import atomic_directory, write_text_atomic
from revelm.data.tokenizer import save_tokenizer
from revelm.models.language_model import LanguageModel
from revelm.models.load import LATEST, save_model
from revelm.models.lora import save_adapter
from revelm.trainers.optimizer import Optimizer

PREFIX = "checkpoint-"


def save_checkpoint(
    run: Path, step: int, *, model: LanguageModel, tokenizer: Any, optimizer: Optimizer, cursor: Mapping[str, Any]
) -> Path:
    """Write ``checkpoint-<step>`` below ``run`` and point LATEST at it. ``cursor`` is plain JSON data."""
    target = run / f"{PREFIX}{step}"
    with atomic_directory(target) as folder:
        if model.adapter is None:
            save_model(model, folder)
        else:
            save_adapter(model, folder)
        save_tokenizer(tokenizer, folder)
        trainer = folder / "trainer"
        trainer.mkdir()
        torch.save(optimizer.state(), trainer / "optimizer.pt")
        torch.save(torch.get_rng_state(), trainer / "rng.pt")
        (trainer / "state.json").write_text(json.dumps({"step": step, **cursor}), encoding="utf-8")
    write_text_atomic(run / LATEST, target.name + "\n")
    return target


def prune_checkpoints(run: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` complete checkpoints of ``run``."""
    found = sorted(_complete(run), key=_step_of)
    for old in found[: max(0, len(found) - keep)]:
        shutil.rmtree(old)


def latest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of ``run``: the one LATEST names, or a later one it did not get to name."""
    found = sorted(_complete(run), key=_step_of)
    return found[-1] if found else None


def restore(folder: Path, optimizer: Optimizer) -> dict[str, Any]:
    """Load optimiser and random states from a checkpoint whose weights the model already has; returns the cursor."""
    trainer = folder / "trainer"
    try:
        optimizer.load_state(torch.load(trainer / "optimizer.pt", weights_only=True))
        torch.set_rng_state(torch.load(trainer / "rng.pt", weights_only=True))
        state: dict[str, Any] = json.loads((trainer / "state.json").read_text(encoding="utf-8"))
        return state | {"step": int(state["step"])}
    except (OSError, ValueError, RuntimeError, EOFError, LookupError, TypeError, pickle.PickleError) as error:
        reason = str(error).strip().split("\n")[0][:120]
        remedy = f"remove {folder} to resume from the one before"
        raise ValueError(f"{trainer} is damaged ({type(error).__name__}: {reason}); {remedy}") from error


def _complete(run: Path) -> list[Path]:
    """Checkpoints by their own names; what people put beside them (checkpoint-10-old) is not touched."""
    found = (p for p in run.glob(f"{PREFIX}*") if p.name.removeprefix(PREFIX).isdecimal())
    return [p for p in found if (p / "trainer" / "state.json").is_file()]


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))


def seed_global_generator(seed: int) -> None:
    """Seed torch's global generator, for components that use it; the loops themselves draw from derived seeds."""
    torch.manual_seed(seed)
