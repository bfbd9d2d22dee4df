"""What every model family promises. A family in the registry is enrolled; nothing here names one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from revelm.core import registry
from revelm.core.grid import block_of
from revelm.core.types import Family
from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.engine.reference import decode_naively
from revelm.models.language_model import LanguageModel
from revelm.models.load import load_model, new_model, official_state, save_model
from revelm.models.sdar import SDAR
from tests.models import assert_same, mixed_requests, sharpened, tiny_config

LENGTH = 13


@dataclass(frozen=True)
class Renamed(SDAR):
    """A family as a user would add it: other names on disk, another default block size."""

    model_type: str = "renamed"
    architecture: str = "RenamedForCausalLM"
    names: tuple[tuple[str, str], ...] = (("transformer.", "decoder."), ("output.", "lm_head."))

    def family(self, config: Mapping[str, Any], special_ids: Mapping[str, Any]) -> Family:
        return replace(super().family(config, special_ids), name=self.model_type)


@dataclass(frozen=True)
class Untrue(Renamed):
    """A broken family: it declares a shift that its weights do not have."""

    def family(self, config: Mapping[str, Any], special_ids: Mapping[str, Any]) -> Family:
        return replace(super().family(config, special_ids), is_shifted=True)


def tiny(name: str) -> LanguageModel:
    """A float64 model of the family from the tiny configuration."""
    kind = registry.build("models", name)
    return sharpened(new_model(tiny_config(model_type=kind.model_type), seed=1).double())


def check_saves_and_loads_under_official_names(name: str, folder: Path) -> None:
    """What is written carries the family's own names and loads to the same bits."""
    model, kind = tiny(name), registry.build("models", name)
    save_model(model, folder)
    loaded = load_model(folder, dtype="float64")
    assert loaded.family == model.family
    prefixes = tuple(official for official, _ in kind.names)
    assert all(key.startswith(prefixes) for key in official_state(model))
    assert len(official_state(model)) == len(model.state_dict())
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key])


def check_cached_equals_uncached(name: str, folder: Path) -> None:
    """The engine's cache changes nothing (families that are decoded block by block)."""
    model = tiny(name)
    if model.family.attention != "block":
        return
    prompts, settings = mixed_requests(Static(2), range(1, 6))
    for commit in ("fused", "separate"):
        for i, record in enumerate(Engine(model, num_slots=6, commit=commit).generate(prompts, settings)):
            assert_same(record, decode_naively(model, prompts[i], settings[i]), forward=commit == "fused")


def check_declared_attention_is_true(name: str, folder: Path) -> None:
    """Perturb one token and look who notices: exactly those that the declaration says see it."""
    model = tiny(name)
    family, places = model.family, torch.arange(LENGTH)
    size = {"full": LENGTH, "causal": 1, "block": family.block_size}[family.attention]
    tokens = torch.randint(0, 40, (1, LENGTH), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = model.body(tokens, places[None], None)
        for j in range(LENGTH):
            other = tokens.clone()
            other[0, j] = (tokens[0, j] + 1) % 40
            noticed = (model.body(other, places[None], None) - before).abs().amax(-1)[0] > 1e-9
            assert torch.equal(noticed, block_of(places, size) >= block_of(j, size))


def check_logits_are_aligned(name: str, folder: Path) -> None:
    """``logits[:, i]`` is about token i. With mute layers and the embedding as head, a row says what its network row
    was given: token i itself, or for shifted families token i - 1."""
    model = tiny(name)
    with torch.no_grad():
        for layer in model.decoder.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        rows = torch.nn.functional.normalize(model.decoder.embed_tokens.weight, dim=-1)
        model.decoder.embed_tokens.weight.copy_(rows)
        model.lm_head.weight.copy_(rows)
        tokens = torch.arange(LENGTH)[None] * 3 % 40
        said = model(tokens).argmax(-1)
    shift = int(model.family.is_shifted)
    assert torch.equal(said[:, shift:], tokens[:, : LENGTH - shift])


def check_facts_are_consistent(name: str, folder: Path) -> None:
    """Ids lie in the vocabulary, the mask is banned and no stop, and the registry's name is the record's."""
    family = tiny(name).family
    assert family.name == name
    assert family.mask_id in family.banned_ids
    assert family.mask_id not in family.stop_ids
    assert all(0 <= i < family.vocab_size for i in (family.mask_id, family.pad_id, *family.stop_ids))
    assert (family.block_size is not None) == (family.attention == "block")


CHECKS = (
    check_saves_and_loads_under_official_names,
    check_cached_equals_uncached,
    check_declared_attention_is_true,
    check_logits_are_aligned,
    check_facts_are_consistent,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", registry.names("models"))
def test_registered_families_keep_their_promises(name: str, check: Any, tmp_path: Path) -> None:
    """Catches a family whose names, attention, shift or cache are not what its file declares."""
    check(name, tmp_path)


def test_a_new_family_is_enrolled_by_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches checks that know their subjects by name: a family from outside runs through the same ones."""
    monkeypatch.setitem(registry.MODELS, "renamed", f"{__name__}:Renamed")
    assert "renamed" in registry.names("models")
    for check in CHECKS:
        check("renamed", tmp_path / check.__name__)
    assert set(official_state(tiny("renamed"))) > {"output.weight", "transformer.norm.weight"}


def test_a_false_declaration_fails_the_checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches checks that pass whatever they are given."""
    monkeypatch.setitem(registry.MODELS, "renamed", f"{__name__}:Untrue")
    with pytest.raises(AssertionError):
        check_logits_are_aligned("renamed", tmp_path)
