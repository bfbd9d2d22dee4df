"""Checkpoints: official names and layout, both directions, and what is said about broken ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from revelm.masks.visibility import Pattern
from revelm.models.kind import kind_of
from revelm.models.language_model import LanguageModel
from revelm.models.load import checkpoint_path, load_model, new_model, official_state, save_model
from tests.models import sharpened, tiny_config

LAYER = "model.layers.0."
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj")
NAMES = {
    *("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"),
    *(f"{LAYER}self_attn.{name}.weight" for name in (*MATRICES, "q_norm", "k_norm")),
    *(f"{LAYER}mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
    *(f"{LAYER}{name}_layernorm.weight" for name in ("input", "post_attention")),
}


def saved(folder: Path, *, seed: int = 0, **changes: Any) -> LanguageModel:
    """A one-layer model, also written to ``folder``."""
    model = new_model(tiny_config(num_hidden_layers=1, **changes), seed=seed)
    save_model(model, folder)
    return model


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("tied", [False, True])
def test_a_saved_model_is_loaded_to_the_byte(tied: bool, tmp_path: Path) -> None:
    """Catches tensors that are swapped, cast or left at their initial values, and a tied head that comes apart."""
    model = saved(tmp_path, tie_word_embeddings=tied)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == NAMES - ({"lm_head.weight"} if tied else set())
    loaded = load_model(tmp_path)
    assert loaded.family == model.family
    for name, tensor in model.state_dict().items():
        assert tensor.numpy().tobytes() == loaded.state_dict()[name].numpy().tobytes()
    assert (loaded.lm_head.weight is loaded.decoder.embed_tokens.weight) == tied
    save_model(loaded, tmp_path / "again")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["architectures"], config["block_size"], config["dtype"]) == (["SDARForCausalLM"], 4, "float32")
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(model(tokens), loaded(tokens))


def test_shards_are_found_through_the_index(tmp_path: Path) -> None:
    """Catches a loader that reads one file only, and an index that promises what no shard holds."""
    model = saved(tmp_path)
    tensors = sorted(official_state(model).items())
    (tmp_path / "model.safetensors").unlink()
    index: dict[str, Any] = {"metadata": {}, "weight_map": {}}
    for i, part in enumerate((tensors[::2], tensors[1::2])):
        file = f"model-{i + 1:05d}-of-00002.safetensors"
        save_file(dict(part), tmp_path / file)
        index["weight_map"] |= dict.fromkeys(dict(part), file)
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, load_model(tmp_path).state_dict()[name])
    moved = dict.fromkeys(index["weight_map"], file)
    path.write_text(json.dumps({"weight_map": moved}))
    with pytest.raises(ValueError, match=r"00002-of-00002\.safetensors lacks '.*', which model\.safetensors"):
        load_model(tmp_path)
    path.write_text(json.dumps(index))
    (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=r"index\.json names model-00002-of-00002\.safetensors, which is missing"):
        load_model(tmp_path)
    for broken in ("{", "[]", "{}", '{"weight_map": 3}'):
        path.write_text(broken)
        with pytest.raises(ValueError, match=r"index\.json is not an index of tensor names"):
            load_model(tmp_path)


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])


def rewrite_header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of the weights, with the data as it is."""
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    found = json.dumps(header).encode()
    file.write_bytes(len(found).to_bytes(8, "little") + found + content[8 + length :])


