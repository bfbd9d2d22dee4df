"""Conversion: what is asked for changes, everything else stays byte for byte, and nothing half-done is left behind."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from revelm.cli.main import main
from revelm.core.registry import build, names
from revelm.data.tokenizer import build_tiny_tokenizer, encode_chat, save_tokenizer
from revelm.decoding.sampling import Sampling
from revelm.engine.generate import generate
from revelm.models.convert import Conversion, convert
from revelm.models.load import load_model, load_tokenizer, official_state, save_model
from revelm.models.lora import LoraSpec, add_lora, merge_lora, save_adapter
from revelm.models.translate import compatible
from revelm.trainers import sft
from revelm.trainers.config import SFTConfig
from tests.families import CONFIGS, official, save_family, tiny
from tests.file_limit import largest_file

CHAIN = {"kind": "chain", "num_train": 20, "num_test": 2, "num_operations": [2, 2]}
TARGETS = {"qwen2": "dream", "qwen3": "sdar", "qwen3_moe": "sdar_moe", "llama": "llada"}


def save_source(name: str, folder: Path, *, rows: int = 262, **changes: Any) -> Path:
    """An autoregressive checkpoint whose tokenizer (262 entries) has no mask token."""
    tokenizer = build_tiny_tokenizer([], 262)
    words = json.loads(tokenizer.backend_tokenizer.to_str())
    text = json.dumps(words).replace("<|mask|>", "<|word|>")
    tokenizer._tokenizer = tokenizer._tokenizer.from_str(text)
    tokenizer.mask_token = None
    save_model(tiny(name, vocab_size=rows, pad_token_id=0, eos_token_id=2, **changes), folder)
    save_tokenizer(tokenizer, folder)
    return folder


def weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint as stored."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        found |= load_file(file)
    return found


def same_bytes(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("is_tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize(("source", "target"), TARGETS.items(), ids=TARGETS)
def test_autoregressive_becomes_diffusion(source: str, target: str, is_tied: bool, tmp_path: Path) -> None:
    """Catches weights touched on the way, a mask row that is not the mean, and a config that contradicts the files."""
    start = save_source(source, tmp_path / "start", tie_word_embeddings=is_tied)
    done = convert(start, tmp_path / "out", Conversion(to=target))
    before, model = load_model(start), load_model(tmp_path / "out")
    tokenizer = load_tokenizer(tmp_path / "out")
    family = model.family
    assert (family.name, family.vocab_size) == (target, 263)
    assert family.mask_id == 262 == tokenizer.mask_token_id == config_of(tmp_path / "out")["mask_token_id"]
    assert done.family == family
    old, new = before.state_dict(), model.state_dict()
    for name, tensor in new.items():
        if name in ("lm_head.weight", "decoder.embed_tokens.weight"):
            assert same_bytes(tensor[:262], old[name]), name
            torch.testing.assert_close(tensor[262], old[name].mean(0))
        else:
            assert same_bytes(tensor, old[name]), name
    assert model.sizes.tie_word_embeddings is is_tied
    assert torch.equal(model.lm_head.weight[262], model.decoder.embed_tokens.weight[262]) is is_tied
    assert encode_chat(tokenizer, [{"role": "user", "content": "1"}])


@pytest.mark.parametrize(("source", "target"), [*TARGETS.items(), ("qwen2", "fast_dllm")], ids=lambda name: name)
def test_converted_model_learns_and_writes(source: str, target: str, tmp_path: Path) -> None:
    """Catches a checkpoint that loads but cannot be trained or decoded."""
    start = save_source(source, tmp_path / "start")
    is_block = target not in ("dream", "llada")
    convert(start, tmp_path / "out", Conversion(to=target, block_size=8 if is_block else None))
    config = SFTConfig(
        model={"path": str(tmp_path / "out")},
        task=CHAIN,
        data={"num": 20},
        train={"steps": 6},
        batch_size=4,
        optimizer={"learning_rate": 1e-2},
        out=str(tmp_path / "run"),
    )
    run = sft.run(config)
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    model, tokenizer = load_model(run), load_tokenizer(run)
    prompt = [{"role": "user", "content": "1"}]
    answer = generate(model, [prompt], tokenizer=tokenizer, sampling=Sampling(max_new_tokens=8))
    assert model.family.mask_id not in answer[0].response_ids
    assert model.family.block_size == (8 if is_block else None)


def test_mask_that_was_forgotten_is_added(tmp_path: Path) -> None:
    """Catches a diffusion checkpoint that can be repaired not even by the command its error names."""
    start = save_source("qwen3", tmp_path / "start")
    config = config_of(start) | {"model_type": "sdar", "architectures": ["SDARForCausalLM"]}
    (start / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="revelm convert"):
        load_model(start)
    convert(start, tmp_path / "out", Conversion())
    assert load_model(tmp_path / "out").family.mask_id == 262
    (start / "config.json").write_text(json.dumps(config | {"mask_token_id": 300}))
    with pytest.raises(ValueError, match="mask_token_id is 300, but the tokenizer does not know"):
        convert(start, tmp_path / "other", Conversion())


def test_free_row_is_used_and_the_table_padded(tmp_path: Path) -> None:
    """Catches a table that grows although it has a free row, a free row left as it was, and a mean over free rows."""
    start = save_source("qwen2", tmp_path / "start", rows=270)
    convert(start, tmp_path / "free", Conversion(to="fast_dllm", block_size=4))
    old, new = weights(start), weights(tmp_path / "free")
    key = "model.embed_tokens.weight"
    assert len(new[key]) == 270
    torch.testing.assert_close(new[key][262], old[key][:262].mean(0))
    assert same_bytes(new[key][263:], old[key][263:])
    assert config_of(tmp_path / "free")["bd_size"] == 4
    convert(start, tmp_path / "wide", Conversion(to="fast_dllm", pad_vocab_to_multiple=64))
    wide = weights(tmp_path / "wide")
    assert len(wide[key]) == len(wide["lm_head.weight"]) == 320 == config_of(tmp_path / "wide")["vocab_size"]
    torch.testing.assert_close(wide[key][319], old[key][:262].mean(0))
    assert load_model(tmp_path / "wide").family.block_size == 32


def test_converting_twice_adds_one_mask(tmp_path: Path) -> None:
    """Catches a second mask token, or a row that is reset although it may have been trained."""
    start = save_source("qwen3", tmp_path / "start")
    convert(start, tmp_path / "one", Conversion(to="sdar", mask_token="<|hole|>"))
    convert(tmp_path / "one", tmp_path / "two", Conversion(to="sdar", block_size=16))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(same_bytes(one[name], two[name]) for name in one)
    assert len(load_tokenizer(tmp_path / "two")) == 263
    assert load_tokenizer(tmp_path / "two").mask_token == "<|hole|>"
    changed = {
        k for k in config_of(tmp_path / "two") if config_of(tmp_path / "one").get(k) != config_of(tmp_path / "two")[k]
    }
    assert changed == {"block_size"}
    with pytest.raises(ValueError, match=r"has the mask '<\|hole\|>'"):
        convert(tmp_path / "one", tmp_path / "three", Conversion(mask_token="<|other|>"))


@pytest.mark.parametrize("name", CONFIGS)
def test_no_change_is_a_copy(name: str, tmp_path: Path) -> None:
    """Catches a conversion that rounds, renames or loses a tensor of any family."""
    start = save_family(name, tmp_path / "start")
    convert(start, tmp_path / "out", Conversion())
    old, new = weights(start), weights(tmp_path / "out")
    assert old.keys() == new.keys()
    assert all(same_bytes(old[key], new[key]) for key in old)
    assert config_of(start) == config_of(tmp_path / "out")
    assert load_model(tmp_path / "out").family == load_model(start).family


def test_dtype_and_shards(tmp_path: Path) -> None:
    """Catches a dtype that only config.json has, and shards without an index."""
    start = save_family("sdar", tmp_path / "start")
    done = convert(start, tmp_path / "out", Conversion(dtype="bfloat16", max_shard_size="10KB"))
    new = weights(tmp_path / "out")
    assert {tensor.dtype for tensor in new.values()} == {torch.bfloat16}
    assert all(torch.equal(tensor, weights(start)[name].bfloat16()) for name, tensor in new.items())
    assert config_of(tmp_path / "out")["dtype"] == "bfloat16"
    assert (tmp_path / "out" / "model.safetensors.index.json").is_file()
    assert load_model(tmp_path / "out", dtype="auto").dtype == torch.bfloat16
    assert "dtype: bfloat16" in done.changes


def test_adapter_is_merged_by_name_or_as_source(tmp_path: Path) -> None:
    """Catches an adapter that is dropped, or merged twice."""
    start = save_family("sdar", tmp_path / "start")
    model = add_lora(load_model(start), LoraSpec(rank=2), seed=0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, 0.0, 0.1, generator=torch.Generator().manual_seed(0))
    save_adapter(model, tmp_path / "adapter")
    convert(start, tmp_path / "named", Conversion(adapter=str(tmp_path / "adapter")))
    convert(tmp_path / "adapter", tmp_path / "source", Conversion())
    expected = official_state(merge_lora(model))
    for place in ("named", "source"):
        found = weights(tmp_path / place)
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
        assert load_tokenizer(tmp_path / place).mask_token_id == 1


def test_incompatible_targets_list_those_that_fit(tmp_path: Path) -> None:
    """Catches a family table: what fits is what has the same parameters."""
    start = save_source("qwen3", tmp_path / "start")
    with pytest.raises(
        ValueError, match=r"cannot become dream \(.*has_qkv_bias is False, there it is True\).*fits sdar"
    ):
        convert(start, tmp_path / "out", Conversion(to="dream"))
    with pytest.raises(ValueError, match="autoregressive"):
        convert(start, tmp_path / "out", Conversion(to="llama"))
    with pytest.raises(ValueError, match="did you mean 'sdar'"):
        convert(start, tmp_path / "out", Conversion(to="sdra"))
    with pytest.raises(ValueError, match="no blocks"):
        convert(save_source("llama", tmp_path / "llama"), tmp_path / "out", Conversion(to="llada", block_size=4))
    assert not (tmp_path / "out").exists()


def test_words_of_transformers_5_are_also_said_in_those_of_4(tmp_path: Path) -> None:
    """Catches a checkpoint whose own code, written for transformers 4, would read its defaults for lack of a field."""
    start = save_source("qwen3_moe", tmp_path / "start")
    config = config_of(start)
    stretched = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 5e5, "original_max_position_embeddings": 64}
    for name in ("num_experts", "rope_theta"):
        del config[name]
    config |= {"num_local_experts": 6, "rope_parameters": stretched}
    (start / "config.json").write_text(json.dumps(config))
    convert(start, tmp_path / "out", Conversion(to="sdar_moe"))
    found = config_of(tmp_path / "out")
    assert (found["num_experts"], found["rope_theta"], found["head_dim"]) == (6, 5e5, 8)
    assert found["rope_scaling"] == {k: v for k, v in stretched.items() if k != "rope_theta"}
    old = {k: v for k, v in found.items() if k not in ("num_local_experts", "rope_parameters")}
    kind = build("models", "sdar_moe")
    assert kind.sizes(old) == kind.sizes(found) == load_model(tmp_path / "out").sizes
    convert(start, tmp_path / "copy", Conversion())
    assert config_of(tmp_path / "copy") == config
    plain = save_source("qwen3", tmp_path / "plain", rope_theta=None, rope_parameters={"rope_theta": 7e4})
    convert(plain, tmp_path / "dense", Conversion(to="sdar"))
    assert config_of(tmp_path / "dense")["rope_theta"] == 7e4
    assert config_of(tmp_path / "dense")["rope_scaling"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<|im_end|>", "ends, begins or pads texts"),
        ("<|pad|>", "ends, begins or pads texts"),
        ("a", "is an ordinary token"),
        ("<|user|>", "is a token that the chat template writes"),
    ],
)
def test_mask_must_have_no_other_meaning(text: str, message: str, tmp_path: Path) -> None:
    """Catches a mask that stands in texts already: every one of them would be hidden."""
    start = save_source("qwen3", tmp_path / "start")
    with pytest.raises(ValueError, match=message):
        convert(start, tmp_path / "out", Conversion(to="sdar", mask_token=text))
    assert not (tmp_path / "out").exists()
    convert(start, tmp_path / "out", Conversion(to="sdar", mask_token="<|word|>"))
    assert load_tokenizer(tmp_path / "out").mask_token == "<|word|>"


def test_bad_wishes_and_bad_sources_give_a_sentence(tmp_path: Path) -> None:
    """Catches a traceback for a config that lacks a field, and for sizes that are none."""
    start = save_source("qwen3", tmp_path / "start")
    with pytest.raises(ValueError, match=r"cannot become llada2_moe \(which has another layout\)"):
        convert(start, tmp_path / "out", Conversion(to="llada2_moe"))
    with pytest.raises(ValueError, match=r"^to: 'sdr' is not known; did you mean 'sdar'"):
        convert(start, tmp_path / "out", Conversion(to="sdr"))
    (start / "config.json").write_text(json.dumps(config_of(start) | {"hidden_size": None}))
    with pytest.raises(ValueError, match="qwen3 model lacks the field 'hidden_size'"):
        convert(start, tmp_path / "out", Conversion(to="sdar"))
    for size in ("0GB", "many", 0):
        with pytest.raises(ValueError, match="expected a number of bytes above 0"):
            Conversion(max_shard_size=size)
    assert Conversion(max_shard_size="1.5GB").max_shard_size == "1.5GB"


@pytest.mark.parametrize(
    ("name", "changes", "fitting"),
    [
        ("qwen2", {}, ["dream", "fast_dllm", "llada"]),
        ("qwen3", {}, ["sdar"]),
        ("qwen3_moe", {}, ["sdar_moe"]),
        ("llama", {}, ["llada"]),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, []),
        ("qwen2", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, ["dream", "fast_dllm"]),
        ("llama", {"attention_bias": True}, []),
        ("dream", {}, ["fast_dllm", "llada"]),
    ],
)
def test_what_fits_what(name: str, changes: dict[str, Any], fitting: list[str]) -> None:
    """Catches stretched positions, biases or norms that a target would silently drop."""
    assert compatible(official(name, **changes), build("models", name)) == fitting
    assert set(TARGETS) <= set(names("models"))


def test_out_must_be_free_and_stays_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a conversion that overwrites, or leaves half a checkpoint after a failure."""
    start = save_family("sdar", tmp_path / "start")
    with pytest.raises(ValueError, match="is there already"):
        convert(start, start, Conversion())
    (tmp_path / "empty").mkdir()
    convert(start, tmp_path / "empty", Conversion())
    with largest_file(20_000):
        assert main(["convert", str(start), str(tmp_path / "full")]) == 2
    said = capsys.readouterr().err
    assert "File too large" in said
    assert len(said.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "start"]


def test_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches options that do not reach the conversion."""
    start = save_source("qwen3", tmp_path / "start")
    words = ["--to", "sdar", "--block-size", "8", "--mask-token", "<|hole|>", "dtype=bfloat16"]
    assert main(["convert", str(start), str(tmp_path / "out"), *words]) == 0
    shown = capsys.readouterr().out
    for said in ("qwen3 -> sdar", "block size: 8", "<|hole|> added with id 262", "262 -> 263 rows", "dtype: bfloat16"):
        assert said in shown
    assert main(["convert", str(start), str(tmp_path / "out")]) == 2
    assert main(["convert", str(start), str(tmp_path / "new"), "blok_size=3"]) == 2
    assert "did you mean 'block_size'" in capsys.readouterr().err
