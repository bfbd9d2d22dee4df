"""Values of config.json: each one that cannot be gives one sentence before anything is made; null is absent."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from revelm.models.convert import Conversion, convert
from revelm.models.fields import flag, integer, integers, number
from revelm.models.kind import kind_of
from revelm.models.load import load_model, load_tokenizer, new_model, read_family, save_model
from revelm.models.rotary import Rope, rope_of
from tests.families import official, save_family, tiny

LINEAR, LLAMA3 = {"rope_type": "linear"}, {"rope_type": "llama3", "factor": 8.0}
STRETCHED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("sdar", {"hidden_size": "abc"}, r"hidden_size is 'abc', must be an integer of at least 1"),
    ("sdar", {"hidden_size": 24.0}, r"hidden_size is 24\.0, must be an integer"),
    ("sdar", {"hidden_size": 10**30}, r"sdar model has sizes that no tensor can have"),
    ("sdar", {"num_hidden_layers": "2"}, r"num_hidden_layers is '2', must be an integer from 1 to 1000"),
    ("sdar", {"num_hidden_layers": 200_000}, r"num_hidden_layers is 200000, must be an integer from 1 to 1000"),
    ("sdar", {"num_hidden_layers": 900}, r"config\.json implies 900 layers, the weights have 2"),
    ("sdar", {"vocab_size": None}, r"lacks the field 'vocab_size'"),
    ("sdar", {"vocab_size": True}, r"vocab_size is True, must be an integer"),
    ("sdar", {"num_attention_heads": 0}, r"num_attention_heads is 0, must be"),
    ("sdar", {"num_key_value_heads": -2}, r"num_key_value_heads is -2, must be"),
    ("sdar", {"num_key_value_heads": "2"}, r"num_key_value_heads is '2', must be"),
    ("sdar", {"num_key_value_heads": 3}, r"4 attention heads cannot share 3"),
    ("sdar", {"head_dim": 7}, r"7 dimensions of a head are rotated, must be an even number"),
    ("sdar", {"rms_norm_eps": "1e-6"}, r"rms_norm_eps is '1e-6', must be a number above 0"),
    ("sdar", {"rms_norm_eps": float("nan")}, r"rms_norm_eps is nan, must be a number above 0"),
    ("sdar", {"max_position_embeddings": None}, r"lacks the field 'max_position_embeddings'"),
    ("sdar", {"max_position_embeddings": "a"}, r"max_position_embeddings is 'a', must be"),
    ("sdar", {"tie_word_embeddings": "false"}, r"tie_word_embeddings is 'false', must be true or false"),
    ("sdar", {"attention_bias": 1}, r"attention_bias is 1, must be true or false"),
    ("sdar", {"block_size": True}, r"block_size is True, must be an integer of at least 1"),
    ("sdar", {"rope_theta": "x"}, r"rope_theta is 'x', must be a number above 0"),
    ("sdar", {"rope_theta": 1}, r"rope_theta is 1\.0, must be above 1"),
    ("sdar", {"rope_scaling": "linear"}, r"rope_scaling is 'linear', must be an object"),
    ("sdar", {"rope_scaling": LINEAR}, r"rope_scaling\.factor is missing; scaling of the type 'linear' needs it"),
    ("sdar", {"rope_scaling": LINEAR | {"factor": "a"}}, r"rope_scaling\.factor is 'a', must be a number"),
    ("sdar", {"rope_scaling": LLAMA3}, r"rope_scaling\.low_freq_factor is missing"),
    ("sdar", {"rope_scaling": STRETCHED | {"original_max_position_embeddings": 9}}, r"must be above low_freq_factor"),
    ("sdar", {"rope_scaling": {"type": "yarn"}}, r"rope_scaling\.factor is missing"),
    ("sdar", {"rope_scaling": {"type": ["yarn"]}}, r"rope_scaling has the type \['yarn'\], allowed: default"),
    ("sdar", {"rope_parameters": []}, r"rope_parameters is \[\], must be an object"),
    ("sdar", {"rope_parameters": {"a": LINEAR, "b": LINEAR}}, r"rope_parameters differ by kind of layer \(a, b\)"),
    ("sdar", {"rope_parameters": {"rope_theta": 7.0}}, r"rope_theta is 10000\.0, but 7\.0 in rope_parameters"),
    ("sdar", {"partial_rotary_factor": 0.5}, r"partial_rotary_factor is 0\.5, must be 1, as models of this type"),
    ("sdar", {"mask_token_id": True}, r"mask_token_id is True, must be an integer"),
    ("sdar", {"mask_token_id": "<|MASK|>"}, r"mask_token_id is '<\|MASK\|>', must be an integer"),
    ("sdar", {"mask_token_id": 46}, r"token id 46 is the mask and a stop token; make them two"),
    ("sdar", {"mask_token_id": 47}, r"token id 47 is the mask and a pad token; make them two"),
    ("sdar", {"eos_token_id": "x"}, r"eos_token_id is 'x', must be an integer"),
    ("sdar", {"eos_token_id": {"a": 1}}, r"eos_token_id is \{'a': 1\}, must be an integer"),
    ("sdar", {"eos_token_id": [3, None]}, r"eos_token_id is None, must be an integer"),
    ("sdar", {"pad_token_id": -2}, r"pad_token_id is -2, must be an integer of at least 0"),
    ("sdar_moe", {"decoder_sparse_step": 0}, r"decoder_sparse_step is 0, must be"),
    ("sdar_moe", {"mlp_only_layers": 1}, r"mlp_only_layers is 1, must be a list of integers"),
    ("sdar_moe", {"num_experts": None}, r"lacks the field 'num_experts'"),
    ("llada2_moe", {"num_experts": "8"}, r"num_experts is '8', must be"),
    ("llada2_moe", {"n_group": 3}, r"num_groups is 3, must divide num_experts"),
    ("llada2_moe", {"topk_group": "2"}, r"topk_group is '2', must be"),
    ("llada2_moe", {"first_k_dense_replace": -1}, r"first_k_dense_replace is -1, must be"),
    ("llada2_moe", {"routed_scaling_factor": 0}, r"routed_scaling_factor is 0, must be a number above 0"),
    ("llada2_moe", {"partial_rotary_factor": 2}, r"partial_rotary_factor is 2, must be at most 1"),
    ("llada", {"n_heads": 0}, r"n_heads is 0, must be an integer of at least 1"),
    ("llada", {"d_model": None}, r"lacks the field 'd_model'"),
    ("llada", {"n_layers": 5}, r"config\.json implies 5 layers, the weights have 2"),
    ("llada", {"rope": None}, r"rope is False, which is not supported"),
    ("llada", {"embedding_size": "50"}, r"embedding_size is '50', must be"),
    ("mmada", {"embedding_size": None, "new_vocab_size": "50"}, r"new_vocab_size is '50', must be"),
    ("llada_moe", {"moe_layer_freq": [1]}, r"moe_layer_freq has 1 entries for 2 layers"),
    ("llada_moe", {"moe_layer_freq": 1}, r"moe_layer_freq is 1, must be a list of integers"),
    ("llada_moe", {"architectures": 5}, r"architectures is 5; a model of type 'llada' needs one of"),
]
FINE: list[tuple[str, dict[str, Any]]] = [
    ("sdar", {"rms_norm_eps": None, "tie_word_embeddings": None, "rope_theta": None, "block_size": None}),
    ("sdar", {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10_000.0}}}),
    ("sdar", {"partial_rotary_factor": 1, "rope_scaling": None, "architectures": "SDARForCausalLM"}),
    ("sdar", {"pad_token_id": -1}),
    ("llada2_moe", {"use_qk_norm": False, "topk_group": 2, "partial_rotary_factor": None}),
    ("llada2_moe", {"routed_scaling_factor": None, "score_function": None, "use_qkv_bias": None}),
    ("llada", {"architectures": None, "n_kv_heads": None, "embedding_size": None, "rms_norm_eps": None}),
    ("llada_moe", {"architectures": None, "moe_layer_freq": None, "partial_rotary_factor": None}),
    ("mmada", {"embedding_size": 44, "vocab_size": 44}),
    ("mmada", {"embedding_size": None, "vocab_size": 44}),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(family, fields) -> the family's tiny checkpoint with these fields in its config.json."""
    root = tmp_path_factory.mktemp("families")

    def make(name: str, changes: dict[str, Any]) -> Path:
        if not (root / name).is_dir():
            save_model(tiny(name), root / name)
        folder = root / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(root / name, folder)
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        return folder

    return make