def split_without_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json is missing: .*half written"),
    "config not JSON": (lambda f: (f / "config.json").write_text("{"), r"config\.json is not valid JSON"),
    "config not an object": (lambda f: (f / "config.json").write_text("[]"), r"config\.json holds a list"),
    "config without a size": (
        lambda f: edit_json(f / "config.json", lambda c: c.pop("hidden_size")),
        r"config\.json of a sdar model lacks the field 'hidden_size'",
    ),
    "no such kind": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(model_type="sdarr")),
        r"config\.json: model_type 'sdarr' is not known; did you mean 'sdar'\?.*known: Dream, .*sdar, sdar_moe",
    ),
    "no mask token": (
        lambda f: edit_json(f / "config.json", lambda c: c.pop("mask_token_id")),
        r"FOLDER.*no mask token: neither config\.json .* nor the tokenizer has one; .*revelm convert",
    ),
    "mask outside": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(mask_token_id=50)),
        r"mask token id 50 lies outside the vocabulary of 50",
    ),
    "no block size": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(block_size=0)),
        r"config\.json: block_size is 0, must be an integer of at least 1",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors is missing: .*half written"),
    "weights cut off": (cut, r"model\.safetensors is damaged or truncated"),
    "weights empty": (lambda f: (f / "model.safetensors").write_bytes(b""), r"model\.safetensors is damaged"),
    "tensor missing": (
        lambda f: edit_tensors(f, lambda t: t.pop(f"{LAYER}self_attn.q_proj.weight")),
        r"FOLDER.* lacks 1 of 14 tensors, the first is 'model\.layers\.0\.self_attn\.q_proj\.weight'",
    ),
    "tensor too many": (
        lambda f: edit_tensors(f, lambda t: t.update({"model.extra": torch.zeros(1)})),
        r"FOLDER.* has 1 tensors that its config does not, such as 'model\.extra'",
    ),
    "a shard of another model": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../x.safetensors"}}'),
        r"index\.json names the shard '\.\./x\.safetensors', expected the name of a file beside it",
    ),
    "header not JSON": (
        lambda f: (f / "model.safetensors").write_bytes((9).to_bytes(8, "little") + b"{" * 60),
        r"model\.safetensors is damaged or truncated \(its header is not readable\)",
    ),
    "shards without an index": (
        split_without_index,
        r"model\.safetensors\.index\.json is missing, although the weights are in several files",
    ),
    "weights that git left out": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
        r"model\.safetensors is a placeholder of git-lfs, .* run `git lfs pull`",
    ),
    "a config that git left out": (
        lambda f: (f / "config.json").write_text("version https://git-lfs.github.com/spec/v1\n"),
        r"config\.json is a placeholder of git-lfs",
    ),
    "a header of brackets": (
        lambda f: (f / "model.safetensors").write_bytes((90_000).to_bytes(8, "little") + b"[" * 90_000),
        r"model\.safetensors is damaged or truncated \(its header is not readable\)",
    ),
    "weights of another format": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        r"has pytorch_model\.bin but no model\.safetensors; only safetensors are read",
    ),
    "eight-bit weights": (
        lambda f: edit_tensors(f, lambda t: t.update({k: v.to(torch.float8_e4m3fn) for k, v in t.items()})),
        r"model\.safetensors holds quantised weights \(F8_E4M3\), which are not supported",
    ),
    "a quantised config": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(quantization_config={"quant_method": "gptq"})),
        r"config\.json: the checkpoint is quantised \(gptq\), which is not supported",
    ),
    "heads that cannot share": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(num_key_value_heads=3)),
        r"4 attention heads cannot share 3 key/value heads evenly",
    ),
    "another activation": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(hidden_act="gelu")),
        r"config\.json: hidden_act is 'gelu', which is not supported; allowed: 'silu'",
    ),
    "a sliding window": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(use_sliding_window=True)),
        r"config\.json: use_sliding_window is True, which is not supported",
    ),
    "rope of an unknown kind": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(rope_scaling={"rope_type": "longrope"})),
        r"rope_scaling has the type 'longrope', allowed: default, linear, llama3, yarn",
    ),
    "biases that the config denies": (
        lambda f: edit_tensors(f, lambda t: t.update({f"{LAYER}self_attn.q_proj.bias": torch.zeros(32)})),
        r"has 1 tensors that its config does not, such as 'model\.layers\.0\.self_attn\.q_proj\.bias'",
    ),
    "wrong shape": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(intermediate_size=41)),
        r"model\.safetensors: model\.layers\.0\.mlp\.\w+\.weight has shape \[.*40.*\], .* implies \[.*41.*\]",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_checkpoint_gives_one_error_that_names_the_file(case: str, tmp_path: Path) -> None:
    """Catches a traceback from inside a library, or a model that runs on with random weights."""
    folder = tmp_path / "FOLDER"
    saved(folder)
    damage, message = BROKEN[case]
    damage(folder)
    with pytest.raises(ValueError, match=message):
        load_model(folder)


