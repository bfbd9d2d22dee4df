"""The memory plan's arithmetic against real models, caches and optimisers; the command and its verdict."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch

from revelm.cli.main import main
from revelm.cli.plan import purpose_of, read_size
from revelm.core.allocator import LARGE_MODEL_BYTES, return_freed_memory
from revelm.core.config import load_config
from revelm.core.registry import build, names
from revelm.decoding.credit import Credit
from revelm.decoding.sampling import Sampling, sampling_rows
from revelm.engine.assemble import assemble
from revelm.engine.budget import cache_bytes, size_of
from revelm.engine.cached import CachedBlocks
from revelm.engine.canvases import CanvasCache
from revelm.engine.engine import Engine
from revelm.engine.kv_cache import KVCache
from revelm.engine.named_caches import cache_for
from revelm.engine.pages import Layout
from revelm.engine.prompts import make_requests
from revelm.engine.stats import EngineStats
from revelm.eval.config import SettingSpec
from revelm.models.footprint import Footprint, blueprint
from revelm.models.lora import LoraSpec
from revelm.objectives.batch import Text
from revelm.objectives.score import score
from revelm.objectives.supervised import SFT_KINDS
from revelm.parallel.world import World
from revelm.trainers.config import OptimizerSpec, RLConfig, SFTConfig
from revelm.trainers.decoding_moments import Asked, bytes_per_logit, plan_decoding
from revelm.trainers.learner import Learner
from revelm.trainers.moments import MOMENTS, MicroBatch, training
from revelm.trainers.optimizer import Optimizer
from revelm.trainers.plan import Assumed, Plan, ServingSpec, make_plan
from revelm.trainers.session import find_start, open_session
from tests.families import official, tiny
from tests.tiny_checkpoint import save_tiny

RECIPES = Path(__file__).parents[2] / "recipes"
FLASH = {
    "model_type": "llada2_moe",
    "architectures": ["LLaDA2MoeModelLM"],
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 9216,
    "moe_intermediate_size": 1024,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "first_k_dense_replace": 1,
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "num_shared_experts": 1,
    "n_group": 8,
    "topk_group": 4,
    "vocab_size": 157_184,
    "max_position_embeddings": 32_768,
    "rope_theta": 600_000,
    "torch_dtype": "bfloat16",
}


def footprint_of(config: dict[str, Any], dtype: torch.dtype = torch.float32, **options: Any) -> Footprint:
    return blueprint(config).footprint(dtype.itemsize, **options)


def save_config(folder: Path, config: dict[str, Any]) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    return file


def saved_bytes(model: Any, rows: int, length: int, *, wanted: int | None = None) -> int:
    """What autograd keeps of a forward, weights left out; features of all rows, or of the last ``wanted``."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor.detach()
        return tensor

    tokens = torch.arange(rows * length).view(rows, length) % 40
    positions = torch.arange(length).repeat(rows, 1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        some = None if wanted is None else torch.arange(rows * length - wanted, rows * length)
        model.body(tokens, positions, None, rows=some)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("name", names("models"))
@pytest.mark.parametrize("is_tied", [False, True])
def test_counts_are_those_of_the_model(name: str, is_tied: bool) -> None:
    """Catches a parameter that the plan forgets, or a tied head that it counts twice."""
    config = official(name, tie_word_embeddings=is_tied, weight_tying=is_tied)
    found, model = footprint_of(config, torch.bfloat16), tiny(name, tie_word_embeddings=is_tied, weight_tying=is_tied)
    assert found.counts.total == sum(parameter.numel() for parameter in model.parameters())
    model = model.to(torch.bfloat16)
    real = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    assert found.weights == real


@pytest.mark.parametrize("wanted", [None, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", names("models"))
def test_kept_activations_are_what_autograd_keeps(name: str, dtype: torch.dtype, wanted: int | None) -> None:
    """Catches a tensor that a layer saves and the plan does not know, or one that it no longer saves."""
    sizes = {"hidden_size": 64, "d_model": 64, "moe_intermediate_size": 16, "expert_intermediate_size": 16}
    config = {k: sizes.get(k, v) for k, v in official(name).items()}
    rows, length = 2, 96
    model = tiny(name, **{k: v for k, v in config.items() if k in sizes}).to(dtype).train()
    found = footprint_of(config, dtype)
    is_open = found.kind.attention == "full"  # and no padding here: everything is visible, no mask is made
    planned = found.kept(rows * length, recomputes=False, wanted=wanted) + (0 if is_open else found.mask(rows, length))
    assert planned == pytest.approx(saved_bytes(model, rows, length, wanted=wanted), rel=0.02)


def test_more_wanted_rows_keep_more() -> None:
    """Catches none taken for all."""
    found = footprint_of(official("sdar"))
    kept = [found.kept(100, recomputes=False, wanted=wanted) for wanted in range(101)]
    assert kept == sorted(kept)


@pytest.mark.parametrize("wanted", [None, 50])
def test_recomputing_keeps_only_layer_inputs(wanted: int | None) -> None:
    """Catches a switch that is read and changes nothing, and a plan that does not believe in it."""
    model = tiny("sdar").train()
    model.decoder.recomputes_layers = True
    found = footprint_of(official("sdar"))
    angles = 2 * 96 * 2 * found.sizes.rope.dim * found.wide  # alive as arguments, though autograd does not hold them
    planned = found.kept(2 * 96, recomputes=True, wanted=wanted) - angles
    assert planned == pytest.approx(saved_bytes(model, 2, 96, wanted=wanted), rel=0.02)


@pytest.mark.parametrize("name", ["sdar", "llada", "sdar_moe", "llada2_moe"])
def test_recomputing_gives_the_same_gradients(name: str) -> None:
    """Catches layers that see another mask, or route rows otherwise, when they run again."""
    gradients = []
    for recomputes in (False, True):
        model = tiny(name).double().train()
        model.decoder.recomputes_layers = recomputes
        objective = build("objectives", SFT_KINDS[model.family.attention])
        texts = [Text(torch.arange(3, 25).numpy(), 6, key) for key in range(3)]
        batch = objective.prepare(texts, model.family, 0)
        objective.judge(score(model, batch), batch).sum.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=0, atol=1e-10)


def test_a_recipe_switches_recomputing_on(tmp_path: Path) -> None:
    """Catches a field of the recipe, or its usual name, that never reaches the model."""
    overrides = [f"model.path={save_tiny(tmp_path / 'model')}", f"out={tmp_path / 'run'}", "train.steps=1"]
    for switch, expected in ((), False), (("train.gradient_checkpointing=true",), True):
        config = load_config(SFTConfig, None, [*overrides, *switch])
        session = open_session(find_start(config), updates_per_step=1, world=World())
        assert session.model.decoder.recomputes_layers is expected


@pytest.mark.parametrize("capacity", [64, 70])
def test_cache_bytes_are_those_of_the_cache(capacity: int) -> None:
    """Catches a forgotten half (keys or values), and rounding that the plan does not follow."""
    model = tiny("sdar").bfloat16()
    cache = KVCache(model, Layout.slots(3, capacity))
    assert cache_bytes(model, cache.layout) == cache.store.nbytes + cache.boundary.nbytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_optimiser_bytes_are_those_of_its_state(dtype: torch.dtype) -> None:
    """Catches masters that are counted where there are none, or moments in the wrong width."""
    model = tiny("sdar").to(dtype).train()
    optimizer = Optimizer(model, OptimizerSpec(), total_updates=1)
    optimizer.step([lambda: model(torch.arange(8)[None]).sum()], 1.0)
    moments = [t for state in optimizer.adam.state.values() for t in state.values() if t.ndim]
    masters = [m for m, p in zip(optimizer.masters, optimizer.parameters, strict=True) if m is not p]
    planned = Learner(footprint_of(official("sdar"), dtype)).resting()
    assert planned["fp32 masters"] == sum(master.nbytes for master in masters)
    assert planned[MOMENTS] == sum(moment.nbytes for moment in moments)


def test_an_adapter_is_all_that_is_trained() -> None:
    """Catches moments and gradients for frozen weights."""
    spec = LoraSpec(rank=3)
    found = footprint_of(official("sdar"), lora=spec)
    expected = 2 * 3 * (2 * (24 + 32) + 2 * (24 + 16) + 3 * (24 + 40))  # two layers: q, o; k, v; gate, up, down
    assert found.counts.trained == expected
    assert Learner(found).resting()[MOMENTS] == expected * 2 * 4


def recipe(tmp_path: Path, *overrides: str, config: dict[str, Any] | None = None) -> SFTConfig:
    path = save_config(tmp_path, config or official("sdar"))
    base = [f"model.path={path}", "out=run", "train.steps=1", "train.max_positions=4096"]
    return load_config(SFTConfig, None, [*base, *overrides])


def test_the_largest_that_fits_is_the_largest(tmp_path: Path) -> None:
    """Catches a search that stops one too early or one too late."""
    config = recipe(tmp_path)
    whole = make_plan(config, Assumed(64), memory=1 << 40)
    memory = (
        whole.needed - (whole.needed - make_plan(recipe(tmp_path, "train.max_positions=64"), Assumed(64)).needed) // 2
    )
    most = make_plan(config, Assumed(64), memory=memory).limits["train.max_positions"]
    assert most is not None
    assert 64 <= most < 4096
    for size, fits in ((most, True), (most + 1, False)):
        assert make_plan(recipe(tmp_path, f"train.max_positions={size}"), Assumed(64), memory=memory).fits is fits


def test_the_largest_number_of_slots_is_the_largest(tmp_path: Path) -> None:
    """The same for serving."""
    path = str(save_config(tmp_path, official("sdar")))

    def plan(slots: int, memory: int) -> Plan:
        spec = ServingSpec(model=path, num_slots=slots, prompt_length=100, max_new_tokens=50)
        return make_plan(spec, memory=memory)

    memory = (plan(64, 1 << 40).needed + plan(1, 1 << 40).needed) // 2
    most = plan(64, memory).limits["num_slots"]
    assert most is not None
    assert plan(most, memory).fits
    assert not plan(most + 1, memory).fits


def test_a_plan_that_does_not_fit_names_switches(tmp_path: Path) -> None:
    """Catches advice that makes things worse, and switches that are not offered."""
    big = official("sdar", hidden_size=2048, num_hidden_layers=24, intermediate_size=6144, vocab_size=30_000)
    plan = make_plan(recipe(tmp_path, config=big), memory=8 << 30)
    assert not plan.fits
    changes = " ".join(one.change for one in plan.advice)
    for switch in ("train.recompute_layers=true", "model.lora.rank=16", "all of these"):
        assert switch in changes
    assert all(one.needed < plan.needed for one in plan.advice)
    assert any(one.fits for one in plan.advice)


def test_rl_plans_the_rollout_too(tmp_path: Path) -> None:
    """Catches a rollout that is planned without the optimiser's state beside it."""
    path = save_config(tmp_path, official("sdar"))
    overrides = [f"model.path={path}", "rollout.num_slots=7"]
    config = load_config(RLConfig, RECIPES / "rl-chain.yaml", overrides)
    plan = make_plan(config, Assumed(prompt_length=40))
    phases = ["loading", "rollout forward", "rollout sampling", "policy head", "policy layers", "policy update"]
    assert [moment.name for moment in plan.moments] == phases
    assert plan.assumptions["slots"] == 7
    assert plan.moments[1].parts[MOMENTS] > 0


def rl_plan(path: Path, *overrides: str, prompt: int) -> Plan:
    words = [f"model.path={path}", "rollout.num_slots=8", "rollout.problems_per_step=4", "rollout.group_size=4"]
    config = load_config(RLConfig, RECIPES / "rl-chain.yaml", [*words, "rollout.max_new_tokens=16", *overrides])
    return make_plan(config, Assumed(prompt_length=prompt))


@pytest.mark.parametrize(
    ("name", "cache"),
    [
        ("sdar", {"kind": "auto"}),
        ("sdar", {"kind": "exact", "page_size": 8}),
        ("sdar", {"kind": "exact", "page_size": 16, "num_pages": 9}),
        ("sdar", {"kind": "exact", "reuses_prefixes": True}),
        ("llada", {"kind": "dual"}),
        ("llada", {"kind": "prefix", "page_size": 8, "num_pages": 20}),
        ("llada", {"kind": "none"}),
        ("sdar", {"kind": "none"}),
    ],
)
def test_the_planned_cache_is_the_one_that_is_made(tmp_path: Path, name: str, cache: dict[str, Any]) -> None:
    """Catches a layout that the plan does not follow: pages, the spare one of a group, kept prompts."""
    model, path, group = tiny(name), save_config(tmp_path, official(name)), 4
    prompts = [[3 + problem] * 21 for problem in range(4) for _ in range(group)]
    requests = make_requests(prompts, Sampling(max_new_tokens=16), model.family, None)
    requests = [replace(request, key=request.prompt_ids.tobytes()) for request in requests]
    spec = cache_for(model.family, cache)
    forwards = assemble(model, spec, size=size_of(requests, 8), stats=EngineStats())
    real = 0
    if isinstance(forwards, CachedBlocks | CanvasCache):
        real = forwards.cache.store.nbytes + forwards.cache.boundary.nbytes
    plan = rl_plan(path, f"rollout.cache={json.dumps(cache)}", prompt=21)
    assert {moment.parts["KV cache"] for moment in plan.moments[1:3]} == {real}
    kept = {moment.parts.get("KV cache", 0) for moment in plan.moments[3:]}
    assert kept == {real if cache.get("reuses_prefixes") else 0}


@pytest.mark.parametrize("group", [1, 3, 4, 16])
@pytest.mark.parametrize("most", [8192, 40])
def test_planned_rows_are_those_of_the_first_step(group: int, most: int) -> None:
    """Catches a prompt that is planned once per answer, and pieces of a prefill planned as one."""
    model, slots, length = tiny("sdar"), 8, 30
    rollout = load_config(SettingSpec, None, ["max_new_tokens=16"])
    cache = {"kind": "exact", "prefill_rows": most}
    asked = Asked(slots, 16, length, group)
    how = plan_decoding(rollout, cache, asked, family=model.family, device="cpu")
    engine = Engine(model, num_slots=slots, cache=cache_for(model.family, cache))
    engine.submit([[3 + number // group] * length for number in range(16)], rollout.sampling())
    counted: list[int] = []
    count = engine.stats.count_forward

    def watch(rows: int, seconds: float) -> None:
        counted.append(rows)
        count(rows, seconds)

    engine.stats.count_forward = watch  # type: ignore[method-assign]
    engine.step()
    assert max(counted) <= how.forwards[0][0] <= max(counted) + 4 * slots
    assert how.forwards[1] == (2 * 4 * slots, 64)


def test_what_a_rule_remembers_is_planned(tmp_path: Path) -> None:
    """Catches a credit per vocabulary entry, the largest thing there is for large vocabularies, left out."""
    model, path = tiny("sdar"), save_config(tmp_path, official("sdar"))
    engine = Engine(model, num_slots=8)
    engine.submit([[3, 4, 5]] * 16, Sampling(rule=Credit(), max_new_tokens=16))
    engine.step()
    assert engine._run is not None
    memory = engine._run.slots.memory
    assert memory is not None
    plan = rl_plan(path, "rollout.rule=credit", prompt=3)
    planned = {m.name: m.parts.get("memory of the rule", 0) for m in plan.moments}
    assert {name for name, size in planned.items() if size} == {"rollout forward", "rollout sampling"}
    assert set(planned.values()) == {0, memory.nbytes}


SAMPLED: dict[str, Sampling] = {
    "plain": Sampling(),
    "tempered": Sampling(temperature=0.7),
    "nucleus": Sampling(top_p=0.9, temperature=0.7),
    "min_p": Sampling(min_p=0.1),
    "banned": Sampling(banned_ids=(3,)),
    "guided": Sampling(guidance=1.0, temperature=0.7),
    "guided nucleus": Sampling(guidance=1.0, top_k=9),
    "credit": Sampling(rule=Credit()),
    "credit nucleus": Sampling(rule=Credit(), top_p=0.9, temperature=0.7),
}


@pytest.mark.parametrize("sampling", SAMPLED.values(), ids=SAMPLED)
def test_bytes_per_logit_are_those_of_the_sampler(sampling: Sampling) -> None:
    """Catches filters, guidance or a rule of its own whose tensors nobody has counted."""
    rows, size = 16, 20_000
    settings = sampling_rows([sampling], (1,), "cpu", vocab_size=size).at(torch.zeros(rows, dtype=torch.int64))

    def go() -> None:
        logits, uniform = torch.randn(rows, 1, size), torch.rand(rows, 1)
        against = torch.randn(rows, 1, size) if sampling.guidance else None
        memory = torch.zeros(rows, 1, size) if sampling.rule.memory_size(size) else None
        sampling.rule.propose(logits, uniform, settings, memory, against=against)

    planned = bytes_per_logit(footprint_of(official("sdar", vocab_size=size)), sampling)
    assert peak_bytes(go) / (rows * size) == pytest.approx(planned, rel=0.12)


def peak_bytes(work: Callable[[], None]) -> int:
    """The most bytes of tensors that are alive at once while ``work`` runs."""
    with torch.inference_mode(), torch.profiler.profile(profile_memory=True) as profile:
        work()
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate(size for _, size in changes))


def test_caches_that_cannot_be_are_not_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a plan for a pool that no request fits into, or for a cache that the model does not have."""
    words = ["plan", "--model", str(save_config(tmp_path, official("sdar"))), "prompt_length=40", "max_new_tokens=24"]
    assert main([*words, "cache={kind: exact, page_size: 8, num_pages: 8}"]) == 0
    assert main([*words, "cache={kind: exact, page_size: 8, num_pages: 7}"]) == 2
    assert "num_pages is 7, but a request of 64 positions needs 8 pages" in capsys.readouterr().err
    assert main([*words, "cache=dual"]) == 2
    assert "cache: engine.cache is 'dual', which is approximate" in capsys.readouterr().err


def test_a_hundred_billion_parameters_are_planned_at_once(tmp_path: Path) -> None:
    """Catches a plan that allocates what it plans."""
    began = perf_counter()
    plan = make_plan(ServingSpec(model=str(save_config(tmp_path, FLASH))), memory=24 << 30)
    assert perf_counter() - began < 2
    assert plan.counts.total == pytest.approx(103e9, rel=0.01)
    assert plan.moments[0].parts["weights"] == pytest.approx(206e9, rel=0.01)
    assert not plan.fits


def test_command_on_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a recipe that the verb reads otherwise than its run, and exit codes."""
    words = ["plan", str(RECIPES / "sft-chain.yaml"), "--model", str(save_config(tmp_path, official("sdar")))]
    assert main([*words, "--json", "--memory", "64GiB"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"] is True
    assert plan["peak"] == max(sum(parts.values()) for parts in plan["moments"].values())
    assert main([*words, "--memory", "100MB"]) == 3
    shown = capsys.readouterr().out
    assert "does not fit" in shown
    assert "train.max_positions" in shown


def test_command_for_serving(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches overrides that are taken for the recipe's name."""
    model = str(save_config(tmp_path, official("llada")))
    assert main(["plan", "--model", model, "num_slots=3", "prompt_length=20", "max_new_tokens=12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["assumptions"] == {"slots": 3, "prompt_length": 20, "canvas_length": 32}


def test_what_a_recipe_is_for() -> None:
    """Catches guessing."""
    assert purpose_of({"rollout": {}}, "a.yaml") == "rl"
    assert purpose_of({"batch_size": 3}, "a.yaml") == "sft"
    assert purpose_of({}, None) == "serve"
    with pytest.raises(ValueError, match="--for"):
        purpose_of({"model": {}}, "a.yaml")


def test_sizes_are_read() -> None:
    """Catches GB read as GiB."""
    assert [read_size(text) for text in ("24GiB", "24G", "80GB", "512")] == [24 << 30, 24 << 30, 80 * 10**9, 512]
    with pytest.raises(ValueError, match="no size"):
        read_size("much")


def test_the_moments_of_training_grow_with_positions() -> None:
    """Catches a term that shrinks, over which the search for the largest would stumble."""
    found = footprint_of(official("sdar"))
    for one, other in ((1, 2), (64, 65)):
        small, large = (training(Learner(found), MicroBatch(1, n, n), recomputes=False) for n in (one, other))
        assert all(a.total <= b.total for a, b in zip(small, large, strict=True))


def test_small_models_keep_the_allocator_as_it_is() -> None:
    """Catches the slower allocator where it has nothing to give."""
    assert return_freed_memory(LARGE_MODEL_BYTES - 1) is False


def test_what_no_request_can_be_is_not_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches "fits" for canvases longer than the model has positions for."""
    words = ["plan", "--model", str(save_config(tmp_path, official("sdar"))), "num_slots=2", "prompt_length=200"]
    assert main([*words, "max_new_tokens=56"]) == 0
    assert main([*words, "max_new_tokens=57"]) == 2
    assert (
        "prompt of 200 tokens plus max_new_tokens=57 needs 260 positions; the model has 256" in capsys.readouterr().err
    )
