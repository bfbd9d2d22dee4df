"""Adapters on every family: only they learn, they are saved as peft saves them, and merging changes no prediction."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from revelm.cli.main import main
from revelm.core.config import parse_config
from revelm.models.language_model import LanguageModel
from revelm.models.load import load_model, load_tokenizer, official_state, read_family, save_model
from revelm.models.lora import LoraSpec, add_lora, load_adapter, merge_adapter, merge_lora, save_adapter
from revelm.models.quantize import check_quantize, quantisable, replace_linear
from revelm.trainers import rl, sft
from revelm.trainers.config import OptimizerSpec, RLConfig, SFTConfig
from revelm.trainers.optimizer import Optimizer
from revelm.trainers.saved_state import read_state
from tests.families import CONFIGS, save_family, tiny
from tests.tiny_checkpoint import save_tiny

TOKENS = torch.arange(3, 27).view(2, 12)
LAST_LAYER_OF_ATTENTION = {
    **dict.fromkeys(
        ["sdar", "dream", "fast_dllm", "qwen2", "qwen3", "llama", "llada_moe"], "layers.1.self_attn.o_proj"
    ),
    **dict.fromkeys(["sdar_moe", "qwen3_moe"], "layers.2.self_attn.o_proj"),
    **dict.fromkeys(["llada", "mmada"], "transformer.blocks.1.attn_out"),
    "llada2_moe": "layers.2.attention.dense",
}


def train(model: LanguageModel, steps: int = 2) -> None:
    """A few updates towards arbitrary tokens."""
    optimizer = Optimizer(model, OptimizerSpec(learning_rate=0.05), total_updates=steps)
    for _ in range(steps):
        optimizer.step([lambda: torch.nn.functional.cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.flatten())], 1.0)


def logits(model: LanguageModel) -> Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS)


@pytest.mark.parametrize("name", CONFIGS)
def test_adapter_on_every_family(name: str, tmp_path: Path) -> None:
    """Catches a base that moves, an adapter that is saved under other names or not whole, and a merge that differs."""
    start = save_family(name, tmp_path / "start")
    model, before = load_model(start, dtype="float64"), load_model(start, dtype="float64")
    add_lora(model, LoraSpec(rank=3, alpha=7.0), seed=1)
    assert torch.equal(logits(model), logits(before))
    train(model.train())
    expected = logits(model)
    assert (expected - logits(before)).abs().max() > 1e-3
    save_adapter(model, tmp_path / "adapter")
    again = load_adapter(load_model(start, dtype="float64"), tmp_path / "adapter")
    assert torch.equal(logits(again), expected)
    assert torch.equal(logits(load_model(tmp_path / "adapter", dtype="float64", merges_adapter=False)), expected)
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    layers = {key.removesuffix(".weight") for key in official_state(before) if key.endswith(".weight")}
    named = {key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in stored}
    assert named <= layers
    assert f"model.{LAST_LAYER_OF_ATTENTION[name]}" in named
    assert all(key.endswith((".lora_A.weight", ".lora_B.weight")) for key in stored)
    for key, tensor in official_state(merge_lora(model)).items():
        assert key.removesuffix(".weight") in named or torch.equal(tensor, official_state(before)[key]), key
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-12)
    merged = load_model(tmp_path / "adapter")
    assert merged.adapter is None
    torch.testing.assert_close(logits(merged).double(), expected, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's use of transformers
def test_peft_loads_it_onto_the_official_model(tmp_path: Path) -> None:
    """Catches names, scale or settings that only we understand; and peft's own files that we do not."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    start = save_family("qwen3", tmp_path / "start")
    model = add_lora(
        load_model(start), LoraSpec(rank=2, is_rank_stabilised=True, targets=("q_proj", "up_proj")), seed=1
    )
    train(model.train())
    save_adapter(model, tmp_path / "ours")
    config = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(start.resolve())
    assert config["target_modules"] == ["q_proj", "up_proj"]
    official = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(start), tmp_path / "ours").eval()
    theirs = official(TOKENS).logits
    torch.testing.assert_close(logits(model)[:, 1:], theirs[:, :-1], rtol=0, atol=1e-5)
    official.save_pretrained(str(tmp_path / "theirs"))
    back = load_adapter(load_model(start), tmp_path / "theirs")
    assert torch.equal(logits(back), logits(model))