HEADERS: dict[str, dict[str, Any]] = {
    "a negative offset": {"data_offsets": [-96, 0]},
    "an offset that is no whole number": {"data_offsets": [0.0, 96.0]},
    "an offset that is a truth": {"data_offsets": [False, 96]},
    "three offsets": {"data_offsets": [0, 48, 96]},
    "an end before the beginning": {"data_offsets": [192, 96]},
    "an end behind the file": {"data_offsets": [10**9, 10**9 + 96]},
    "the bytes of another tensor": {"data_offsets": [96, 192]},
    "more bytes than the shape": {"shape": [23]},
    "a shape that is text": {"shape": "24"},
    "a shape of texts": {"shape": ["24"]},
    "a shape of fractions": {"shape": [24.0]},
    "a negative shape": {"shape": [-4, -6]},
    "a shape that no number holds": {"shape": [1 << 40, 1 << 40]},
    "no dtype": {"dtype": None},
    "a list as dtype": {"dtype": []},
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_damaged_header_is_one_sentence(case: str, tmp_path: Path) -> None:
    """Catches weights read from the wrong place, a traceback from arithmetic on text, and terabytes asked for."""
    saved(tmp_path)
    rewrite_header(tmp_path, lambda header: header["model.norm.weight"].update(HEADERS[case]))
    message = "holds numbers of an unknown kind" if case == "no dtype" else "is damaged or truncated"
    with pytest.raises(ValueError, match=rf"model\.safetensors {message} .*"):
        load_model(tmp_path)


@pytest.mark.parametrize("method", [{}, None])
def test_an_empty_quantization_config_means_none(method: object, tmp_path: Path) -> None:
    """Catches checkpoints in full precision refused for a field that other tools leave empty."""
    saved(tmp_path)
    edit_json(tmp_path / "config.json", lambda c: c.update(quantization_config=method))
    assert load_model(tmp_path).dtype == torch.float32


def test_nothing_is_allocated_for_a_broken_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a loader that fills memory with the first shards before it finds the last one damaged."""
    save_model(new_model(tiny_config(), seed=0), tmp_path, max_shard_size=4000)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    shards[-1].write_bytes(shards[-1].read_bytes()[:-8])
    monkeypatch.setattr("revelm.models.load._fill", lambda *_, **__: pytest.fail("memory was spent"))
    with pytest.raises(ValueError, match=rf"{shards[-1].name} is damaged or truncated \(.* ends at byte"):
        load_model(tmp_path)


def test_weights_that_do_not_fit_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches the out-of-memory killer as the only message."""
    saved(tmp_path)
    monkeypatch.setattr("revelm.models.load.available_bytes", lambda: 1000)
    with pytest.raises(ValueError, match=r"the weights need .* KiB, cpu has 1000 B free; load with dtype='bfloat16'"):
        load_model(tmp_path)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("wanted", ["auto", "float32", "bfloat16", "float64"])
def test_stored_and_wanted_dtypes_are_independent(stored: torch.dtype, wanted: str, tmp_path: Path) -> None:
    """Catches bytes read as another dtype, and conversions that skip a chunk."""
    model = new_model(tiny_config(), seed=0).to(stored)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path, dtype=wanted)
    target = stored if wanted == "auto" else getattr(torch, wanted)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.to(target))


