"""The best checkpoint: chosen by one number, strictly better only, never pruned, found again by name."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from revelm.eval.config import EvaluationSpec, SettingSpec
from revelm.models.load import checkpoint_path, load_model, resolve_checkpoint
from revelm.parallel.world import World
from revelm.trainers.best import Best, BestSpec, check_best, keep_best, metric_of, read_best, write_best
from revelm.trainers.checkpoint import latest_checkpoint, prune_checkpoints, save_checkpoint, save_trained
from revelm.trainers.config import OptimizerSpec
from revelm.trainers.optimizer import Optimizer
from tests.tiny_checkpoint import save_tiny, tiny_model, tiny_tokenizer


def settings(**values: Any) -> dict[str, Any]:
    """What an evaluation found: accuracy by setting."""
    return {name: {"accuracy": {"mean": v, "low": 0.0, "high": 1.0, "n": 4}, "length": v} for name, v in values.items()}


def checkpoint(run: Path, step: int) -> None:
    """A folder that counts as a complete checkpoint."""
    folder = run / f"checkpoint-{step}" / "trainer"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").write_text("{}")


def evaluate(run: Path, values: list[float], spec: BestSpec, first: int = 1) -> list[int]:
    """Evaluations with these accuracies, one per step; the steps that were kept as the best, each in its turn."""
    kept = []
    for step, value in enumerate(values, first):
        if keep_best(run, step, spec, settings(one=value), save=lambda told, step=step: checkpoint(run, step)):
            kept.append(step)
    return kept


def test_only_a_better_one_replaces_the_best(tmp_path: Path) -> None:
    """Catches a tie or a NaN that takes the place of the best, and checkpoints saved for nothing."""
    assert evaluate(tmp_path, [math.nan, 0.25, math.nan, 0.5, 0.5, 0.25], BestSpec()) == [2, 4]
    assert read_best(tmp_path) == Best("checkpoint-4", 4, 0.5, "accuracy", "one", "max")
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]


def test_smaller_is_better_where_told(tmp_path: Path) -> None:
    """Catches a mode that is read and not used."""
    assert evaluate(tmp_path, [3.0, 4.0, 2.0], BestSpec(metric="length", mode="min")) == [1, 3]


def test_a_resumed_run_knows_what_it_had(tmp_path: Path) -> None:
    """Catches a worse checkpoint that becomes the best after a resume, and one that is gone or damaged as a rival."""
    spec = BestSpec()
    evaluate(tmp_path, [0.25, 0.75], spec)
    assert evaluate(tmp_path, [0.5], spec, first=3) == []
    assert evaluate(tmp_path, [0.5], BestSpec(metric="length"), first=4) == [4]
    (tmp_path / "BEST").write_text("checkpoint-4\n{")
    assert evaluate(tmp_path, [0.5], spec, first=5) == [5]
    (tmp_path / "checkpoint-5" / "trainer" / "state.json").unlink()
    assert evaluate(tmp_path, [0.125], spec, first=6) == [6]


def test_only_the_main_process_points(tmp_path: Path) -> None:
    """Catches a process that does not save along, in which the others would wait for it, or that writes as well."""
    saved = []

    class Second(World):
        is_main = False

    assert keep_best(tmp_path, 1, BestSpec(), settings(one=0.5), save=saved.append, world=Second())
    assert [told["value"] for told in saved] == [0.5]
    assert not (tmp_path / "BEST").exists()


def test_what_best_would_say_is_saved_with_the_checkpoint(tmp_path: Path) -> None:
    """Catches a best that is forgotten when the run is killed before BEST is written."""
    told: dict[str, Any] = {}

    def save(found: Any) -> None:
        told.update(found)
        checkpoint(tmp_path, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_best(tmp_path, 3, BestSpec(), settings(one=0.5), save=save)
    assert read_best(tmp_path) is None
    write_best(tmp_path, told)
    assert read_best(tmp_path) == Best("checkpoint-3", 3, 0.5, "accuracy", "one", "max")
    write_best(tmp_path, {**told, "step": 9})
    assert read_best(tmp_path).step == 3


def test_the_best_is_never_pruned(tmp_path: Path) -> None:
    """Catches a run whose best weights are gone when it ends, and a best that is kept instead of the newest."""
    evaluate(tmp_path, [0.5], BestSpec())
    for step in range(2, 6):
        checkpoint(tmp_path, step)
        prune_checkpoints(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-4", "checkpoint-5"]
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert latest.name == "checkpoint-5"
    evaluate(tmp_path, [0.75], BestSpec(), first=6)
    prune_checkpoints(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-5", "checkpoint-6"]


def test_best_is_a_place_to_load_from(tmp_path: Path) -> None:
    """Catches ``run`` that means the best or ``run/best`` that means the newest, and a folder of that name ignored."""
    for step in (1, 2):
        model = tiny_model(seed=step)
        optimizer = Optimizer(model, OptimizerSpec(), total_updates=1)
        write = partial(save_trained, model, optimizer=optimizer)
        save_checkpoint(tmp_path, step, write, tokenizer=tiny_tokenizer(), cursor={})
        keep_best(tmp_path, step, BestSpec(), settings(one=1 / step), save=lambda told: None)
    assert checkpoint_path(tmp_path).name == "checkpoint-2"
    assert resolve_checkpoint(tmp_path / "best").name == "checkpoint-1"
    assert load_model(tmp_path / "best").source == str((tmp_path / "checkpoint-1").resolve())
    inner = save_tiny(tmp_path / "best" / "checkpoint-7")
    (tmp_path / "best" / "LATEST").write_text("checkpoint-7\n")
    assert checkpoint_path(tmp_path / "best") == inner


def test_best_of_nothing_is_an_error(tmp_path: Path) -> None:
    """Catches a run without evaluations whose best would be looked for on the hub, or silently be the newest."""
    (tmp_path / "LATEST").write_text("checkpoint-1\n")
    with pytest.raises(ValueError, match="not a directory"):
        resolve_checkpoint(tmp_path / "best")
    (tmp_path / "BEST").write_text("checkpoint-9\n{}\n")
    with pytest.raises(ValueError, match=r"BEST names 'checkpoint-9', which does not exist"):
        resolve_checkpoint(tmp_path / "best")


def test_what_no_evaluation_will_have_is_refused() -> None:
    """Catches a best that is never found because its metric or its setting was misspelt."""
    spec = EvaluationSpec(settings={"quick": SettingSpec(), "slow": SettingSpec()})
    assert check_best(BestSpec(), spec).setting == "quick"
    assert check_best(BestSpec(metric="groups.unseen.accuracy", setting="slow"), spec).setting == "slow"
    with pytest.raises(ValueError, match=r"best\.setting: 'slwo' is not evaluated; did you mean 'slow'"):
        check_best(BestSpec(setting="slwo"), spec)
    with pytest.raises(ValueError, match=r"best\.metric: 'acuracy' is not known; did you mean 'accuracy'"):
        check_best(BestSpec(metric="acuracy"), spec)
    with pytest.raises(ValueError, match=r"best\.metric: 'groups'"):
        check_best(BestSpec(metric="groups"), spec)


def test_metric_of_reads_means_numbers_and_parts() -> None:
    """Catches the interval taken for the number, and a metric that is not there taken for 0."""
    found = settings(a=0.25, b=0.5) | {"c": {"groups": {"unseen": {"accuracy": {"mean": 0.125}}}, "accuracy": None}}
    assert metric_of(found, BestSpec()) == 0.25
    assert metric_of(found, BestSpec(setting="b", metric="length")) == 0.5
    assert metric_of(found, BestSpec(setting="c", metric="groups.unseen.accuracy")) == 0.125
    assert metric_of(found, BestSpec(setting="c")) is None
    assert metric_of(found, BestSpec(setting="d")) is None
    assert metric_of(json.loads("{}"), BestSpec()) is None