def test_suffixes_that_mean_more_are_written_out(tmp_path: Path) -> None:
    """Catches LLaDA's head and the experts of a sparse layer being adapted by peft, which matches ends of names."""
    for name, strange in (("llada", "model.transformer.ff_out"), ("sdar_moe", "experts")):
        model = add_lora(tiny(name), LoraSpec(rank=2), seed=0)
        model.source = "some/base"
        save_adapter(model, tmp_path / name)
        config = json.loads((tmp_path / name / "adapter_config.json").read_text())
        assert all("." in target and strange not in target for target in config["target_modules"])


def test_targets() -> None:
    """Catches an adapter on a router, on the head, or on fewer layers than asked for."""
    model = tiny("llada2_moe")
    attention = add_lora(model, LoraSpec(rank=2, targets="attention"), seed=0).adapter
    assert attention is not None
    assert {name.rpartition(".")[2] for name in attention.modules} == {"qkv_proj", "o_proj"}
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name for name in trainable)
    assert len(trainable) == 2 * len(attention.modules) == 12
    every = add_lora(tiny("llada2_moe"), LoraSpec(rank=2), seed=0).adapter
    assert every is not None
    assert not [name for name in every.modules if "router" in name or "lm_head" in name]
    assert len([name for name in every.modules if ".shared." in name]) == 6
    with pytest.raises(ValueError, match=r"'qproj' matches no linear layer.*query_key_value"):
        add_lora(tiny("llada2_moe"), LoraSpec(targets=("qproj",)), seed=0)
    with pytest.raises(ValueError, match="has an adapter already"):
        add_lora(model, LoraSpec(), seed=0)
    with pytest.raises(ValueError, match=r"^targets: must be 'attention' or 'all-linear', got 'q_proj'"):
        parse_config(LoraSpec, {"targets": "q_proj"})


def test_frozen_weights_cost_nothing() -> None:
    """Catches masters, moments or gradients for weights that never change."""
    model = add_lora(tiny("sdar").bfloat16(), LoraSpec(rank=2), seed=0)
    optimizer = Optimizer(model, OptimizerSpec(), total_updates=2)
    adapters = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    assert sum(master.numel() for master in optimizer.masters) == adapters
    assert {master.dtype for master in optimizer.masters} == {torch.float32}
    model(TOKENS).float().sum().backward()
    assert all((parameter.grad is not None) == ("lora_" in name) for name, parameter in model.named_parameters())


