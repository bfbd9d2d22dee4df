"""Stages one after another: what each is told, where it begins, what is checked before, and going on after a stop."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from revelm.cli.main import main
from revelm.core.config import load_config
from revelm.models.load import load_model, read_family
from revelm.trainers import curriculum
from revelm.trainers.curriculum import CurriculumConfig, stages_of
from tests.tiny_checkpoint import save_tiny

RECIPE: dict[str, Any] = {
    "task": {"kind": "chain", "num_operations": [2, 2], "num_train": 20, "num_test": 4},
    "shared": {"train": {"steps": 2, "max_positions": 4096}, "optimizer": {"learning_rate": 1e-3}},
    "sft": {"batch_size": 4, "data": {"num": 30}},
    "rl": {
        "task": {"kind": "tests.toy_tasks:Parity"},
        "rollout": {"problems_per_step": 3, "group_size": 4, "max_new_tokens": 8, "num_slots": 12},
    },
    "stages": {
        "basics": {"kind": "sft"},
        "answers": {"kind": "rl", "train": {"steps": 1}},
        "longer": {"kind": "rl", "train": {"steps": 1}, "rollout": {"max_new_tokens": 16}},
    },
}
JUDGE = "stages.longer.reward.judge={base_url: 'http://host', model: m, api_key_env: NO_KEY_0}"


def written(folder: Path, **changes: Any) -> Path:
    """The recipe as a file."""
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(RECIPE | changes, sort_keys=False), encoding="utf-8")
    return file


def told(folder: Path, *words: str, **changes: Any) -> CurriculumConfig:
    """The recipe on a tiny checkpoint, changed by overrides and fields."""
    model = folder / "model"
    if not model.is_dir():
        save_tiny(model, max_position_embeddings=160)
    base = [f"model.path={model}", f"out={folder / 'run'}"]
    return load_config(CurriculumConfig, written(folder, **changes), [*base, *words])


def weights(folder: Path) -> list[torch.Tensor]:
    """All weights of a checkpoint."""
    return list(load_model(folder).state_dict().values())


def test_layers_of_a_stage_lie_over_each_other(tmp_path: Path) -> None:
    """Catches a shared field that wins over a stage's, fields of one kind in the other, and overrides that get lost."""
    found = {s.name: s.config for s in stages_of(told(tmp_path, "stages.longer.rollout.max_new_tokens=24"))}
    assert list(found) == ["basics", "answers", "longer"]
    assert [c.train.steps for c in found.values()] == [2, 1, 1]
    assert {c.optimizer.learning_rate for c in found.values()} == {1e-3}
    assert {c.train.max_positions for c in found.values()} == {4096}
    assert [c.task["kind"] for c in found.values()] == ["chain", *["tests.toy_tasks:Parity"] * 2]
    assert [found[name].rollout.max_new_tokens for name in ("answers", "longer")] == [8, 24]
    assert found["longer"].rollout.group_size == 4
    paths = [Path(c.model.path) for c in found.values()]
    assert paths == [tmp_path / "model", tmp_path / "run" / "basics", tmp_path / "run" / "answers"]
    assert all(c.resume for c in found.values())