def test_conversion_works_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a chunked reader that loses its place."""
    monkeypatch.setattr("revelm.models.shards.CHUNK_BYTES", 52)
    model = saved(tmp_path)
    for name, tensor in load_model(tmp_path, dtype="bfloat16").state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].bfloat16())


def test_a_tied_head_that_is_also_stored_must_be_the_embedding(tmp_path: Path) -> None:
    """Catches a config that says tied over weights that are not: the stored head would be thrown away."""
    model = saved(tmp_path, tie_word_embeddings=True)
    edit_tensors(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert torch.equal(load_model(tmp_path).lm_head.weight, model.lm_head.weight)
    edit_tensors(tmp_path, lambda t: t["lm_head.weight"].add_(1))
    with pytest.raises(ValueError, match=r"tie_word_embeddings is true, but lm_head\.weight .* differs"):
        load_model(tmp_path)


def test_files_beside_the_weights_go_with_the_model(tmp_path: Path) -> None:
    """Catches a save that other tools cannot open: the modelling code and generation settings of the release lost."""
    saved(tmp_path / "a")
    edit_json(tmp_path / "a" / "config.json", lambda c: c.update(auto_map={"AutoModel": "modeling_sdar.SDARModel"}))
    (tmp_path / "a" / "modeling_sdar.py").write_text("raise SystemExit('never run')")
    (tmp_path / "a" / "generation_config.json").write_text('{"eos_token_id": [46, 45]}')
    model = load_model(tmp_path / "a")
    assert model.family.stop_ids == (46, 45)
    save_model(model, tmp_path / "b")
    for file in ("modeling_sdar.py", "generation_config.json"):
        assert (tmp_path / "b" / file).read_bytes() == (tmp_path / "a" / file).read_bytes()


def test_two_families_of_one_model_type_are_told_apart(tmp_path: Path) -> None:
    """Catches LLaDA-MoE read as LLaDA: both call themselves llada."""
    assert kind_of({"model_type": "llada", "architectures": ["LLaDAModelLM"]}).name == "llada"
    assert kind_of({"model_type": "llada", "architectures": ["LLaDAMoEModelLM"]}).name == "llada_moe"
    with pytest.raises(ValueError, match=r"architectures is \['Other'\]; a model of type 'llada' needs one of"):
        kind_of({"model_type": "llada", "architectures": ["Other"]})


def test_unknown_folders_and_dtypes_are_refused(tmp_path: Path) -> None:
    """Catches a KeyError for a typing mistake."""
    with pytest.raises(ValueError, match=r"model path '.*nowhere' is not a directory"):
        load_model(tmp_path / "nowhere")
    saved(tmp_path)
    with pytest.raises(ValueError, match=r"dtype is 'fp8', allowed: float32, float64, bfloat16, float16"):
        load_model(tmp_path, dtype="fp8")


def test_latest_leads_to_the_last_checkpoint(tmp_path: Path) -> None:
    """Catches a run directory that cannot be used as a model path, and a pointer to nothing or to itself."""
    model = saved(tmp_path / "rl" / "checkpoint-20")
    (tmp_path / "LATEST").write_text("rl\n")
    (tmp_path / "rl" / "LATEST").write_text("checkpoint-20\n")
    assert checkpoint_path(tmp_path) == tmp_path / "rl" / "checkpoint-20"
    assert torch.equal(load_model(tmp_path).lm_head.weight, model.lm_head.weight)
    for name in ("checkpoint-30", "", "."):
        (tmp_path / "rl" / "LATEST").write_text(name)
        with pytest.raises(ValueError, match=r"LATEST names .*; the run directory is incomplete"):
            load_model(tmp_path)


def test_rotary_angles_survive_a_cast_of_the_model() -> None:
    """Catches rotary frequencies rounded to bfloat16 with the weights: far positions would be turned by radians."""
    model = new_model(tiny_config(), seed=0)
    positions = torch.tensor([[0, 1, 200, 30_000]])
    expected = model.decoder.rotary(positions, torch.float32)
    for dtype in (torch.bfloat16, torch.float64):
        for one, other in zip(model.to(dtype).decoder.rotary(positions, torch.float32), expected, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True}, {"attention_bias": True}], ids=str)
def test_the_causal_backbone_is_qwen3(changes: dict[str, Any], tmp_path: Path) -> None:
    """Catches a wrong norm, rotary convention, head grouping or name: an official checkpoint would load and babble."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = tiny_config(block_size=1, rope_theta=5000.0, **changes)
    sizes = {k: v for k, v in config.items() if k not in ("model_type", "block_size", "mask_token_id", "rope_theta")}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}
    torch.manual_seed(0)
    theirs = Qwen3ForCausalLM(Qwen3Config(**sizes, **rope, attn_implementation="eager")).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0.5, 0.3) if parameter.ndim == 1 else parameter.mul_(8)
    theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours = load_model(tmp_path)
    tokens = torch.randint(0, 46, (2, 60), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(tokens).logits
        torch.testing.assert_close(ours(tokens), expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.3
    save_model(ours, tmp_path / "ours")
    back = Qwen3ForCausalLM.from_pretrained(tmp_path / "ours", config=theirs.config)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor)


def test_body_and_head_compose_to_the_forward() -> None:
    """Catches default positions or a default pattern that differ from the family's."""
    model = sharpened(new_model(tiny_config(), seed=0))
    tokens, positions = torch.arange(10)[None], torch.arange(10)[None]
    zeros = torch.zeros_like(positions)
    with torch.no_grad():
        features = model.body(tokens, positions, Pattern(zeros, positions // 4, zeros))
        torch.testing.assert_close(model(tokens), model.head(features), rtol=0, atol=0)