@pytest.mark.parametrize(("name", "changes", "message"), BAD, ids=str)
def test_a_bad_value_gives_one_sentence(
    name: str,
    changes: dict[str, Any],
    message: str,
    checkpoint: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches a traceback, a value that is taken for another, and memory that is spent before the config is read."""
    monkeypatch.setattr("revelm.models.load._fill", lambda *_, **__: pytest.fail("memory was spent"))
    folder = checkpoint(name, changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(folder)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("name", "changes"), FINE, ids=str)
def test_null_is_absent_and_what_changes_nothing_is_accepted(
    name: str, changes: dict[str, Any], checkpoint: Callable[..., Path]
) -> None:
    """Catches a release that is refused for a field its own code ignores, or for a null."""
    model = load_model(checkpoint(name, changes))
    assert model.family.vocab_size == 50
    with torch.no_grad():
        assert model(torch.arange(8)[None]).isfinite().all()
    if changes.get("pad_token_id") == -1:
        assert model.family.pad_id == 46


def test_layers_are_counted_before_any_is_made(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a thousand layers that are built to find that the files have two."""
    folder = checkpoint("llada", {"n_layers": 900})
    monkeypatch.setattr("revelm.models.load.LanguageModel", lambda *_: pytest.fail("a model was made"))
    with pytest.raises(ValueError, match="implies 900 layers, the weights have 2"):
        load_model(folder)


def test_families_of_one_type_are_told_apart_by_their_fields() -> None:
    """Catches LLaDA's layout refused because a tool dropped ``architectures``."""
    for name in ("llada", "llada_moe"):
        config = official(name)
        del config["architectures"]
        assert kind_of(config).name == name
    for changes in ({"architectures": "LLaDAModelLM"}, {"architectures": None, "num_experts": 3}):
        with pytest.raises(ValueError, match="needs one of 'LLaDAModelLM', 'LLaDAMoEModelLM'"):
            kind_of(official("llada", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_token_id": 3}, r"mask_token_id in config\.json is 3, the tokenizer's mask '<\|mask\|>' has the id 1"),
        ({"eos_token_id": [5, 1]}, "token id 1 is the mask and a stop token"),
        ({"pad_token_id": 1}, "token id 1 is the mask and a pad token"),
    ],
)
def test_files_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Catches a model that hides places with a token which ends or pads texts, or which its tokenizer reads as text."""
    folder = save_family("sdar", tmp_path)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    for read in (load_model, read_family):
        with pytest.raises(ValueError, match=message):
            read(folder)


def test_an_ordinary_token_is_no_mask(tmp_path: Path) -> None:
    """Catches a mask that is a letter of the alphabet, where the tokenizer has no mask to contradict it."""
    folder = save_family("sdar", tmp_path / "sdar")
    assert load_tokenizer(folder).mask_token_id == 1
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = folder / name
        if file.is_file():
            words = json.loads(file.read_text())
            words.pop("mask_token", None)
            file.write_text(json.dumps(words))
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"mask_token_id": 100}))
    with pytest.raises(ValueError, match="is 100, which is the ordinary token"):
        load_model(folder)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"mask_token_id": "<|mask|>"}))
    for read in (load_tokenizer, load_model, lambda place: convert(place, tmp_path / "out", Conversion())):
        with pytest.raises(ValueError, match=r"mask_token_id is '<\|mask\|>', must be an integer"):
            read(folder)


def test_a_model_without_padding_never_pads_with_the_mask() -> None:
    """Catches a fallback that makes the padding look like places to fill in."""
    for mask, pad in ((0, 1), (48, 0)):
        config = official("sdar", mask_token_id=mask, pad_token_id=None, eos_token_id=None)
        assert new_model(config, seed=0).family.pad_id == pad


def test_an_empty_path_is_said() -> None:
    """Catches the working directory taken for a model."""
    for read in (load_model, read_family):
        with pytest.raises(ValueError, match="the model path is empty"):
            read("")


def test_readers() -> None:
    """Catches a null that hides a default, a default that hides an error, and a list of the wrong things."""
    assert integer({"a": None}, "a", default=4) == 4
    assert number({"a": 3}, "a") == 3
    assert flag({"a": False}, "a", default=True) is False
    assert integers({"a": [0, 2]}, "a", default=()) == [0, 2]
    for read in (partial(integer, {}, "a"), partial(number, {"a": None}, "a")):
        with pytest.raises(KeyError, match="a"):
            read()
    for value in (0, -1, "1", True, float("inf"), [1]):
        with pytest.raises(ValueError, match=r"config\.json: a is .*, must be a number above 0"):
            number({"a": value}, "a", default=1.0)
    with pytest.raises(ValueError, match=r"a\[1\] is 'x', must be an integer"):
        integers({"a": [1, "x"]}, "a", default=())


def test_rotary_settings_that_cannot_be() -> None:
    """Catches frequencies of an odd number of dimensions, and infinite ones."""
    assert rope_of({"rope_theta": 1e4}, 8, partial=0.5) == Rope(dim=4, theta=1e4)
    for changes in ({"dim": 5}, {"dim": 0}, {"theta": 0.5}, {"factor": 0.0}, {"theta": float("inf")}):
        with pytest.raises(ValueError, match="must be"):
            Rope(**({"dim": 4, "theta": 1e4} | changes))
