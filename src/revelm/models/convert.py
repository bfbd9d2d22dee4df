"""One checkpoint from another: another family, block size, dtype or sharding, a mask token, an adapter merged in.

What is not asked for stays byte for byte. The result appears complete or not at all, in a directory that was not there.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from revelm.core.atomic import atomic_directory
from revelm.core.config import Schema
from revelm.core.memory import human
from revelm.core.types import Family
from revelm.data.tokenizer import read_tokenizer, save_tokenizer
from revelm.data.tokenizer_files import TOKENIZER_CONFIG
from revelm.models.adapter_files import adapter_base, base_folder
from revelm.models.checkpoint_files import read_model_config, resolve_checkpoint
from revelm.models.kind import Kind, kind_named, kind_of, sizes_of
from revelm.models.language_model import LanguageModel
from revelm.models.load import EMBEDDING, HEAD, empty_model, load_weights, tie
from revelm.models.lora import merge_adapter
from revelm.models.save import MAX_SHARD_SIZE, check_shard_size, save_model
from revelm.models.special_ids import special_id, special_ids
from revelm.models.translate import translated
from revelm.models.vocabulary import Growth, grow, resized

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NO_IDS = {"mask_id": 0, "pad_id": 0, "stop_ids": ()}


class Conversion(Schema):
    """What is to change. ``to``: the family, by default the source's; it implies attention and shift.

    ``mask_token``: the text of a mask that has to be added. ``pad_vocab_to_multiple``: round the vocabulary's rows up.
    ``dtype``: of the weights, "auto" as they are stored. ``adapter``: a directory in peft's layout to merge in.
    """

    to: str | None = None
    block_size: int | None = Field(None, ge=1)
    mask_token: str | None = Field(None, min_length=1)
    pad_vocab_to_multiple: int | None = Field(None, ge=1)
    dtype: Literal["auto", "float32", "float64", "bfloat16", "float16"] = "auto"
    max_shard_size: str | int = MAX_SHARD_SIZE
    adapter: str | None = None

    @field_validator("max_shard_size")
    @classmethod
    def _is_size(cls, size: str | int) -> str | int:
        try:
            check_shard_size(size)
        except ValueError as error:  # the field's name comes before it
            raise ValueError(str(error).removeprefix("max_shard_size ")) from error
        return size


@dataclass(frozen=True)
class Converted:
    """Where the result is, its family, and what was done, one sentence each."""

    folder: Path
    family: Family
    changes: tuple[str, ...]


@dataclass(frozen=True)
class _Plan:
    """What becomes of a checkpoint, known before its weights are read. ``tokenizer`` has the mask token already."""

    source: Kind
    goal: Kind
    before: Mapping[str, Any]
    config: Mapping[str, Any]
    num_rows: int
    growth: Growth
    tokenizer: "PreTrainedTokenizerFast | None"


def convert(source: str | Path, out: str | Path, spec: Conversion) -> Converted:
    """Write the checkpoint ``source`` (directory, hub id, run or adapter directory), changed by ``spec``, to ``out``.

    Takes the memory of the weights once. Raises ValueError when ``out`` holds something, when the families have
    different backbones (the message lists those that fit), or when memory or disk cannot hold the weights; OSError when
    writing fails. ``out`` is then as before.
    """
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"out: {target} is there already; give a directory that is new or empty")
    folder = resolve_checkpoint(source)
    home = base_folder(folder)
    plan = _plan(home, spec)
    changes = _changes(plan, spec)
    model = _merged(folder, spec.dtype)
    if folder != home:
        changes.append(f"adapter: {folder} merged into the weights of {home}")
    if spec.adapter is not None:
        merge_adapter(model, resolve_checkpoint(spec.adapter))
        changes.append(f"adapter: {spec.adapter} merged into the weights")
    _check_disk(model, target)
    with atomic_directory(target) as place:
        family = _write(model, place, plan, max_shard_size=spec.max_shard_size)
    return Converted(target, family, (*changes, _size_of(target)))


def _plan(folder: Path, spec: Conversion) -> _Plan:
    before = read_model_config(folder)
    source = kind_of(before, where=str(folder / "config.json"))
    goal = source if spec.to is None else kind_named(spec.to, field="to")
    config = translated(before, source, goal, block_size=spec.block_size)
    tokenizer = None
    if (folder / TOKENIZER_CONFIG).is_file():
        tokenizer = read_tokenizer(
            folder,
            mask_id=special_id(before, "mask_token_id"),
            mask_token=goal.mask_token,
            chat_template=source.chat_template,
            needs_mask=False,
            stand_ins=dict(source.tokenizers),
        )
    num_rows = sizes_of(goal, config).vocab_size
    multiple = spec.pad_vocab_to_multiple
    growth = grow(tokenizer, goal, config, size=num_rows, mask_token=spec.mask_token, multiple=multiple)
    return _Plan(source, goal, before, _with_growth(config, goal, growth), num_rows, growth, tokenizer)


def _with_growth(config: dict[str, Any], goal: Kind, growth: Growth) -> dict[str, Any]:
    """``config`` with the vocabulary's size and the mask id. ValueError for a family whose table cannot grow."""
    sizes = {name: growth.size for name in ("vocab_size", "embedding_size") if name in config}
    is_grown = sizes_of(goal, config).vocab_size != growth.size
    mask = {} if growth.mask_id is None else {"mask_token_id": growth.mask_id}
    found = config | (sizes if is_grown else {}) | mask
    if sizes_of(goal, found).vocab_size != growth.size:
        raise ValueError(f"the vocabulary of a {goal.name} model cannot grow to {growth.size} rows")
    return found