def test_seeds_say_everything() -> None:
    """Catches adapters that depend on, or disturb, the global generator."""
    found = []
    for seed in (5, 5, 6):
        torch.rand(7)
        before = torch.get_rng_state()
        found.append(add_lora(tiny("sdar"), LoraSpec(rank=2), seed=seed).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not all(torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_unmerged_weights_are_not_saved(tmp_path: Path) -> None:
    """Catches a checkpoint with names that no program knows, and a folder left behind."""
    model = add_lora(tiny("sdar"), LoraSpec(rank=2), seed=0)
    with pytest.raises(ValueError, match="merge it first"):
        save_model(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    save_model(merge_lora(model), tmp_path / "out")
    assert all(parameter.requires_grad for parameter in model.parameters())
    train(add_lora(model, LoraSpec(rank=2), seed=0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "only 'LORA'"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "adapters on experts are not supported"),
        ({"r": 2.0}, r"r is 2\.0, must be an integer of at least 1"),
        ({"r": True}, "r is True, must be an integer"),
        ({"lora_dropout": "x"}, "lora_dropout is 'x', must be a number"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes', must be true or false"),
        ({"base_model_name_or_path": 5}, "is not set"),
        ({"use_dora": True}, "use_dora is True"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"lora_alpha": None}, "lora_alpha is None, must be a number above 0"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"base_model_name_or_path": "/nowhere/at/all"}, "is not there"),
        ({"base_model_name_or_path": None}, "is not set"),
        ({"r": 4}, r"lora_A of .* has shape \[2, 40\], this model needs \[4, 40\]"),
    ],
)
def test_what_is_not_supported_is_said(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Catches a variant that is loaded as if it were plain LoRA."""
    start = save_family("sdar", tmp_path / "start")
    save_adapter(add_lora(load_model(start), LoraSpec(rank=2), seed=0), tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "adapter")


def test_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    """Catches an adapter laid on the wrong model."""
    start = save_family("llada", tmp_path / "start")
    save_adapter(add_lora(load_model(start), LoraSpec(rank=2), seed=0), tmp_path / "adapter")
    with pytest.raises(ValueError, match="made for another base"):
        load_adapter(tiny("sdar"), tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"12345678 no")
    with pytest.raises(ValueError, match="damaged or truncated"):
        load_model(tmp_path / "adapter")


def test_adapter_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    """Catches a model that keeps half an adapter after the error, and cannot take the right one."""
    start = save_family("sdar", tmp_path / "start")
    save_adapter(add_lora(load_model(start), LoraSpec(rank=2), seed=0), tmp_path / "adapter")
    model = tiny("sdar", seed=2, intermediate_size=44, vocab_size=262)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for use in (load_adapter, merge_adapter):
        with pytest.raises(ValueError, match=r"lora_A of .*down_proj has shape \[2, 40\], this model needs \[2, 44\]"):
            use(model, tmp_path / "adapter")
    assert model.adapter is None
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    add_lora(model, LoraSpec(rank=2), seed=0)
    with pytest.raises(ValueError, match="has an adapter already"):
        merge_adapter(model, tmp_path / "adapter")


def test_merging_needs_no_peft_and_rounds_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a float32 adapter that is rounded to the base's bfloat16 before it is added, and a needless package."""
    start = save_family("sdar", tmp_path / "start")
    model = add_lora(load_model(start), LoraSpec(rank=2, alpha=3.0), seed=0)
    train(model.train())
    save_adapter(model, tmp_path / "adapter")
    pairs = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    save_model(load_model(start).bfloat16(), start)
    monkeypatch.setitem(sys.modules, "peft", None)
    merged = official_state(load_model(tmp_path / "adapter", dtype="auto"))
    for key, tensor in official_state(load_model(start, dtype="auto")).items():
        stem = f"base_model.model.{key.removesuffix('.weight')}.lora_"
        if f"{stem}A.weight" in pairs:
            tensor = (tensor.float() + 1.5 * (pairs[f"{stem}B.weight"] @ pairs[f"{stem}A.weight"])).bfloat16()
        assert torch.equal(merged[key], tensor), key
    with pytest.raises(ValueError, match="needs the package peft"):
        load_model(tmp_path / "adapter", merges_adapter=False)


def test_adapters_that_are_each_others_base(tmp_path: Path) -> None:
    """Catches a recursion without end."""
    start = save_family("sdar", tmp_path / "start")
    one, two = tmp_path / "one", tmp_path / "two"
    save_adapter(add_lora(load_model(start), LoraSpec(rank=2), seed=0), one)
    shutil.copytree(one, two)
    for folder, base in ((one, two), (two, one)):
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(base)}))
    for read in (load_model, read_family, load_tokenizer):
        with pytest.raises(ValueError, match=r"leads back to .*, never to a model"):
            read(one)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(start)}))
    assert read_family(one) == read_family(start)
    assert torch.equal(load_model(one).lm_head.weight, load_model(start).lm_head.weight)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lm_head.base_layer.weight", r"weights beside the adapter \(of head, embedding\) are not supported"),
        ("lm_head.lora_{}.weight", "is the head or the embedding; adapters on these are not supported"),
        ("model.layers.0.mlp.experts.1.up_proj.lora_{}.weight", "adapters on experts and routers are not supported"),
        ("model.layers.0.mlp.gate.lora_{}.weight", "adapters on experts and routers are not supported"),
    ],
)
def test_what_can_have_no_adapter_is_named(key: str, message: str, tmp_path: Path) -> None:
    """Catches "made for another base" for an adapter of this very base."""
    start = save_family("sdar_moe", tmp_path / "start")
    save_adapter(add_lora(load_model(start), LoraSpec(rank=2), seed=0), tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    more = {f"base_model.model.{key.format(side)}": torch.zeros(2, 2) for side in "AB"}
    save_file(load_file(file) | more, file)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "adapter")


def sft_values(start: Path, out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": {"path": str(start), "lora": {"rank": 2, "dropout": 0.1}},
        "task": {"kind": "chain", "num_train": 20, "num_test": 2, "num_operations": [2, 2]},
        "data": {"num": 20},
        "batch_size": 4,
        "optimizer": {"learning_rate": 1e-2, "schedule": "cosine"},
        "train": {"steps": 6, "save_every": 3},
        "out": str(out),
    } | changes


