"""Checkpoints: complete or absent, the newest complete one counts, damage is named."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from revelm.models.load import load_model
from revelm.trainers.checkpoint import latest_checkpoint, prune_checkpoints, restore, save_checkpoint, save_trained
from revelm.trainers.config import OptimizerSpec
from revelm.trainers.optimizer import Optimizer
from tests.tiny_checkpoint import save_tiny, tiny_model, tiny_tokenizer


class Run:
    """A run directory with a model that can be stepped and saved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = tiny_model()
        self.optimizer = Optimizer(self.model, OptimizerSpec(learning_rate=0.01), total_updates=10)

    def save(self, step: int, **cursor: Any) -> Path:
        """Take an update, then save as ``step``."""
        self.optimizer.step([lambda: self.model.lm_head.weight.square().sum()], 1.0)
        write = partial(save_trained, self.model, optimizer=self.optimizer)
        return save_checkpoint(self.folder, step, write, tokenizer=tiny_tokenizer(), cursor=cursor)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` with its bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_restore_gives_back_everything(tmp_path: Path) -> None:
    """Catches a state that is saved but not restored: moments, number of updates, random numbers, cursor."""
    run = Run(tmp_path)
    torch.manual_seed(7)
    folder = run.save(3, problems_drawn=48)
    expected = torch.rand(3)
    model = load_model(folder)
    optimizer = Optimizer(model, run.optimizer.spec, total_updates=10)
    assert restore(folder, optimizer) == {"step": 3, "problems_drawn": 48}
    assert torch.equal(torch.rand(3), expected)
    assert optimizer.updates == 1
    pairs = zip(model.parameters(), run.model.parameters(), strict=True)
    for mine, theirs in pairs:
        assert torch.equal(mine, theirs)
        moments = run.optimizer.adam.state.get(theirs, {})
        assert all(torch.equal(optimizer.adam.state[mine][k], v) for k, v in moments.items())
    assert (tmp_path / "LATEST").read_text() == "checkpoint-3\n"
    assert load_model(tmp_path).family == run.model.family


def test_the_tokenizer_of_the_run_is_the_one_in_the_checkpoint(tmp_path: Path) -> None:
    """Catches the files that the model was loaded with winning over a tokenizer that was changed since."""
    from revelm.models.load import load_tokenizer

    save_tiny(tmp_path / "start")
    (tmp_path / "start" / "special_tokens_map.json").write_text("{}")
    model, tokenizer = load_model(tmp_path / "start"), load_tokenizer(tmp_path / "start")
    tokenizer.chat_template = f"{tokenizer.chat_template}{{# changed #}}"
    optimizer = Optimizer(model, OptimizerSpec(), total_updates=1)
    write = partial(save_trained, model, optimizer=optimizer)
    folder = save_checkpoint(tmp_path, 1, write, tokenizer=tokenizer, cursor={})
    assert load_tokenizer(folder).chat_template.endswith("{# changed #}")
    assert not (folder / "special_tokens_map.json").exists()


def test_failure_in_the_middle_keeps_the_previous(tmp_path: Path) -> None:
    """Catches a checkpoint that is written in place, or a LATEST that names one that was never finished."""
    run = Run(tmp_path)
    run.save(1)
    before = snapshot(tmp_path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        run.save(2, cursor_that_is_no_json=object())
    with pytest.raises(TypeError, match="not JSON serializable"):
        run.save(1, cursor_that_is_no_json=object())
    assert snapshot(tmp_path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["LATEST", "checkpoint-1"]
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-1"


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    """Catches a second save that fails on, or mixes with, the directory of the first."""
    run = Run(tmp_path)
    (run.save(5) / "stray").touch()
    folder = run.save(5, fresh=True)
    assert json.loads((folder / "trainer" / "state.json").read_text()) == {"step": 5, "fresh": True}
    assert not (folder / "stray").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["LATEST", "checkpoint-5"]


def test_half_written_directories_do_not_count(tmp_path: Path) -> None:
    """Catches a resume from what a killed process left behind, and a leftover that blocks the next save."""
    run = Run(tmp_path)
    run.save(8)
    (tmp_path / ".checkpoint-9.tmp" / "trainer").mkdir(parents=True)
    (tmp_path / ".checkpoint-9.tmp" / "trainer" / "state.json").write_text('{"step": 9}')
    (tmp_path / "checkpoint-10").mkdir()
    (tmp_path / "checkpoint-10" / "config.json").write_text("{}")
    (tmp_path / "checkpoint-11-best" / "trainer").mkdir(parents=True)
    (tmp_path / "checkpoint-11-best" / "trainer" / "state.json").write_text('{"step": 11}')
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-8"
    run.save(9)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    assert not (tmp_path / ".checkpoint-9.tmp").exists()


def test_a_later_checkpoint_that_latest_does_not_name(tmp_path: Path) -> None:
    """Catches work lost to a kill between the rename and the pointer, and "checkpoint-9" sorted behind "-10"."""
    run = Run(tmp_path)
    for step in (9, 10):
        run.save(step)
    (tmp_path / "LATEST").write_text("checkpoint-9\n")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "LATEST").unlink()
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert latest_checkpoint(tmp_path / "none") is None


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    """Catches pruning by name (100 before 20), of what is not ours, or of everything."""
    run = Run(tmp_path)
    for step in (20, 3, 100):
        run.save(step)
    (tmp_path / "checkpoint-best").mkdir()
    prune_checkpoints(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "LATEST",
        "checkpoint-100",
        "checkpoint-20",
        "checkpoint-best",
    ]
    prune_checkpoints(tmp_path, 5)
    assert (tmp_path / "checkpoint-20").is_dir()


def test_killed_while_it_prunes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a folder without weights that passes for a checkpoint, and its other files left for ever."""
    run = Run(tmp_path)
    for step in (1, 2):
        run.save(step)

    def killed(folder: Path, **_: bool) -> None:
        (folder / "model.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune_checkpoints(tmp_path, 1)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    shutil.rmtree(tmp_path / "checkpoint-2")
    assert latest_checkpoint(tmp_path) is None
    run.save(1)
    prune_checkpoints(tmp_path, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["LATEST", "checkpoint-1"]


@pytest.mark.parametrize("name", ["optimizer/.metadata", "optimizer/__0_0.distcp", "rng.pt", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "garbage", "other"])
def test_damaged_trainer_files_are_named(tmp_path: Path, name: str, damage: str) -> None:
    """Catches tracebacks of torch or pickle, and a run that goes on from nothing."""
    run = Run(tmp_path)
    folder = run.save(1)
    file = folder / "trainer" / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "other":
        shutil.copy(folder / "trainer" / ("state.json" if name == "rng.pt" else "rng.pt"), file)
    else:
        file.write_bytes({"empty": b"", "half": content[: len(content) // 2], "garbage": b"\x93garbage"}[damage])
    with pytest.raises(ValueError, match=r"checkpoint-1/trainer is damaged .* remove .*checkpoint-1 to resume"):
        restore(folder, run.optimizer)


def test_state_of_another_model_is_refused(tmp_path: Path) -> None:
    """Catches moments of the wrong shapes that only fail at the first update, or broadcast silently."""
    folder = Run(tmp_path).save(1)
    other = Optimizer(tiny_model(hidden_size=32), OptimizerSpec(), total_updates=1)
    with pytest.raises(ValueError, match="is damaged"):
        restore(folder, other)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer_config.json"])
def test_half_a_file_of_the_model_is_named(tmp_path: Path, name: str) -> None:
    """Catches a truncated copy that loads with random weights, or dies in a library."""
    from revelm.models.load import load_tokenizer

    folder = Run(tmp_path).save(1)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    load: Any = load_tokenizer if name.startswith("tokenizer") else load_model
    with pytest.raises(ValueError, match=str(folder)):
        load(folder)
