"""The plain families against the models of ``transformers``: an implementation that is not ours, read and written.

Causal families are shifted: our ``logits[:, i]`` is what row i - 1 of theirs says, and row 0 keeps its own. For float64
the float32 that their modelling files cast to is promoted; nothing else of theirs is touched.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, modeling_rope_utils

from revelm.masks.visibility import Pattern
from revelm.models.language_model import LanguageModel
from revelm.models.load import load_model, save_model
from tests.families import tiny
from tests.official_layouts import LAYOUTS

LENGTH = 24
SIZES = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
MOE = {"head_dim": 8, "moe_intermediate_size": 12, "num_experts": 6, "num_experts_per_tok": 2}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "factor": 4.0}
CASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "qwen2": ("qwen2", {"rms_norm_eps": 0.1}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-yarn": ("qwen2", {"rope_parameters": {**YARN, "rope_theta": 1e4}}),
    "qwen3": ("qwen3", {"head_dim": 8, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen3-biased-tied": ("qwen3", {"head_dim": 8, "attention_bias": True, "tie_word_embeddings": True}),
    "qwen3-linear": ("qwen3", {"head_dim": 8, "rope_parameters": {**LINEAR, "rope_theta": 1e4}}),
    "qwen3-yarn": ("qwen3", {"head_dim": 8, "rope_parameters": {**YARN, "rope_theta": 20.0, "attention_factor": 1.3}}),
    "llama": ("llama", {"head_dim": 8}),
    "llama-biased": ("llama", {"attention_bias": True, "num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "llama-llama3": (
        "llama",
        {"head_dim": 8, "rope_parameters": {**LLAMA3, "original_max_position_embeddings": 64, "rope_theta": 1e4}},
    ),
    "qwen3_moe": ("qwen3_moe", {**MOE, "norm_topk_prob": True, "mlp_only_layers": [1]}),
    "qwen3_moe-wide": ("qwen3_moe", {**MOE, "moe_intermediate_size": 16, "num_experts_per_tok": 3}),
    "qwen3_moe-biased": (
        "qwen3_moe",
        {**MOE, "norm_topk_prob": False, "decoder_sparse_step": 2, "attention_bias": True},
    ),
}
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}


class Wide:
    """The torch that a modelling file of ``transformers`` sees, with float32 promoted to float64."""

    float = float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def widen(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """Promote the casts of a family's modelling file, and of the frequencies that it takes from elsewhere."""
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES))
    modelling = sys.modules[f"transformers.models.{family}.modeling_{family}"]
    for module in (modelling, modeling_rope_utils):
        monkeypatch.setattr(module, "torch", Wide())
        if "nn" in vars(module):
            assert module.nn is nn, "softmax(dtype=torch.float32) goes through the promoted name"


