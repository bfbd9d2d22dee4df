"""The paper in miniature: a protocol that can be run, and runs that are what they are taken for."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.paper.arms import EXPERIMENTS, GROUPS, NOT_RL, RL_ARMS, SAME_RUN, SFT_ARMS, experiments_with
from benchmarks.paper.experiments import Job, base_of, run_job
from benchmarks.paper.measuring import EVALUATION, Asking, arm_settings, columns_of, evaluated
from benchmarks.paper.place import PROTOCOL, Place, digest, hold_to_protocol, protocol_state
from benchmarks.paper.protocol import (
    BASES,
    DECIDING,
    FULL,
    PRIMARY,
    SEEDS,
    SMOKE,
    WHOLE,
    Scale,
    settings,
)
from benchmarks.paper.restore import known_compute, restore
from benchmarks.paper.training import (
    budget_of,
    is_finished,
    recipe,
    rl_configs,
    task_of,
    tune_config,
)
from revelm.core.atomic import write_json_atomic
from revelm.core.config import dump_yaml
from revelm.core.registry import build
from revelm.eval.config import SettingSpec
from revelm.models.kind import kind_of
from revelm.models.load import new_model
from revelm.objectives.objective import FamilyObjective, RLObjective
from revelm.objectives.policy import PolicyObjective
from revelm.trainers import quickstart

SCALES = (WHOLE, SMOKE)
IDS = {"vocab_size": 300, "mask_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}


def test_experiments_name_arms_that_exist() -> None:
    """Catches an arm, a base, a reference or a group that is misspelt, and (2) with fewer than its five seeds."""
    for name, experiment in EXPERIMENTS.items():
        bases = [base_of(name, arm) for arm in experiment.arms]
        assert set(bases) <= set(BASES), name
        assert set(experiment.seeds) <= set(SEEDS), name
        if experiment.reference is not None:
            assert {f"{base}-{experiment.reference}" for base in bases} <= set(RL_ARMS), name
    assert {name for names in GROUPS.values() for name in names} == set(EXPERIMENTS)
    assert all(EXPERIMENTS[name].seeds == SEEDS for name in GROUPS["rl"])
    assert len(set(SEEDS)) == 5
    assert set(SAME_RUN) | set(SAME_RUN.values()) <= set(RL_ARMS)
    for arm, other in SAME_RUN.items():
        assert RL_ARMS[arm].stages == RL_ARMS[other].stages, arm
    for name, pair in DECIDING.items():
        assert set(pair) <= set(EXPERIMENTS[name].arms), name
        assert EXPERIMENTS[name].seeds == SEEDS, name
    used = {arm for name, e in EXPERIMENTS.items() if name not in NOT_RL for arm in e.arms}
    assert used == set(RL_ARMS)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", RL_ARMS)
def test_every_rl_arm_is_a_recipe(name: str, scale: Scale) -> None:
    """Catches fields that no recipe has, objectives that cannot be built or not for the model, stages that do not
    follow each other, and arms that begin elsewhere than the shared start."""
    arm, start = RL_ARMS[name], Path("start")
    family = kind_of(dict(BASES[arm.base].model)).attention
    configs = rl_configs(name, 10, Place(Path("out"), scale), start)
    assert configs[0].model.path == str(start)
    assert sum(config.train.steps for config in configs) == scale.rl_steps
    for config, (_, changes) in zip(configs, arm.stages, strict=True):
        objective = build("objectives", config.objective, field="objective")
        assert isinstance(objective, RLObjective)
        assert config.task == task_of(arm.base, 10)
        assert (config.rollout.block_size == 8) == (family == "full")
        assert config.train.seed == 10
        assert {"objective", *changes} <= {"objective", "value", "rollout", "model"}
        config.rollout.sampling()
    for one, other in pairwise(configs):
        assert other.model.path == f"{one.out}/checkpoint-{one.train.steps}"


@pytest.mark.parametrize("scale", SCALES)
def test_every_sft_arm_and_start_is_a_recipe(scale: Scale) -> None:
    """Catches objectives that the model of their base cannot be trained with."""
    place = Place(Path("out"), scale)
    for base, known in BASES.items():
        config = recipe(base, 11, scale)
        wanted = quickstart.sft_config(config, Path("model"), Path("sft"))
        assert wanted.train.steps == round(known.start_factor * scale.start_steps)
        model = new_model({**known.model, **IDS}, seed=0)
        kinds = [wanted.objective, *(arm.objective for arm in SFT_ARMS.values() if arm.base == base)]
        for spec in kinds:
            objective = build("objectives", spec, field="objective")
            assert isinstance(objective, FamilyObjective)
            objective.check_family(model.family)
        for setting in settings(base).values():
            SettingSpec.model_validate(setting).sampling()
    for name in SFT_ARMS:
        config = tune_config(name, 10, place, start=Path("start"), steps=8)
        assert (config.eval_every, config.data.path) == (2, f"out/starts/{SFT_ARMS[name].base}-10/traces.parquet")
    assert next(iter(settings("b4"))) == PRIMARY


def test_models_of_both_attentions_have_the_same_size() -> None:
    """Catches comparisons of attention that are of size: also that q/k norms are in all of them."""
    models = {base: new_model({**known.model, **IDS}, seed=0) for base, known in BASES.items()}
    sizes = {sum(p.numel() for p in model.parameters()) for model in models.values()}
    assert len(sizes) == 1
    assert all(any("q_norm" in name for name, _ in model.named_parameters()) for model in models.values())
    assert [m.family.attention for m in models.values()] == ["block", "block", "full", "block", "block"]
    assert not any("experts" in name for name, _ in models["full"].named_parameters())
    assert FULL["moe_layer_freq"] == [0] * FULL["num_hidden_layers"]


def test_methods_differ_in_their_rows_alone() -> None:
    """Catches baselines with other weights than the method they are compared with."""
    for arm in SFT_ARMS.values():
        assert arm.objective["kind"] == "trace_sft" or arm.objective["weighting"] == "none", arm
    for name in ("rl-b4", "rl-b8", "rl-full", "echoes"):
        for arm in EXPERIMENTS[name].arms:
            objective = build("objectives", RL_ARMS[arm].stages[0][1]["objective"], field="objective")
            assert isinstance(objective, PolicyObjective)
            assert objective.normalisation == "trace_step", arm


def test_runs_that_were_told_otherwise_are_refused(tmp_path: Path) -> None:
    """Catches a finished run that is believed to be another one, and budgets that may change more than the steps."""
    config = rl_configs("b4-random", 10, Place(tmp_path), tmp_path / "start")[0]
    assert not is_finished(config)
    folder = Path(config.out)
    folder.mkdir(parents=True)
    dump_yaml(config, folder / "config.yaml")
    assert not is_finished(config), "it has no steps yet"
    longer = config.model_copy(update={"train": config.train.model_copy(update={"steps": 55})})
    assert not is_finished(longer, is_extended=True)
    with pytest.raises(ValueError, match=r"another run is there \(train: "):
        is_finished(longer)
    other = config.model_copy(update={"updates_per_step": 7})
    with pytest.raises(ValueError, match="updates_per_step: 2 there, 7 now"):
        is_finished(other, is_extended=True)


def test_evaluations_that_were_made_otherwise_are_refused(tmp_path: Path) -> None:
    """Catches numbers of another model, seed, size or setting under the same name."""
    given = {PRIMARY: settings("b4")[PRIMARY], "static": settings("b4")["static"]}
    asking = Asking(tmp_path / "model", "b4", 10, SMOKE)
    told = asking.told(given)
    known = {name: {"told": told[name], "found": {"accuracy": 0.5}} for name in given}
    (tmp_path / EVALUATION).write_text(json.dumps(known), encoding="utf-8")
    assert evaluated(asking, tmp_path, given) == {name: {"accuracy": 0.5} for name in given}
    others = [replace(asking, model=tmp_path), replace(asking, base="b8e1"), replace(asking, seed=11),
              replace(asking, scale=WHOLE)]  # fmt: skip
    for other in others:
        with pytest.raises(ValueError, match="dynamic, static: evaluated otherwise"):
            evaluated(other, tmp_path, given)
    with pytest.raises(ValueError, match=": static: evaluated otherwise"):
        evaluated(asking, tmp_path, {**given, "static": {**given["static"], "max_new_tokens": 7}})


def test_everything_is_made_under_one_protocol(tmp_path: Path) -> None:
    """Catches results of another scale or code that are taken for these, and folders of unknown origin."""
    place, unknown = Place(tmp_path / "out"), Place(tmp_path / "unknown")
    state = hold_to_protocol(place)
    assert hold_to_protocol(place) == state == protocol_state(WHOLE)
    with pytest.raises(ValueError, match=r"scale: another scale there"):
        hold_to_protocol(Place(place.out, SMOKE))
    for part in ("commit", "is_modified", "source", "benchmark", "libraries"):
        (place.out / PROTOCOL).write_text(json.dumps({**state, part: "x"}), encoding="utf-8")
        with pytest.raises(ValueError, match=rf'protocol \({part}: "x" there'):
            hold_to_protocol(place)
    (unknown.out / "runs").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"holds runs but no protocol\.json"):
        hold_to_protocol(unknown)
    job = Job("tpf", "b4", 10, Place(tmp_path / "jobs"))
    assert not job.is_done
    job.file.parent.mkdir(parents=True)
    write_json_atomic(job.place.out / PROTOCOL, state)
    write_json_atomic(job.file, {"protocol": state})
    assert run_job(job) == {"protocol": state}
    write_json_atomic(job.file, {"protocol": {**state, "source": "x"}})
    with pytest.raises(ValueError, match='source: "x" there'):
        run_job(job)


def test_a_series_goes_on_elsewhere(tmp_path: Path) -> None:
    """Catches results of another protocol that are taken in, results that are written over, arms that are trained again
    for a budget that is known, and experiments in which another thing goes by an arm's name."""
    place, file, state = Place(tmp_path / "out"), tmp_path / "results.json", protocol_state(WHOLE)
    one, other = ({"protocol": state, "cost": {"compute": spent}} for spent in (7.0, 8.0))
    known = {"rl-b4": {"b4-trace": {"10": one}}, "sft": {"b4-trace": {"10": other}}}
    write_json_atomic(file, {"results": known})
    assert restore(place, file) == 2
    assert restore(place, file) == 0
    assert Job("rl-b4", "b4-trace", 10, place).known() == one
    assert hold_to_protocol(place) == state
    assert experiments_with("b4-trace") == ("rl-b4", "rollouts")
    assert known_compute("b4-trace", 10, place, ("rollouts", "rl-b4")) == 7.0
    assert known_compute("b4-trace", 11, place, ("rollouts", "rl-b4")) is None
    assert (budget_of("b4-random", 10, place), budget_of("b4-trace", 10, place)) == (7.0, None)
    write_json_atomic(file, {"results": {"rl-b4": {"b4-trace": {"10": other, "11": one}}}})
    with pytest.raises(ValueError, match=r"b4-trace-10\.json is there and differs"):
        restore(place, file)
    assert not place.result("rl-b4", "b4-trace", 11).exists()
    changed = {**one, "protocol": {**state, "source": "x"}}
    for seeds in ({"12": changed}, {"10": one, "12": changed}):
        write_json_atomic(file, {"results": {"rl-b4": {"b4-trace": seeds}}})
        with pytest.raises(ValueError, match=r'\(source: "'):
            restore(place, file)
    assert not place.result("rl-b4", "b4-trace", 12).exists()
    write_json_atomic(file, {"results": {"rl-b4": {"b4-trace": {"12": changed}}}})
    assert restore(Place(tmp_path / "earlier"), file) == 1
    with pytest.raises(ValueError, match='source: "x" there'):
        hold_to_protocol(Place(tmp_path / "earlier"))
    with pytest.raises(ValueError, match="of another scale"):
        restore(Place(tmp_path / "smoke", SMOKE), file)
    wrongs: list[Any] = [
        [],
        {"results": []},
        {"results": {"rl-b4": [1]}},
        {"results": {"../x": {"b4-trace": {"10": one}}}},
    ]
    wrongs += [{"results": {"rl-b4": {"b4-trace": seeds}}} for seeds in ({"x": one}, {"10": {}}, {"10": 1})]
    for wrong in wrongs:
        write_json_atomic(file, wrong)
        with pytest.raises(ValueError, match="holds no results"):
            restore(Place(tmp_path / "new"), file)
    with pytest.raises(ValueError, match="holds no results"):
        restore(Place(tmp_path / "new"), tmp_path / "none.json")
    assert not (tmp_path / "new").exists()


