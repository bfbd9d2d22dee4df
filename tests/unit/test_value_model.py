"""The value model of every family: nothing unused in it, zero at first, one number per scored position, on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from revelm.models.language_model import LanguageModel
from revelm.models.load import load_model, save_model
from revelm.models.lora import LoraSpec, add_lora
from revelm.models.value import (
    HEAD_FACTS,
    HEAD_WEIGHTS,
    ValueModel,
    copied_value_model,
    load_value_head,
    load_value_model,
    save_value_head,
    save_value_model,
)
from revelm.objectives.batch import Batch, Text
from revelm.objectives.block_sft import BlockSFT
from revelm.objectives.random_mask_sft import RandomMaskSFT
from revelm.objectives.value_loss import values
from tests.families import diffusion_families, save_family, tiny

CPU = torch.device("cpu")


def batch_of(model: LanguageModel) -> Batch:
    """Two short texts as the model is trained on them."""
    rng = np.random.default_rng(0)
    texts = [Text(rng.integers(3, 40, 9 + 4 * i), 4, i) for i in range(2)]
    objective = BlockSFT() if model.family.attention == "block" else RandomMaskSFT()
    return objective.prepare(texts, model.family, 0)


def with_head(model: ValueModel) -> ValueModel:
    with torch.no_grad():
        model.value_head.weight.normal_(0.0, 0.5, generator=torch.Generator().manual_seed(3))
    return model


def asked(model: ValueModel, batch: Batch) -> Tensor:
    with torch.no_grad():
        return values(model, batch)


@pytest.mark.parametrize("name", diffusion_families())
def test_every_family_has_a_value_model(name: str, tmp_path: Path) -> None:
    """Catches a language head or a dead tensor in the optimiser, a copy that still shares memory with the policy, and
    tensors that are lost, renamed or swapped on the way to disk and back."""
    policy = tiny(name)
    model, batch = copied_value_model(policy), batch_of(policy)
    assert not {n for n, _ in model.named_parameters() if "lm_head" in n}
    assert torch.equal(asked(model, batch), torch.zeros(len(batch.scored)))
    with_head(model)
    expected = asked(model, batch)
    features = policy.body(batch.tokens, batch.positions, batch.pattern).flatten(0, 1)[batch.scored]
    torch.testing.assert_close(expected, features.detach() @ model.value_head.weight.detach())
    values(model, batch).square().sum().backward()
    is_routed = {n for n, p in model.named_parameters() if ".experts." in n or "router" in n}
    assert not {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()} - is_routed
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    assert torch.equal(features, policy.body(batch.tokens, batch.positions, batch.pattern).flatten(0, 1)[batch.scored])
    expected = asked(model, batch)
    save_value_model(model, tmp_path)
    again = load_value_model(tmp_path, dtype=torch.float32, device=CPU)
    assert torch.equal(asked(again, batch), expected)
    assert again.family == model.family
    state, saved = again.state_dict(), model.state_dict()
    assert state.keys() == saved.keys()
    assert all(torch.equal(state[n], saved[n]) for n in saved)
    official = set(load_file(tmp_path / "model.safetensors"))
    save_model(policy, tmp_path / "policy")
    assert official < set(load_file(tmp_path / "policy" / "model.safetensors")) or policy.sizes.tie_word_embeddings


@pytest.mark.parametrize("name", diffusion_families())
def test_it_begins_at_any_checkpoint(name: str, tmp_path: Path) -> None:
    """Catches a backbone read from a language model's checkpoint with its head, or with other features; tokens' ids
    that only the tokenizer of the checkpoint knows."""
    save_family(name, tmp_path)
    policy = load_model(tmp_path)
    model = load_value_model(tmp_path, dtype=torch.float32, device=CPU)
    assert "lm_head.weight" not in dict(model.named_parameters())
    assert model.family == policy.family
    tokens = torch.arange(3, 15)[None]
    positions = torch.arange(12)[None]
    assert torch.equal(model.body(tokens, positions, None), policy.body(tokens, positions, None))
    save_value_model(with_head(model), tmp_path / "value")
    again = load_value_model(tmp_path / "value", dtype=torch.bfloat16, device=CPU)
    assert again.family == policy.family
    assert again.backbone.dtype == torch.bfloat16
    assert torch.equal(again.value_head.weight, model.value_head.weight)
    assert again.body(tokens, positions, None).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["sdar", "llada"])
def test_gradient_only_at_scored_positions(name: str) -> None:
    """Catches a head over all rows: prompts, clean text and padding would be drawn towards returns."""
    policy = tiny(name)
    model, batch = with_head(copied_value_model(policy)), batch_of(policy)
    kept: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: tuple[Tensor, ...], features: Tensor) -> None:
        features.retain_grad()
        kept.append(features)

    model.backbone.decoder.norm.register_forward_hook(keep)
    values(model, batch).square().sum().backward()
    (features,) = kept
    assert features.grad is not None
    whole = policy.body(batch.tokens, batch.positions, batch.pattern).flatten(0, 1)
    torch.testing.assert_close(features.detach(), whole[batch.scored].detach())
    assert (features.grad.abs().sum(-1) > 0).all()
    assert len(features) < batch.tokens.numel()


def test_values_are_wide() -> None:
    """Catches values in bfloat16, whose steps are coarser than what advantages are made of."""
    for dtype, wide in (("bfloat16", torch.float32), ("float32", torch.float32)):
        policy = tiny("sdar").to(getattr(torch, dtype))
        model = with_head(copied_value_model(policy))
        assert model.backbone.dtype == getattr(torch, dtype)
        assert asked(model, batch_of(policy)).dtype == wide
    assert copied_value_model(tiny("sdar").double()).value_head.weight.dtype == torch.float64


def test_an_adapter_cannot_be_copied() -> None:
    """Catches an own backbone that silently leaves the adapter out, or trains nothing but it."""
    policy = add_lora(tiny("sdar"), LoraSpec(rank=2), seed=0)
    with pytest.raises(ValueError, match="but the policy has an adapter; use 'shared', or name a checkpoint"):
        copied_value_model(policy)
    shared = ValueModel(policy)
    trained = {n for n, p in shared.named_parameters() if p.requires_grad}
    assert "value_head.weight" in trained
    assert all("lora_" in n for n in trained - {"value_head.weight"})


def test_a_tied_policy_shares_nothing_with_its_value_model(tmp_path: Path) -> None:
    """Catches a tied embedding that stays tied to a head that is gone."""
    policy = tiny("qwen3", tie_word_embeddings=True)
    model = with_head(copied_value_model(policy))
    save_value_model(model, tmp_path)
    again = load_value_model(tmp_path, dtype=torch.float32, device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert len(list(again.parameters())) == len(list(policy.parameters())) + 1


def test_damaged_directories_are_named(tmp_path: Path) -> None:
    """Catches half a value model that loads, and errors that do not say which file is wrong."""
    model = with_head(copied_value_model(tiny("sdar")))

    def broken(part: str) -> Path:
        folder = tmp_path / part
        save_value_model(model, folder)
        return folder

    folder = broken("facts")
    (folder / HEAD_FACTS).unlink()
    with pytest.raises(ValueError, match=r"value_head.json is missing or lacks ids"):
        load_value_model(folder, dtype=torch.float32, device=CPU)
    folder = broken("head")
    (folder / HEAD_WEIGHTS).write_bytes(b"no")
    with pytest.raises(ValueError, match=r"value_head.safetensors is damaged"):
        load_value_model(folder, dtype=torch.float32, device=CPU)
    save_file({"value_head.weight": torch.zeros(7)}, folder / HEAD_WEIGHTS)
    with pytest.raises(ValueError, match=r"has shape \[7\], the backbone needs \[24\]"):
        load_value_model(folder, dtype=torch.float32, device=CPU)
    folder = broken("tensors")
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if n != "model.norm.weight"}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks 'model.norm.weight'"):
        load_value_model(folder, dtype=torch.float32, device=CPU)
    save_file({**tensors, "model.norm.weight": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.norm.weight has shape \[3\], config.json implies \[24\]"):
        load_value_model(folder, dtype=torch.float32, device=CPU)
    save_file({**tensors, "lm_head.weight": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"has 'lm_head.weight' beyond its backbone"):
        load_value_model(folder, dtype=torch.float32, device=CPU)
    with pytest.raises(ValueError, match=r"value_head.safetensors is missing: not a value model"):
        load_value_head(model.value_head, tmp_path)


def test_the_head_alone_is_saved_and_loaded(tmp_path: Path) -> None:
    """Catches a shared value model that writes the policy a second time."""
    model = with_head(ValueModel(tiny("sdar")))
    save_value_head(model, tmp_path / "critic")
    assert {p.name for p in (tmp_path / "critic").iterdir()} == {HEAD_WEIGHTS, HEAD_FACTS}
    other = ValueModel(tiny("sdar"))
    load_value_head(other.value_head, tmp_path / "critic")
    assert torch.equal(other.value_head.weight, model.value_head.weight)