def test_stages_run_in_order_each_from_the_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a stage that begins at the first model again, results of stages mixed up, and stages run twice."""
    config = told(tmp_path)
    words = ["curriculum", str(written(tmp_path)), f"model.path={config.model.path}", "--out", config.out]
    assert main(words) == 0
    run = tmp_path / "run"
    assert f"run directory: {run}" in capsys.readouterr().out
    for before, after in (("basics", "answers"), ("answers", "longer")):
        told_to_stage = yaml.safe_load((run / after / "config.yaml").read_text(encoding="utf-8"))
        assert told_to_stage["model"]["path"] == str(run / before)
    assert any(not torch.equal(a, b) for a, b in zip(weights(run / "basics"), weights(tmp_path / "model"), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights(run), weights(run / "longer"), strict=True))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["phase"], row["step"]) for row in rows if row["phase"] != "eval"] == [
        ("basics", 1),
        ("basics", 2),
        ("answers", 1),
        ("longer", 1),
    ]
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert {name: (s["kind"], s["steps"]) for name, s in summary["stages"].items()} == {
        "basics": ("sft", 2),
        "answers": ("rl", 1),
        "longer": ("rl", 1),
    }
    assert set(summary["seconds"]) == {"basics", "answers", "longer"}
    assert (run / "report.html").is_file()
    assert main(words) == 2
    assert "already holds a run; add resume=true" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    again = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert again["seconds"] == summary["seconds"]


def test_a_stopped_curriculum_goes_on_where_it_was(tmp_path: Path) -> None:
    """Catches a resumed run that differs, that forgets a stage begun, or that cannot take further stages."""
    whole = curriculum.run(told(tmp_path, f"out={tmp_path / 'whole'}"))
    config = told(tmp_path, "stages.answers.rollout.problems_per_step=2")
    first = told(tmp_path, "stages={basics: {kind: sft, train: {steps: 1}}}")
    curriculum.run(first)
    assert not (tmp_path / "run" / "answers").exists()
    with pytest.raises(
        ValueError, match=r"stages\.basics: resume: optimizer\.learning_rate is 0\.002, but .*basics/config\.yaml says"
    ):
        curriculum.run(told(tmp_path, "resume=true", "shared.optimizer.learning_rate=2e-3"))
    with pytest.raises(ValueError, match=r"basics have begun in .*; they come first, in that order"):
        curriculum.run(told(tmp_path, "resume=true", "stages={answers: {kind: rl}}"))
    run = curriculum.run(told(tmp_path, "resume=true"))
    assert all(torch.equal(a, b) for a, b in zip(weights(run), weights(whole), strict=True))
    with pytest.raises(ValueError, match=r"stages\.answers: resume: rollout\.problems_per_step is 2"):
        curriculum.run(config.model_copy(update={"resume": True}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stages={}"], "stages: there is none"),
        (["stages.basics.kind=dpo"], r"stages\.basics\.kind: 'dpo' is not known"),
        (["stages.longer.rollouts.group_size=3"], r"stages\.longer: rollouts: unknown field; did you mean 'rollout'"),
        (["stages.longer.model.path=x"], r"stages\.longer\.model\.path: stages begin where"),
        (["stages.longer.out=x"], r"stages\.longer\.out: belongs to the whole"),
        (["stages.basics.begins_at=last"], r"stages\.basics\.begins_at: no stage comes before"),
        (["stages.longer.begins_at=first"], r"stages\.longer\.begins_at: 'first' is not known"),
        (["stages.longer.begins_at=best"], r"stages\.longer\.begins_at: the stage before keeps no best"),
        (['stages={"a/b": {kind: sft}}'], r"stages\.a/b: 'a/b' is to be the name of a folder"),
        (["stages.longer.objective.clip=3"], r"stages\.longer: objective\.clip: unknown field"),
        (["stages.longer.objective=block_sft"], r"stages\.longer: objective\.kind: 'block_sft' learns from texts"),
        (["stages.basics.objective=trace_rl"], r"stages\.basics: objective\.kind: 'trace_rl' learns from scored"),
        (["stages.longer.task=chein"], r"stages\.longer: task\.kind: 'chein' is not known"),
        (["stages.longer.rollout.max_new_tokens=1000"], r"stages\.longer: rollout: .* max_new_tokens=1000"),
        (["stages.longer.model.block_size=3"], r"stages\.longer: model\.block_size: 3"),
        (["stages.longer.rollout.cache=dual"], r"stages\.longer: rollout\.cache"),
        (
            ["stages.longer.trackers=[tensorboard, tensorboard]"],
            r"stages\.longer: trackers: tensorboard is given twice",
        ),
        (["stages.longer.eval_every=1", "stages.longer.eval.max_new_tokens=999"], r"stages\.longer: eval"),
        (
            ["stages.more={kind: sft, data: {path: nowhere.jsonl}}"],
            r"stages\.more: data\.path='nowhere\.jsonl': cannot be read",
        ),
        (
            ["stages.more={kind: sft, data: {path: recipe.yaml}}"],
            r"stages\.more: .*recipe\.yaml': expected a file name that ends in",
        ),
        (
            ["stages.more={kind: sft, task: {kind: 'tests.toy_tasks:Parity'}}"],
            r"stages\.more: .* has no demonstrations",
        ),
        (["stages.more={kind: sft, objective: trace_sft}"], r"stages\.more: sample 0 has no step"),
        (
            [JUDGE, "stages.longer.value={}"],
            r"stages\.longer: .*'NO_KEY_0' is not set",
        ),
        (["stages.longer.reward.reward_model.path=/nowhere"], r"stages\.longer: reward_model\.path='/nowhere'"),
        (["stages.longer.value.path=nowhere"], r"stages\.longer: value\.path: model path 'nowhere'"),
    ],
)
def test_mistakes_in_later_stages_cost_nothing(tmp_path: Path, words: list[str], message: str) -> None:
    """Catches an error that comes after hours of the stages before."""
    words = [word.replace("recipe.yaml", str(tmp_path / "recipe.yaml")) for word in words]
    with pytest.raises(ValueError, match=message):
        curriculum.run(told(tmp_path, *words))
    assert not (tmp_path / "run").exists()


def test_what_an_earlier_stage_writes_is_not_asked_for(tmp_path: Path) -> None:
    """Catches a curriculum that cannot learn from its own stages, and one that is stopped for what it needs no more."""
    (tmp_path / "x.jsonl").write_text('{"prompt": "a", "completion": "b"}')
    stages = {name: {**values, "train": {"steps": 1}} for name, values in RECIPE["stages"].items()}
    stages["basics"] |= {"data": {"path": str(tmp_path / "x.jsonl")}}
    stages["longer"] |= {"value": {"path": str(tmp_path / "run" / "answers")}}
    config = told(tmp_path, stages=stages)
    curriculum.check_stages(config, stages_of(config))
    curriculum.run(config.model_copy(update={"stages": {"basics": stages["basics"]}}))
    (tmp_path / "x.jsonl").unlink()
    curriculum.check_stages(config, stages_of(config))


def test_only_the_last_stage_begun_may_be_made_longer(tmp_path: Path) -> None:
    """Catches a stage that is trained on after the next one began with what it was."""
    stages = {name: RECIPE["stages"][name] for name in ("basics", "answers")}
    curriculum.run(told(tmp_path, stages=stages))
    longer = ["resume=true", "stages.answers.train.steps=2"]
    with pytest.raises(ValueError, match=r"resume: stages\.basics\.train\.steps is 3, but .* says 2"):
        curriculum.run(told(tmp_path, *longer, "stages.basics.train.steps=3", stages=stages))
    curriculum.run(told(tmp_path, *longer, stages=stages))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert [one["steps"] for one in summary["stages"].values()] == [2, 2]


def test_a_stage_begun_may_change_what_any_resumed_run_may_change(tmp_path: Path) -> None:
    """Catches a curriculum that cannot go on with less memory or another process layout, though its stages could."""
    stages = {name: RECIPE["stages"][name] for name in ("basics", "answers")}
    curriculum.run(told(tmp_path, stages={"basics": {"kind": "sft", "train": {"steps": 1}}}))
    train = "{steps: 2, max_positions: 500, packing: packed, strategy: fsdp, recompute_layers: true, save_every: 1}"
    less = ["resume=true", f"shared.train={train}", "shared.optimizer.max_skipped=2", "rl.rollout.num_slots=5"]
    curriculum.run(told(tmp_path, *less, stages=stages))
    run = curriculum.run(told(tmp_path, "resume=true", "rl.rollout.save_every=1"))
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert {name: stage["steps"] for name, stage in summary["stages"].items()} == {
        "basics": 2,
        "answers": 1,
        "longer": 1,
    }
    with pytest.raises(ValueError, match=r"stages\.basics: resume: train\.seed is 3"):
        curriculum.run(told(tmp_path, "resume=true", "shared.train.seed=3"))
    with pytest.raises(ValueError, match=r"resume: stages\.answers\.kind is sft, but .* says rl; keep it"):
        curriculum.run(told(tmp_path, "resume=true", stages={**RECIPE["stages"], "answers": {"kind": "sft"}}))


def test_folders_moved_together_are_the_same_curriculum(tmp_path: Path) -> None:
    """Catches stages that are refused because the model and the run now lie elsewhere."""
    stages = {"basics": RECIPE["stages"]["basics"]}
    (tmp_path / "here").mkdir()
    curriculum.run(told(tmp_path / "here", stages=stages))
    (tmp_path / "here").rename(tmp_path / "there")
    run = curriculum.run(told(tmp_path / "there", "resume=true", "stages.answers={kind: rl, train: {steps: 1}}"))
    assert [*json.loads((run / "summary.json").read_text(encoding="utf-8"))["stages"]][:2] == ["basics", "answers"]


def test_a_best_checkpoint_that_was_chosen_stays_chosen(tmp_path: Path) -> None:
    """Catches a stage that begins at what another metric than the recipe's has chosen."""
    evals = {"eval_every": 1, "eval": {"num_problems": 2, "max_new_tokens": 8}}
    stages: dict[str, Any] = {"basics": {"kind": "sft", "train": {"steps": 1}, **evals, "best": {"metric": "length"}}}
    curriculum.run(told(tmp_path, stages=stages))
    stages["more"] = {"kind": "sft", "train": {"steps": 1}, "begins_at": "best"}
    with pytest.raises(
        ValueError, match=r"stages\.basics\.best asks for accuracy static max, but .* length static max"
    ):
        curriculum.run(told(tmp_path, "resume=true", "stages.basics.best.metric=accuracy", stages=stages))
    curriculum.run(told(tmp_path, "resume=true", stages=stages))
    stages["more"]["begins_at"] = "last"
    with pytest.raises(ValueError, match=r"resume: stages\.more\.begins_at is last, but .* says best"):
        curriculum.run(told(tmp_path, "resume=true", stages=stages))


def test_a_stage_may_begin_at_the_best_checkpoint(tmp_path: Path) -> None:
    """Catches a stage that begins at the last one all the same."""
    stages = {**RECIPE["stages"], "more": {"kind": "rl", "begins_at": "best"}}
    stages["longer"] = {**stages["longer"], "eval_every": 1, "best": {}}
    found = stages_of(told(tmp_path, stages=stages))
    assert found[-1].config.model.path == str(tmp_path / "run" / "longer" / "best")


def test_the_first_model_is_needed_to_check_anything(tmp_path: Path) -> None:
    """Catches stages checked against no model at all."""
    with pytest.raises(ValueError, match="nowhere"):
        curriculum.run(told(tmp_path, f"model.path={tmp_path / 'nowhere'}"))
    assert read_family(tmp_path / "model").block_size == 4
