"""Checkpoints of the hub: what is asked for, in which order, and how a refusal is worded. No test uses the network."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects

from revelm.models.hub import is_hub_id
from revelm.models.load import load_model, load_tokenizer, save_model
from tests.tiny_checkpoint import save_tiny, tiny_model


class Hub:
    """Stands in for ``snapshot_download``: copies what matches from ``remote`` into ``cache``, and keeps a record."""

    def __init__(self, remote: Path, cache: Path) -> None:
        self.remote, self.cache = remote, cache
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, name: str, *, revision: str | None, allow_patterns: Any, ignore_patterns: Any) -> str:
        self.asked.append((name, revision))
        paths = [p.relative_to(self.remote).as_posix() for p in self.remote.rglob("*") if p.is_file()]
        for path in filter_repo_objects(paths, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (self.cache / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.remote / path, self.cache / path)
        return str(self.cache)

    @property
    def fetched(self) -> set[str]:
        """Paths of everything that was copied."""
        return {p.relative_to(self.cache).as_posix() for p in self.cache.rglob("*") if p.is_file()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub that has one model, whatever it is asked for."""
    save_tiny(tmp_path / "remote")
    found = Hub(tmp_path / "remote", tmp_path / "cache")
    found.cache.mkdir()
    monkeypatch.setattr("huggingface_hub.snapshot_download", found)
    monkeypatch.chdir(tmp_path)
    return found


def test_only_what_the_index_names_is_fetched(hub: Hub) -> None:
    """Catches weights fetched twice: another layout, folders for other programs, shards of an earlier upload."""
    model = tiny_model(seed=3)
    save_model(model, hub.remote, max_shard_size=5000)
    shards = {p.name for p in hub.remote.glob("model-*.safetensors")}
    assert len(shards) > 2
    beside = {p.name for p in hub.remote.iterdir()} - shards
    for extra in ("consolidated.safetensors", "model-9-of-9.safetensors", "a.bin", "original/tokenizer.json", "a/b.py"):
        (hub.remote / extra).parent.mkdir(exist_ok=True)
        (hub.remote / extra).write_bytes(b"x")
    assert torch.equal(load_model("owner/name").lm_head.weight, model.lm_head.weight)
    assert load_tokenizer("owner/name").mask_token_id == 1
    assert hub.fetched == shards | beside


def test_a_model_of_no_use_is_refused_before_its_weights(hub: Hub) -> None:
    """Catches 16 GB fetched only to say that the family is not known."""
    config = json.loads((hub.remote / "config.json").read_text())
    for change, message in (
        ({"model_type": "gpt2"}, r"owner/name: config\.json: model_type 'gpt2' is not known"),
        ({"quantization_config": {"quant_method": "awq"}}, r"the checkpoint is quantised \(awq\)"),
    ):
        (hub.remote / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            load_model("owner/name")
    assert hub.fetched == {"config.json"}


def test_weights_in_another_format_are_named(hub: Hub) -> None:
    """Catches "not a checkpoint directory" about a folder of the cache that the user never made."""
    (hub.remote / "model.safetensors").rename(hub.remote / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"'owner/name' has no model\.safetensors on the hub; only safetensors"):
        load_model("owner/name")


def test_an_adapter_is_fetched_with_its_files(hub: Hub) -> None:
    """Catches adapters refused for want of a config.json."""
    from revelm.models.lora import LoraSpec, add_lora, save_adapter

    base = hub.remote.rename(hub.remote.parent / "base")
    save_adapter(add_lora(load_model(base), LoraSpec(rank=2), seed=0), hub.remote)
    assert torch.equal(load_model("owner/name").lm_head.weight, load_model(base).lm_head.weight)
    assert hub.fetched == {"adapter_config.json", "adapter_model.safetensors"}


def test_a_revision_and_a_local_folder(hub: Hub) -> None:
    """Catches a revision that is ignored, and a local folder overruled by the hub."""
    load_model("owner/name@refs/pr/1")
    assert set(hub.asked) == {("owner/name", "refs/pr/1")}
    hub.asked.clear()
    other = tiny_model(seed=5)
    save_model(other, hub.remote.parent / "owner" / "name")
    assert torch.equal(load_model("owner/name").lm_head.weight, other.lm_head.weight)
    assert hub.asked == []


def test_the_hub_is_asked_only_for_what_looks_like_an_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches a mistyped path that becomes a download, and library tracebacks when there is no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"'nobody/nothing' is no local directory, .* hub cannot be reached"):
        load_model("nobody/nothing")
    for path in ("./nobody", "/nobody/nothing", "a/b/c", "nobody", "~/nobody", "a/b@"):
        assert not is_hub_id(path)
        with pytest.raises(ValueError, match=r"is not a directory; give a checkpoint directory or a hub id owner/name"):
            load_model(path)


def error_of(kind: str, text: str = "no") -> Exception:
    """An error of the hub; its constructor would want a response of whichever HTTP library is in use."""
    made: type[Exception] = vars(errors)[kind]
    found = made.__new__(made)
    found.args = (text,)
    return found


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", r"on the hub it is gated: accept its terms .* `hf auth login`"),
        ("RepositoryNotFoundError", r"the hub has no such model"),
        ("RevisionNotFoundError", r"on the hub it has no revision 'v2'"),
        ("HfHubHTTPError", r"could not be fetched from the hub \(no\)"),
        ("LocalEntryNotFoundError", r"is not in the local hub cache, and the hub cannot be reached from here"),
    ],
)
def test_what_the_hub_answers_is_said_in_one_sentence(kind: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a 403 page in place of "accept the terms"."""

    def refuse(*_: object, **__: object) -> None:
        raise error_of(kind)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ValueError, match=message):
        load_model("owner/name@v2")


def test_an_error_of_the_hub_is_not_a_missing_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches "cannot be reached" about a hub that answered: the library wraps both in the same error."""

    def refuse(*_: object, **__: object) -> None:
        raise error_of("LocalEntryNotFoundError") from error_of("HfHubHTTPError", "500 Server Error: broken\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ValueError, match=r"could not be fetched from the hub \(500 Server Error: broken\)$"):
        load_model("owner/name")
