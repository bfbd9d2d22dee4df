"""Saving: complete or not at all, with everything that the checkpoint needs to load again."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import revelm
from revelm.data.tokenizer import build_tiny_tokenizer
from revelm.models.load import load_model, load_tokenizer, new_model, save_model
from revelm.models.save import check_shard_size
from tests.families import diffusion_families, save_family
from tests.file_limit import largest_file
from tests.models import tiny_config
from tests.tiny_checkpoint import save_tiny, tiny_model


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` with its bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", diffusion_families())
def test_a_saved_model_loads_again_by_itself(name: str, tmp_path: Path) -> None:
    """Catches ids that only the tokenizer knows, lost: the copy has no mask token, or stops at another one."""
    save_family(name, tmp_path / "a")
    config = tmp_path / "a" / "config.json"
    fields = json.loads(config.read_text())
    config.write_text(json.dumps({k: v for k, v in fields.items() if k not in ("mask_token_id", "eos_token_id")}))
    for extra in ("special_tokens_map.json", "vocab.json", "merges.txt", "a.model", "chat_template.jinja"):
        (tmp_path / "a" / extra).write_text("{}" if extra.endswith("json") else "x <|im_end|>")
    model = load_model(tmp_path / "a")
    save_model(model, tmp_path / "b")
    assert load_model(tmp_path / "b").family == model.family
    before, after = snapshot(tmp_path / "a"), snapshot(tmp_path / "b")
    assert before.keys() == after.keys()
    assert [file for file in before if before[file] != after[file]] == ["config.json"]


def test_the_source_may_be_gone_or_the_target(tmp_path: Path) -> None:
    """Catches companions that are looked up again when it is too late."""
    save_tiny(tmp_path / "a")
    before = snapshot(tmp_path / "a")
    model = load_model(tmp_path / "a")
    save_model(model, tmp_path / "a")
    assert snapshot(tmp_path / "a") == before
    for file in (tmp_path / "a").iterdir():
        file.unlink()
    save_model(model, tmp_path / "a")
    assert snapshot(tmp_path / "a") == before


def test_another_tokenizer_replaces_all_of_the_old_one(tmp_path: Path) -> None:
    """Catches a changed tokenizer beside tables of the former, and a template that was taken away but stays."""
    save_tiny(tmp_path)
    for extra in ("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"):
        (tmp_path / extra).write_text("{}")
    model = load_model(tmp_path)
    save_model(model, tmp_path / "out")
    other = build_tiny_tokenizer(["abcabc"] * 9, 270)
    other.chat_template = None
    revelm.save_tokenizer(other, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").glob("*") if not p.name.startswith("model")} == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert load_tokenizer(tmp_path / "out").get_vocab() == other.get_vocab()


def test_a_model_of_another_family_is_replaced_whole(tmp_path: Path) -> None:
    """Catches the former model's tokenizer, settings and code deciding the ids and the class of the new one."""
    save_family("dream", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"auto_map": {"AutoModel": "modeling_dream.X"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("modeling_dream.py", "generation_config.json", "README.md", "model-best.safetensors"):
        (tmp_path / name).write_text("{}")
    revelm.save_model(new_model(tiny_config(), seed=0), tmp_path)
    kept = {"config.json", "model.safetensors", "README.md", "model-best.safetensors"}
    assert {p.name for p in tmp_path.iterdir()} == kept
    assert load_model(tmp_path).family.stop_ids == (tiny_config()["eos_token_id"],)


def test_a_model_of_the_same_family_keeps_the_tokenizer_there(tmp_path: Path) -> None:
    """Catches a tokenizer lost when weights made in memory are saved over those of the same family."""
    save_tiny(tmp_path)
    before = snapshot(tmp_path)
    save_model(tiny_model(seed=4), tmp_path)
    changed = [file for file, content in snapshot(tmp_path).items() if content != before[file]]
    assert (changed, len(before)) == (["model.safetensors"], len(snapshot(tmp_path)))


@pytest.mark.parametrize("failing", [1, 3])
@pytest.mark.parametrize("former", [5000, "5GB"])
def test_a_failing_write_leaves_the_old_checkpoint(
    failing: int, former: str | int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches the only copy of a model destroyed by a disk that is full."""
    from safetensors.torch import save_file

    save_tiny(tmp_path / "a")
    save_model(load_model(tmp_path / "a"), tmp_path / "a", max_shard_size=former)
    before = snapshot(tmp_path)
    count: list[Path] = []

    def write(tensors: Any, file: Path, **options: Any) -> None:
        count.append(file)
        if len(count) == failing:
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save_file(tensors, file, **options)

    monkeypatch.setattr("revelm.models.save.save_file", write)
    for target in ("a", "new"):
        count.clear()
        with pytest.raises(OSError, match="disk full: nothing was written"):
            save_model(tiny_model(seed=4), tmp_path / target, max_shard_size=5000)
        assert snapshot(tmp_path) == before
        assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_real_limit_is_an_os_error(tmp_path: Path) -> None:
    """Catches an error of the library, and files cut off, where the system stops a file from growing."""
    save_tiny(tmp_path)
    before = snapshot(tmp_path)
    model = load_model(tmp_path)
    with largest_file(20_000), pytest.raises(OSError, match="File too large") as caught:
        save_model(model, tmp_path)
    assert caught.value.errno == errno.EFBIG
    assert snapshot(tmp_path) == before


def test_a_kill_between_the_renames_is_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches shards of two models under one index, which load without a word."""
    save_tiny(tmp_path)
    model = load_model(tmp_path)
    save_model(model, tmp_path, max_shard_size=5000)
    rename, done = Path.replace, list[str]()

    def killed(self: Path, target: Path) -> Path:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(self.name)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save_model(tiny_model(seed=4), tmp_path, max_shard_size=5000)
    with pytest.raises(ValueError, match=r"config\.json is missing: .*half written"):
        load_model(tmp_path)
    save_model(model, tmp_path)
    assert torch.equal(load_model(tmp_path).lm_head.weight, model.lm_head.weight)
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith((".", "model-"))]


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, 1), ("5GB", 5 * 10**9), ("1.5GB", 15 * 10**8), ("20 kb", 20_000), ("2TB", 2 * 10**12), ("0.5MB", 500_000)],
)
def test_shard_sizes(size: str | int, expected: int) -> None:
    """Catches a unit read as another one, and fractions cut off."""
    assert check_shard_size(size) == expected


@pytest.mark.parametrize("size", [0, -1, True, 1.5, None, "", "100", "GB", "0GB", "0.0001KB", "-1GB", "5GiB", "nanGB"])
def test_bad_shard_sizes_are_refused_before_anything_is_written(size: Any, tmp_path: Path) -> None:
    """Catches a shard per tensor for a size of zero, and a typing mistake found after the old weights are gone."""
    with pytest.raises(ValueError, match=r"^max_shard_size is .*, expected a number of bytes above 0, or text such as"):
        save_model(tiny_model(), tmp_path / "out", max_shard_size=size)
    assert not (tmp_path / "out").exists()