def theirs(family: str, changes: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    """A model of ``transformers`` with weights that tell contexts apart, and no norm or bias left at its default."""
    config = AutoConfig.for_model(family, **{**SIZES, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, **eager(family), dtype=dtype)
    sharpen(model)
    return model.eval()


def eager(family: str) -> dict[str, str]:
    """Attention and experts in their plainest form."""
    return {"attn_implementation": "eager"} | ({"experts_implementation": "eager"} if family == "qwen3_moe" else {})


def sharpen(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim > 1:
                noise *= 0.5 if "embed" in name else 1.6 * parameter.shape[-1] ** -0.5
            elif not name.endswith("bias"):
                noise = 1 + 0.3 * noise
            parameter.copy_(noise)


def tokens_of() -> Tensor:
    return torch.randint(0, 50, (2, LENGTH), generator=torch.Generator().manual_seed(1))


def aligned(logits: Tensor) -> Tensor:
    """Row i about token i: what row i - 1 says, and the first row as it is."""
    return torch.cat((logits[:, :1], logits[:, :-1]), dim=1)


def difference(one: Tensor, other: Tensor) -> float:
    assert one.dtype == other.dtype
    return float((one - other).abs().max())


def everywhere(positions: Tensor) -> Pattern:
    """Everything sees everything."""
    zeros = torch.zeros_like(positions)
    return Pattern(zeros, zeros, zeros)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_models_of_transformers_load_with_their_own_logits(
    case: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Catches a wrong number anywhere in the decoder, and fields or tensors that transformers 5 writes another way."""
    family, changes = CASES[case]
    if dtype == torch.float64:
        widen(monkeypatch, family)
    model, tokens = theirs(family, changes, dtype), tokens_of()
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, dtype=dtype)
    assert loaded.family.name == family
    positions = torch.arange(LENGTH).expand(tokens.shape)
    apart = torch.arange(0, 7 * LENGTH, 7).expand(tokens.shape)
    no_mask = torch.zeros(len(tokens), 1, LENGTH, LENGTH, dtype=dtype)
    with torch.no_grad():
        expected = model(tokens).logits
        assert float(expected.std(-1).mean()) > 1, "logits that are nearly flat would hide errors"
        errors = {"causal": difference(loaded(tokens), aligned(expected))}
        both_ways = model(tokens, attention_mask=no_mask, position_ids=positions).logits
        errors["full"] = difference(loaded(tokens, pattern=everywhere(positions)), aligned(both_ways))
        far = model(tokens, attention_mask=no_mask, position_ids=apart).logits
        # No row stands one position before another, so that none speaks about another's token.
        errors["far"] = difference(loaded(tokens, apart, everywhere(apart)), far)
    assert difference(both_ways, expected) > 0.1
    assert max(errors.values()) < TOLERANCES[dtype], errors


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "qwen3_moe"])
@pytest.mark.parametrize(
    "scaling",
    [
        {},
        {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
        {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 16}, "tie_word_embeddings": True},
    ],
    ids=["plain", "yarn", "llama3-tied"],
)
def test_saved_models_load_in_transformers(family: str, scaling: Mapping[str, Any], tmp_path: Path) -> None:
    """Catches a checkpoint that only we can read: wrong names, lost fields, or a head that is not the embedding."""
    ours = tiny(family, **scaling)
    sharpen(ours)
    save_model(ours, tmp_path)
    model, report = AutoModelForCausalLM.from_pretrained(
        tmp_path, local_files_only=True, output_loading_info=True, **eager(family)
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        expected = model.eval()(tokens_of()).logits
        error = difference(ours(tokens_of()), aligned(expected))
    assert float(expected.std(-1).mean()) > 1
    assert error < 1e-4


def test_transformers_writes_the_layout_of_the_releases(tmp_path: Path) -> None:
    """Catches a release of transformers that fuses experts on disk, or names them another way than the releases do."""
    changes = {**MOE, "mlp_only_layers": [1]}
    theirs("qwen3_moe", changes, torch.float32).save_pretrained(tmp_path)
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    assert shapes == LAYOUTS["qwen3_moe"]
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert {"num_local_experts", "num_experts"} & config.keys()


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("qwen3", {"rope_theta": 1e4}),
        ("qwen2", {"rms_norm_eps": 1e-6}),
        ("qwen2-yarn", {"rope_type": "default"}),
        ("qwen3-yarn", {"attention_factor": None}),
        ("qwen3-linear", {"factor": 2.0}),
        ("llama-llama3", {"original_max_position_embeddings": 32}),
        ("qwen3_moe", {"norm_topk_prob": False}),
        ("qwen3_moe", {"num_experts_per_tok": 3}),
    ],
)
def test_a_field_that_is_read_wrongly_would_be_noticed(case: str, changes: Mapping[str, Any], tmp_path: Path) -> None:
    """Catches comparisons too blunt to see a wrong field: each of these moves the logits far beyond the tolerance."""
    family, settings = CASES[case]
    model, tokens = theirs(family, settings, torch.float32), tokens_of()
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    for name, value in changes.items():
        (config["rope_parameters"] if name in config["rope_parameters"] else config)[name] = value
    file.write_text(json.dumps(config), encoding="utf-8")
    loaded: LanguageModel = load_model(tmp_path)
    with torch.no_grad():
        assert difference(loaded(tokens), aligned(model(tokens).logits)) > 1e-2
