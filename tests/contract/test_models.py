"""What every model family promises. A family in the registry is enrolled; only its tiny config is written by hand."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from revelm.core import registry
from revelm.core.grid import block_of
from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.engine.reference import decode_naively
from revelm.models.language_model import LanguageModel
from revelm.models.load import load_model, official_state, save_model
from revelm.models.names import NameTable
from revelm.models.sdar import SDAR
from tests import families
from tests.families import CONFIGS
from tests.models import assert_same, mixed_requests, sharpened
from tests.official_layouts import LAYOUTS

LENGTH = 13


@dataclass(frozen=True)
class Renamed(SDAR):
    """A family as a user would add it: other names on disk, another default block size."""

    name: str = "renamed"
    model_type: str = "renamed"
    architecture: str = "RenamedForCausalLM"
    names: NameTable = (("transformer.", "decoder."), ("output.", "lm_head."))


def tiny(name: str) -> LanguageModel:
    """A float64 model of the family with sharp weights."""
    return sharpened(families.tiny(name).double())


def check_layout_is_the_official_one(name: str, folder: Path) -> None:
    """Names and shapes on disk are those of the releases, in one file or in shards."""
    model = families.tiny(name)
    save_model(model, folder / "one")
    save_model(model, folder / "many", max_shard_size=3000)
    whole = load_file(folder / "one" / "model.safetensors")
    assert (folder / "many" / "model.safetensors.index.json").is_file()
    shards: dict[str, torch.Tensor] = {}
    for file in (folder / "many").glob("model-*-of-*.safetensors"):
        shards |= load_file(file)
    assert len(list((folder / "many").glob("*.safetensors"))) > 2
    if name in LAYOUTS:
        assert {key: tuple(tensor.shape) for key, tensor in whole.items()} == LAYOUTS[name]
    assert whole.keys() == shards.keys()
    assert all(torch.equal(whole[key], shards[key]) for key in whole)


def check_round_trip_is_byte_identical(name: str, folder: Path) -> None:
    """load -> save gives the same bytes per tensor and the same fields, for every stored dtype and from shards."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model, place = families.tiny(name).to(dtype), folder / str(dtype)
        save_model(model, place / "a", max_shard_size=5000)
        loaded = load_model(place / "a", dtype="auto")
        assert loaded.dtype == dtype
        assert loaded.family == model.family
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, loaded.state_dict()[key]), key
        save_model(loaded, place / "b", max_shard_size=5000)
        for file in (place / "a").iterdir():
            assert file.read_bytes() == (place / "b" / file.name).read_bytes(), file.name


def check_cached_equals_uncached(name: str, folder: Path) -> None:
    """The engine gives what the oracle gives: with every cache a block family has, with full recompute for all."""
    model = tiny(name)
    if model.family.attention == "causal":
        return
    prompts, settings = mixed_requests(Static(2), range(1, 6))
    modes: tuple[dict[str, Any], ...] = ({"cache": "none"},)
    if model.family.attention == "block":
        modes = (*modes, {"cache": "exact", "commit": "fused"}, {"cache": "exact", "commit": "separate"})
    expected = [decode_naively(model, p, s) for p, s in zip(prompts, settings, strict=True)]
    for mode in modes:
        for record, truth in zip(Engine(model, num_slots=6, **mode).generate(prompts, settings), expected, strict=True):
            assert_same(record, truth, forward=mode.get("commit") != "separate")


def check_declared_attention_is_true(name: str, folder: Path) -> None:
    """Perturb one token and look who notices: exactly those that the declaration says see it."""
    model = tiny(name)
    family, places = model.family, torch.arange(LENGTH)
    size = {"full": LENGTH, "causal": 1, "block": family.block_size}[family.attention]
    source = (places - int(family.is_shifted)).clamp(min=0)
    tokens = torch.randint(0, 40, (1, LENGTH), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = model.body(tokens, places[None], None)
        for j in range(LENGTH):
            other = tokens.clone()
            other[0, j] = (tokens[0, j] + 1) % 40
            change = (model.body(other, places[None], None) - before).abs().amax(-1)[0]
            sees = block_of(source, size) >= block_of(j, size)
            assert torch.equal(change > 1e-9, sees)
            assert float(change[~sees].sum()) < 1e-12


def check_logits_are_aligned(name: str, folder: Path) -> None:
    """``logits[:, i]`` is about token i. With mute layers and the embedding as head, a row says what its network row
    was given: token i itself, or for shifted families token i - 1."""
    model = tiny(name)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.removesuffix(".weight").endswith(("o_proj", "down_proj")):
                parameter.zero_()
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
    if family.attention != "causal":
        assert family.mask_id in family.banned_ids
    assert family.mask_id not in family.stop_ids
    assert all(0 <= i < family.vocab_size for i in (*family.banned_ids, family.pad_id, *family.stop_ids))
    assert (family.block_size is not None) == (family.attention == "block")


CHECKS = (
    check_layout_is_the_official_one,
    check_round_trip_is_byte_identical,
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


def test_every_family_has_its_official_layout_written_down() -> None:
    """Catches a family that is added without saying what its releases look like."""
    assert set(LAYOUTS) == set(CONFIGS) == set(registry.names("models"))


def test_a_new_family_is_enrolled_by_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches checks that know their subjects by name: a family from outside runs through the same ones."""
    monkeypatch.setitem(registry.MODELS, "renamed", f"{__name__}:Renamed")
    monkeypatch.setattr(families, "CONFIGS", {**CONFIGS, "renamed": CONFIGS["sdar"]})
    assert "renamed" in registry.names("models")
    for check in CHECKS:
        check("renamed", tmp_path / check.__name__)
    assert set(official_state(tiny("renamed"))) > {"output.weight", "transformer.norm.weight"}


@pytest.mark.parametrize("check", [check_declared_attention_is_true, check_logits_are_aligned])
def test_a_false_declaration_fails_the_checks(check: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches checks that pass whatever they are given."""
    monkeypatch.setitem(registry.MODELS, "renamed", f"{__name__}:Renamed")
    monkeypatch.setattr(families, "CONFIGS", {**CONFIGS, "renamed": CONFIGS["sdar"]})
    model = tiny("renamed")
    monkeypatch.setattr(f"{__name__}.tiny", lambda name: lied(model))
    with pytest.raises(AssertionError):
        check("renamed", tmp_path)


def lied(model: LanguageModel) -> LanguageModel:
    """``model`` with facts that its forward does not follow: the body keeps what the weights were made with."""
    told = replace(model.family, attention="causal", is_shifted=not model.family.is_shifted)
    body, true = model.body, model.family

    def honest(*arguments: Any) -> torch.Tensor:
        model.family = true
        try:
            return body(*arguments)
        finally:
            model.family = told

    object.__setattr__(model, "body", honest)
    model.family = told
    return model