def test_hash_of_code(tmp_path: Path) -> None:
    """Catches a hash that misses a file's name, its text, or where one file ends."""
    (tmp_path / "a.py").write_text("one", encoding="utf-8")
    (tmp_path / "b.py").write_text("two", encoding="utf-8")
    found = [digest(tmp_path, tmp_path.glob("*.py")), digest(tmp_path, sorted(tmp_path.glob("*.py"), reverse=True))]
    assert found[0] == found[1]
    (tmp_path / "b.py").rename(tmp_path / "c.py")
    found.append(digest(tmp_path, tmp_path.glob("*.py")))
    (tmp_path / "c.py").write_text("twO", encoding="utf-8")
    found.append(digest(tmp_path, tmp_path.glob("*.py")))
    assert len(set(found)) == 3


def test_arms_are_evaluated_alike() -> None:
    """Catches limits that differ from those of training, and sizes of blocks that are not asked for."""
    assert arm_settings(RL_ARMS["b4-trace"]) == settings("b4")
    assert set(arm_settings(RL_ARMS["b4-enlarged"])) == {f"{name}@{size}" for name in settings("b4") for size in (4, 8)}
    assert arm_settings(RL_ARMS["b4-sizes"])[f"{PRIMARY}@8"] == {**settings("b4")[PRIMARY], "block_size": 8}
    for base, known in BASES.items():
        shared = recipe(base, 10, WHOLE).rl["rollout"]
        assert all(one.items() >= known.decoding.items() for one in settings(base).values())
        assert shared.items() >= known.decoding.items()


def test_columns_of_steps() -> None:
    """Catches numbers that move to other steps when one lacks them."""
    rows = [{"reward": 0.5, "length": 28.0, "tokens_per_forward": 2.0, "positions": 3.0},
            {"reward": 0.7, "length": 20.0, "tokens_per_forward": 4.0}]  # fmt: skip
    found = columns_of(rows)
    assert found["positions"] == [3.0, None]
    assert found["forwards"] == [14.0, 5.0]
