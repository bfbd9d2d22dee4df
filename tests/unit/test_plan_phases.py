"""The memory plan of runs with several models, phases, stages or processes, against the real ones."""

import json
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from revelm.cli.main import main
from revelm.core.config import load_config
from revelm.core.registry import build
from revelm.core.types import Family
from revelm.models.footprint import Footprint, blueprint, count
from revelm.models.load import new_model
from revelm.models.value import ValueModel
from revelm.objectives.batch import Text
from revelm.objectives.importance import behaviour_columns
from revelm.parallel.placement import Strategy, place
from revelm.parallel.shard import is_shard, release
from revelm.parallel.world import World
from revelm.trainers.config import OptimizerSpec, RLConfig, SFTConfig
from revelm.trainers.critic import open_critic, open_value_model
from revelm.trainers.learner import AVERAGE, GATHERED, GRADIENTS, MASTERS, MOMENTS, WEIGHTS, Learner, shards_of
from revelm.trainers.moments import CRITIC, LOGITS, REFERENCE
from revelm.trainers.optimizer import Optimizer
from revelm.trainers.plan import Assumed, CurriculumConfig, Plan, make_plan, plan_stages
from revelm.trainers.plan_rows import hidden_copies
from revelm.trainers.value_spec import ValueSpec
from tests.families import official, tiny
from tests.processes import Processes
from tests.tiny_checkpoint import tiny_model

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = ("rollout.num_slots=8", "rollout.problems_per_step=4", "rollout.group_size=4", "rollout.max_new_tokens=16")
ROLLOUT = ["rollout forward", "rollout sampling"]
POLICY = ["policy head", "policy layers", "policy update"]


LARGE = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 8, "vocab_size": 30_000}


def rl_config(folder: Path, *overrides: str, **changes: Any) -> RLConfig:
    file = folder / "config.json"
    file.write_text(json.dumps(official("sdar", **changes)), encoding="utf-8")
    return load_config(RLConfig, RECIPES / "rl-chain.yaml", [f"model.path={file}", *SMALL, *overrides])


def rl_plan(folder: Path, *overrides: str, **assumed: int) -> Plan:
    config = rl_config(folder, *overrides)
    return make_plan(config, Assumed(**{"prompt_length": 20, **assumed}), memory=1 << 50)


def parts_of(plan: Plan, name: str) -> dict[str, int]:
    return next(dict(moment.parts) for moment in plan.moments if moment.name == name)


def state_bytes(optimizer: Optimizer) -> int:
    """Masters that are no parameters, and moments."""
    masters = sum(m.nbytes for m, p in zip(optimizer.masters, optimizer.parameters, strict=True) if m is not p)
    return masters + sum(t.nbytes for state in optimizer.adam.state.values() for t in state.values() if t.ndim)