def _merged(folder: Path, dtype: str) -> LanguageModel:
    """The weights in ``folder``, adapters merged; special ids are not looked at, they may be what is missing."""
    base = adapter_base(folder)
    if base is None:
        return load_weights(folder, torch.device("cpu"), dtype=dtype, ids=NO_IDS)
    return merge_adapter(_merged(resolve_checkpoint(base), dtype), folder)


def _write(model: LanguageModel, folder: Path, plan: _Plan, *, max_shard_size: str | int) -> Family:
    """Everything into ``folder``: the model's weights under another config, with the tokenizer."""
    is_same = plan.goal.name == plan.source.name  # else its modelling code is of no use
    kept = {name: content for name, content in model.companions.items() if is_same or not name.endswith(".py")}
    for name, content in kept.items():
        (folder / name).write_bytes(content)
    if plan.tokenizer is not None:
        save_tokenizer(plan.tokenizer, folder)
    result = empty_model(plan.goal, plan.config, special_ids(plan.config, folder, plan.goal))
    state: dict[str, Tensor] = model.state_dict()
    state[EMBEDDING] = resized(state[EMBEDDING], plan.growth)
    state[HEAD] = state[EMBEDDING] if result.sizes.tie_word_embeddings else resized(state[HEAD], plan.growth)
    result.load_state_dict(state, assign=True)
    tie(result)
    save_model(result, folder, max_shard_size=max_shard_size)
    return result.family


def _changes(plan: _Plan, spec: Conversion) -> list[str]:
    """What is done to family, blocks, vocabulary and dtype, in sentences."""
    goal, growth, done = plan.goal, plan.growth, list[str]()
    if goal.name != plan.source.name:
        shift = "row i is about token i + 1" if goal.is_shifted else "row i is about token i"
        done.append(f"family: {plan.source.name} -> {goal.name} ({goal.attention} attention, {shift})")
    blocks = plan.config.get(goal.block_size_field)
    if goal.attention == "block" and blocks != plan.before.get(goal.block_size_field):
        done.append(f"block size: {blocks}")
    if growth.mask_token is not None:
        assert growth.mask_id is not None, "a token that was added has an id"
        row = "a free row of the vocabulary" if growth.mask_id < plan.num_rows else "a new row"
        done.append(f"mask token: {growth.mask_token} added with id {growth.mask_id}, {row} (the mean of all tokens)")
    elif growth.mask_id is not None and plan.before.get("mask_token_id") is None:
        done.append(f"mask token: id {growth.mask_id}, which the vocabulary had")
    if growth.size != plan.num_rows:
        done.append(f"vocabulary: {plan.num_rows} -> {growth.size} rows, new ones the mean of all tokens")
    if spec.dtype != "auto":
        done.append(f"dtype: {spec.dtype}")
    return done


def _check_disk(model: LanguageModel, target: Path) -> None:
    needed = sum(tensor.numel() * tensor.itemsize for tensor in model.state_dict().values())
    parent = next(folder for folder in target.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise ValueError(f"out: {target} needs {human(needed)}, its disk has {human(free)} free")


def _size_of(folder: Path) -> str:
    files = sorted(folder.glob("model*.safetensors"))
    count = f"{len(files)} file{'s' if len(files) > 1 else ''}"
    return f"weights: {human(sum(file.stat().st_size for file in files))} in {count}"