def test_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Catches an adapter run that saves the base, forgets its moments, or starts a new adapter when it goes on."""
    start = save_tiny(tmp_path / "start")
    whole = sft.run(parse_config(SFTConfig, sft_values(start, tmp_path / "whole")))
    half = sft_values(start, tmp_path / "half", train={"steps": 6, "save_every": 3})
    sft.run(parse_config(SFTConfig, half))
    shutil.rmtree(tmp_path / "half" / "checkpoint-6")
    part = sft.run(parse_config(SFTConfig, half | {"resume": True}))
    names = sorted(p.name for p in (whole / "checkpoint-6").iterdir())
    assert "model.safetensors" not in names
    for name in ("adapter_model.safetensors", "trainer/optimizer"):
        load = load_file if name.endswith("safetensors") else read_state
        one, two = (load(folder / "checkpoint-6" / name) for folder in (whole, part))
        assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())
    model = load_model(whole)
    assert model.adapter is None
    assert load_tokenizer(whole).mask_token_id == model.family.mask_id
    assert main(["generate", "--model", str(whole), "--prompt", "1", "--max-new-tokens", "4"]) == 0
    for lora, message in (({"rank": 4}, r"resume: model\.lora\.rank is 4"), (None, r"resume: model\.lora is None")):
        other = half | {"resume": True, "model": {"path": str(start), "lora": lora}}
        with pytest.raises(ValueError, match=message):
            sft.run(parse_config(SFTConfig, other))


def test_adapter_goes_on_in_rl(tmp_path: Path) -> None:
    """Catches a second adapter on top of the first, and an RL run that trains the base."""
    start = save_tiny(tmp_path / "start")
    lora = {"rank": 2, "targets": "attention"}
    tuned = sft.run(
        parse_config(SFTConfig, sft_values(start, tmp_path / "sft", model={"path": str(start), "lora": lora}))
    )
    values = {
        "model": {"path": str(tuned), "lora": lora},
        "task": "tests.toy_tasks:Parity",
        "rollout": {"problems_per_step": 2, "group_size": 4, "max_new_tokens": 8},
        "optimizer": {"learning_rate": 1e-2},
        "train": {"steps": 2},
        "out": str(tmp_path / "rl"),
    }
    run = rl.run(parse_config(RLConfig, values))
    config = json.loads((run / "checkpoint-2" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(start.resolve())
    with pytest.raises(ValueError, match=r"model\.lora\.rank is 3, but the adapter .* has 2"):
        rl.run(parse_config(RLConfig, values | {"model": {"path": str(tuned), "lora": {"rank": 3}}, "out": "other"}))
    with pytest.raises(ValueError, match="dropout must be 0"):
        parse_config(RLConfig, values | {"model": {"path": str(tuned), "lora": {"dropout": 0.1}}})


def test_four_bits_need_cuda(tmp_path: Path) -> None:
    """Catches a 4-bit request that is ignored, or found impossible only after the weights are in memory."""
    with pytest.raises(ValueError, match="needs a CUDA device"):
        load_model(tmp_path / "nothing", quantize="nf4")
    with pytest.raises(ValueError, match="allowed: nf4"):
        load_model(tmp_path / "nothing", quantize="int3")
    with pytest.raises(ValueError, match=r"give model\.lora"):
        parse_config(SFTConfig, sft_values(tmp_path, tmp_path, model={"path": "x", "quantize": "nf4"}))
    if torch.cuda.is_available():
        check_quantize("nf4", torch.device("cuda"))


def test_what_is_quantised() -> None:
    """Catches a router, head or embedding in 4 bits, and a layer that is left out."""
    model = tiny("llada2_moe")
    found = quantisable(model)
    assert {name.rpartition(".")[2] for name in found} == {"qkv_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert len(found) == 3 * 2 + 3 + 2 * 3
    before = logits(model)

    def make(linear: torch.nn.Linear, weight: Tensor) -> torch.nn.Module:
        linear.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
        return torch.nn.Sequential(linear)

    for name in found:
        replace_linear(model, name, model.get_parameter(f"{name}.weight").data, make=make)
    assert torch.equal(logits(model), before)
    assert not quantisable(model) or all(name.endswith(".0") for name in quantisable(model))