def tokens_of(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(3, 15)[None], torch.arange(12)[None]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_own_critic_is_planned_as_it_is(tmp_path: Path, dtype: str) -> None:
    """Catches a critic that is planned with a language head, without masters, or not at all beside the policy."""
    spec, model = ValueSpec(backbone="own"), tiny("sdar").to(getattr(torch, dtype)).train()
    critic = open_critic(spec, open_value_model(spec, model), optimizer=OptimizerSpec(), total_updates=9)
    assert critic.optimizer is not None
    critic.optimizer.step([lambda: critic.model.value_head(critic.model.body(*tokens_of(model), None)).sum()], 1.0)
    real = sum(t.nbytes for t in (*critic.model.parameters(), *critic.model.buffers())) + state_bytes(critic.optimizer)
    plan = rl_plan(tmp_path, f"model.dtype={dtype}", "value.backbone=own", "objective.shrinkage=2")
    critical = ["critic layers", "critic update"]
    assert [m.name for m in plan.moments] == ["loading", *ROLLOUT, "behaviour", "values", *critical, *POLICY]
    assert {m.parts[CRITIC] for m in plan.moments[1:]} == {real}
    gradients = parts_of(plan, "critic layers")[GRADIENTS]
    assert gradients == sum(p.numel() for p in critic.model.parameters()) * 4
    assert gradients < parts_of(plan, "policy layers")[GRADIENTS]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_shared_critic_is_nearly_nothing(tmp_path: Path, dtype: str) -> None:
    """Catches a second backbone in the plan, and a head without moments."""
    model = tiny("sdar").to(getattr(torch, dtype)).train()
    both = ValueModel(model)
    optimizer = Optimizer(both, OptimizerSpec(), total_updates=9)

    def loss() -> torch.Tensor:
        features = both.body(*tokens_of(model), None)
        return both.value_head(features).sum() + model.head(features).float().sum()

    optimizer.step([loss], 1.0)
    real = sum(t.nbytes for t in (*both.parameters(), *both.buffers())) + state_bytes(optimizer)
    plan = rl_plan(tmp_path, f"model.dtype={dtype}", "value.backbone=shared")
    assert [m.name for m in plan.moments] == ["loading", *ROLLOUT, "values", *POLICY]
    found = parts_of(plan, "values")
    assert sum(found[name] for name in (WEIGHTS, MASTERS, MOMENTS)) == real
    assert CRITIC not in found


def test_reference_and_average_are_whole_copies(tmp_path: Path) -> None:
    """Catches a reference that is planned as an adapter, and an average of weights that are not trained."""
    model = tiny("sdar").bfloat16()
    plain = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    words = ("model.dtype=bfloat16", "model.lora.rank=3", "objective.reference_weight=0.1", "optimizer.ema_decay=0.9")
    plan = rl_plan(tmp_path, *words)
    assert [m.name for m in plan.moments] == ["loading", *ROLLOUT, "reference", *POLICY]
    assert {m.parts[REFERENCE] for m in plan.moments[1:]} == {plain}
    assert {m.parts[AVERAGE] for m in plan.moments[1:]} == {plan.counts.adapter * 4}
    assert {m.parts.get(REFERENCE, 0) for m in rl_plan(tmp_path).moments} == {0}


def test_an_average_is_as_large_as_the_masters() -> None:
    """Catches an average in the model's narrower dtype."""
    model = tiny("sdar").bfloat16()
    optimizer = Optimizer(model, OptimizerSpec(ema_decay=0.9), total_updates=9)
    held = Learner(blueprint(official("sdar")).footprint(2), has_average=True).resting()
    assert held[AVERAGE] == sum(average.nbytes for average in optimizer.averages)


def test_the_peak_is_that_of_the_largest_phase(tmp_path: Path) -> None:
    """Catches a phase that is listed but does not count."""
    for words, peaks in (
        (("value.backbone=own", "rollout.num_slots=1"), ("policy head", "policy layers", "policy update")),
        (("rollout.num_slots=400", "rollout.problems_per_step=100", "train.max_positions=40"), ROLLOUT),
    ):
        plan = make_plan(rl_config(tmp_path, *words, **LARGE), Assumed(40, 20), memory=1 << 50)
        assert plan.peak.total == max(moment.total for moment in plan.moments)
        assert plan.peak.name in peaks


@pytest.mark.parametrize("vocabulary", [262, 20_000])
def test_columns_take_what_a_pass_without_gradients_takes(tmp_path: Path, vocabulary: int) -> None:
    """Catches activations that are planned as if they were kept, and a head whose logits nobody counted."""
    config = {"model_type": "sdar", "hidden_size": 64, "intermediate_size": 256, "vocab_size": vocabulary}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_hidden_layers": 2}
    ids = {"pad_token_id": 0, "mask_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 512, "block_size": 4}
    model = new_model({**config, **heads, **ids}, seed=0)
    objective = build("objectives", "block_sft")
    texts = [Text(np.arange(240) % 200 + 3, 0, key) for key in range(4)]
    batch = objective.prepare(texts, model.family, 0)
    (tmp_path / "config.json").write_text(json.dumps(dict(model.config)), encoding="utf-8")
    words = [f"model.path={tmp_path / 'config.json'}", *SMALL, "objective=random_mask_rl"]
    length = batch.tokens.shape[1]
    words += ["objective.num_masks=1", f"train.max_positions={4 * length}"]
    run = load_config(RLConfig, RECIPES / "rl-sdar-random.yaml", ["model={path: x}", *words])
    plan = make_plan(run, Assumed(length, 20), memory=1 << 50)
    resting = sum(parts_of(plan, "policy update")[name] for name in (WEIGHTS, MASTERS, MOMENTS))
    planned = sum(parts_of(plan, "behaviour").values()) - resting
    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profile:
        behaviour_columns(model, batch)
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    assert planned == pytest.approx(max(accumulate(size for _, size in changes)), rel=0.2)
    assert (LOGITS in parts_of(plan, "behaviour")) is (vocabulary > 1000)


def test_measuring_filters_costs_more_logits(tmp_path: Path) -> None:
    """Catches a nucleus that is sorted for every scored token and planned as a plain log-probability."""
    words = ("rollout.top_p=0.9", "objective.behaviour=recomputed")
    configs = [rl_config(tmp_path, *words, f"objective.importance={how}", **LARGE) for how in ("none", "truncated")]
    plain, measured = (make_plan(config, Assumed(40, 20), memory=1 << 50) for config in configs)
    assert parts_of(measured, "behaviour")[LOGITS] > 1.5 * parts_of(plain, "behaviour")[LOGITS]


def resting_shards(world: World, dtype: str, backbone: str, changes: dict[str, Any]) -> dict[str, int]:
    """What a process really holds of a model in shards; a value model without or with the policy's head."""
    policy = tiny_model(dtype=dtype, **changes).train()
    critic = open_value_model(ValueSpec(backbone=backbone), policy)  # type: ignore[arg-type]
    root = critic.backbone
    options: dict[str, Any] = {"strategy": "fsdp", "world": world, "methods": ("body",)}
    placement = place(critic, list(root.decoder.layers), root=root, **options)
    optimizer = Optimizer(critic, OptimizerSpec(ema_decay=0.5), total_updates=9, placement=placement)

    def loss() -> torch.Tensor:
        features = critic.body(*tokens_of(policy), None)
        whole.append(sum(p.nbytes for p in root.parameters() if not is_shard(p)))
        total = critic.value_head(features).sum()
        return total + policy.head(features).float().sum() if backbone == "shared" else total

    whole: list[int] = []
    optimizer.step([loss], 1.0)
    release(critic)
    buffers = sum(buffer.nbytes for buffer in critic.buffers())
    found = {"root": whole[0], WEIGHTS: sum(map(local_bytes, critic.parameters())) + buffers}
    moments = [t for state in optimizer.adam.state.values() for t in state.values() if t.ndim]
    found |= {MOMENTS: sum(map(local_bytes, moments)), AVERAGE: sum(map(local_bytes, optimizer.averages))}
    with placement.gathered(critic):
        found[GATHERED] = sum(p.untyped_storage().nbytes() for p in placement.plain(critic).parameters())
    return found


def local_bytes(tensor: Any) -> int:
    size: int = (tensor.to_local() if is_shard(tensor) else tensor).nbytes
    return size


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("backbone", ["shared", "own"])
def test_shards_are_planned_as_they_are(pair: Processes, dtype: str, backbone: str) -> None:
    """Catches masters that exist twice, uneven tensors that are planned as halves, a head that is sharded only in the
    plan, and a copy to decode from in the masters' width."""
    changes: dict[str, Any] = {"vocab_size": 263, "hidden_size": 18, "intermediate_size": 33}
    real = pair.run(resting_shards, dtype, backbone, changes)
    model = tiny_model(dtype=dtype, **changes)
    trained = model if backbone == "shared" else model.decoder
    found = footprint_like(model, trained, dtype)
    learner = Learner(found, 2, shards_of(trained, model.decoder.layers, 2), head=18, has_average=True)
    assert learner.shards is not None
    planned = learner.resting() | learner.replica() | {"root": learner.shards.root * found.narrow}
    assert planned.pop(MASTERS) == 0
    assert planned == {name: max(one[name] for one in real) for name in real[0]}
    assert learner.borrowed()[GATHERED] == (learner.shards.root + 2 * learner.shards.layer) * found.narrow


def footprint_like(model: Any, trained: Any, dtype: str) -> Footprint:
    found = blueprint(dict(model.config)).footprint(4 if dtype == "float32" else 2)
    return replace(found, counts=count(trained))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_more_processes_share_shards_and_nothing_else(tmp_path: Path, strategy: Strategy) -> None:
    """Catches state that is divided although every process has all of it, and rows that shrink."""
    words = (f"train.strategy={strategy}", "value.backbone=own", "train.max_positions=64")
    one, four = (rl_plan(tmp_path, *words, processes=n) for n in (1, 4))
    assert four.assumptions["processes"] == 4
    assert four.assumptions["rows"] == one.assumptions["rows"]
    assert "policy reduction" in {m.name for m in four.moments}
    assert "policy reduction" not in {m.name for m in one.moments}
    share = 4 if strategy == "fsdp" else 1
    for part in (MOMENTS, GRADIENTS, WEIGHTS, CRITIC):
        ratio = parts_of(one, "policy layers")[part] / parts_of(four, "policy layers")[part]
        assert ratio == pytest.approx(share, rel=0.1)
    copies = parts_of(four, "rollout forward").get(GATHERED, 0)
    assert copies == (parts_of(one, "loading")[WEIGHTS] if strategy == "fsdp" else 0)


def test_what_the_run_refuses_is_not_planned(tmp_path: Path) -> None:
    """Catches a plan for shards of an adapter, or for a critic that cannot be."""
    for words, error in (
        (("model.lora.rank=3", "train.strategy=fsdp"), "train.strategy"),
        (("model.lora.rank=3", "value.backbone=own"), "value.backbone"),
        (("objective={kind: coupled_rl}", "value.backbone=shared"), "value: CoupledRL"),
        (("model.block_size=8",), "model.resizes_blocks"),
    ):
        with pytest.raises(ValueError, match=error):
            rl_plan(tmp_path, *words, processes=2)
    with pytest.raises(ValueError, match="processes is 0"):
        Assumed(processes=0)


def advised(tmp_path: Path, *overrides: str, processes: int = 1) -> list[str]:
    config = rl_config(tmp_path, *overrides, **LARGE)
    return [one.change for one in make_plan(config, Assumed(64, 20, processes), memory=1 << 20).advice]


def test_shards_and_processes_are_advised(tmp_path: Path) -> None:
    """Catches advice that the run would refuse: an adapter in shards, or under a critic with a copy of its own."""
    assert "--processes 8 train.strategy=fsdp" in advised(tmp_path)
    assert {"train.strategy=fsdp", "--processes 4 train.strategy=fsdp"} <= set(advised(tmp_path, processes=2))
    assert not [text for text in advised(tmp_path, "model.lora.rank=3", processes=2) if "fsdp" in text]
    assert not [text for text in advised(tmp_path, "train.strategy=fsdp", processes=2) if "lora" in text]
    copied = advised(tmp_path, "value.backbone=own")
    assert "value.backbone=shared" in copied
    assert not [text for text in copied if "lora" in text]


SUPERVISED: dict[str, tuple[str, dict[str, Any]]] = {
    "complements": ("sdar", {"kind": "block_sft", "is_complementary": True, "num_masks": 2}),
    "trace": ("sdar", {"kind": "trace_sft", "shrinkage": 2}),
    "trace, full": ("llada", {"kind": "trace_sft", "shrinkage": 2}),
    "semi-AR": ("llada", {"kind": "semi_ar_sft", "block_size": 8}),
    "AR": ("dream", {"kind": "ar_sft"}),
}


@pytest.mark.parametrize("case", SUPERVISED.values(), ids=SUPERVISED)
def test_copies_are_those_that_are_made(tmp_path: Path, case: tuple[str, dict[str, Any]]) -> None:
    """Catches an objective whose further copies the plan does not know: rows would be longer, or more, than planned."""
    name, spec = case
    model, size = tiny(name), 32
    family: Family = model.family
    objective: Any = build("objectives", spec)
    text = Text(np.arange(size) % 20 + 3, 0, 0, np.arange(1, size + 1, dtype=np.int32))
    batch = objective.prepare([text], family, 3)
    copies = hidden_copies(objective, size, family)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(official(name)), encoding="utf-8")
    words = [f"model.path={file}", "out=run", "train.steps=1", "batch_size=1", f"objective={json.dumps(spec)}"]
    config = load_config(SFTConfig, None, [*words, "train.max_positions=100000"])
    planned = make_plan(config, memory=1 << 50).assumptions
    if family.attention == "block":
        assert batch.tokens.shape[1] <= size * (1 + copies)
        assert batch.tokens.shape[1] > size * copies
        assert planned["row_length"] == family.max_length * (1 + copies)
    else:
        assert len(batch.tokens) == copies
        assert planned["rows"] == hidden_copies(objective, family.max_length, family)


def test_every_stage_of_a_curriculum_is_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a recipe of stages that is read as one run, and later stages planned with the old blocks."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(official("sdar")), encoding="utf-8")
    words = ["plan", str(RECIPES / "curriculum-blocks-sdar.yaml"), f"model.path={file}", "model.device=cpu"]
    words += ["rl.rollout.max_new_tokens=16", "rl.rollout.num_slots=4", "--prompt-length", "20", "--memory", "64GiB"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["stages"]) == ["decode-4-train-8", "decode-8-train-8"]
    assert told["needed"] == max(stage["needed"] for stage in told["stages"].values())
    assert told["stages"][told["largest"]]["needed"] == told["needed"]
    assert {stage["assumptions"]["row_length"] for stage in told["stages"].values()} == {20 + 16 * 9}
    assert main([*words[:-1], "1MiB"]) == 3
    assert "largest: stage decode-" in capsys.readouterr().out
    overrides = [word for word in words[2:] if "=" in word]
    config = load_config(CurriculumConfig, RECIPES / "curriculum-blocks-sdar.yaml", overrides)
    assert {name: plan.needed for name, plan in plan_stages(config, Assumed(None, 20), memory=1 << 50).items()} == {
        name: stage["needed"] for name, stage in told["stages"].items()
    }


def test_the_command_knows_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches an option that is read and changes nothing, and a total of all processes shown as one."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(official("sdar")), encoding="utf-8")
    words = ["plan", str(RECIPES / "sft-chain.yaml"), f"model.path={file}", "train.strategy=fsdp", "--memory", "64GiB"]
    assert main([*words, "--processes", "4"]) == 0
    shown = capsys.readouterr().out
    assert "processes 4" in shown
    assert "each process needs" in shown
    assert "gathered weights" in shown


def test_all_phases_are_shown_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches columns that are cut short, or left out, where a terminal is narrow."""
    rl_config(tmp_path)
    words = ["plan", str(RECIPES / "rl-chain.yaml"), f"model.path={tmp_path / 'config.json'}", *SMALL]
    assert main([*words, "value.backbone=own", "--prompt-length", "20", "--memory", "64GiB"]) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    header = [line.split() for line in shown.splitlines() if line.strip().startswith("GiB")]
    assert [name for line in header for name in line if name != "GiB"] == [
        *("loading", "forward", "sampling", "values", "layers", "update", "head", "layers", "update")
    ]
