"""Mask, pad and stop ids of a checkpoint, from its own files; and its tokenizer, with its family's conventions."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revelm.core.types import ABSENT
from revelm.data.tokenizer import end_of_turn_id, read_tokenizer
from revelm.data.tokenizer_files import TOKENIZER_CONFIG
from revelm.models.adapter_files import base_folder
from revelm.models.checkpoint_files import CONFIG, read_json, read_model_config, resolve_checkpoint
from revelm.models.fields import check_integer
from revelm.models.kind import Kind, kind_of

GENERATION_CONFIG = "generation_config.json"

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def load_tokenizer(path_or_id: str | Path) -> "PreTrainedTokenizerFast":
    """The tokenizer of a checkpoint directory or hub id.

    Where its files are silent, the family's conventions hold: the mask token that its vocabulary has under another
    heading, the chat template, and the end-of-turn token as padding. Raises ValueError when files are missing or
    damaged, or when a diffusion model has no mask token.
    """
    folder = resolve_checkpoint(path_or_id)
    if not (folder / TOKENIZER_CONFIG).is_file() or not (folder / CONFIG).is_file():
        folder = base_folder(folder)
    if not (folder / CONFIG).is_file():
        return read_tokenizer(folder)
    config = read_model_config(folder)
    return _tokenizer(folder, config, kind_of(config, where=str(folder / "config.json")))


def special_ids(config: Mapping[str, Any], folder: Path | None, kind: Kind) -> dict[str, Any]:
    """``mask_id``, ``pad_id``, ``stop_ids`` from config.json, generation_config.json and the tokenizer in ``folder``.

    Stops: every end of text that the files name, and the token that ends a turn in the chat template. ValueError when
    there is no mask token although the family needs one, when the files contradict each other, or when the mask is
    also a stop, the padding or an ordinary token.
    """
    mask, pad = special_id(config, "mask_token_id"), special_id(config, "pad_token_id")
    stops = _ids(config, "config.json")
    if folder is not None:
        stops += _ids(read_json(folder / GENERATION_CONFIG) or {}, GENERATION_CONFIG)
    if folder is not None and (folder / TOKENIZER_CONFIG).is_file():
        tokenizer = _tokenizer(folder, config, kind)
        mask = _agreed_mask(mask, tokenizer, folder)
        pad = tokenizer.pad_token_id if pad is None else pad
        stops += [i for i in (end_of_turn_id(tokenizer), tokenizer.eos_token_id) if i is not None]
    if mask is None and kind.attention != "causal":
        raise ValueError(
            f"{folder}: no mask token: neither config.json (mask_token_id) nor the tokenizer has one; add one to the "
            "tokenizer and to the embedding with `revelm convert`"
        )
    stops = list(dict.fromkeys(stops))
    for name, others in (("stop", stops), ("pad", [pad])):
        if mask is not None and mask in others:
            raise ValueError(
                f"{folder or 'config.json'}: token id {mask} is the mask and a {name} token; make them two"
            )
    if pad is None:
        pad = stops[0] if stops else int(mask == 0)
    return {"mask_id": ABSENT if mask is None else mask, "pad_id": pad, "stop_ids": stops}


def _agreed_mask(mask: int | None, tokenizer: "PreTrainedTokenizerFast", folder: Path) -> int | None:
    """The mask of config.json and of the tokenizer, of which one may be silent. ValueError when they do not agree."""
    declared = tokenizer.mask_token_id
    if mask is None or declared is None:
        return declared if mask is None else mask
    if mask != declared:
        raise ValueError(
            f"{folder}: mask_token_id in config.json is {mask}, the tokenizer's mask {tokenizer.mask_token!r} has the "
            f"id {declared}; make them agree"
        )
    if mask not in tokenizer.added_tokens_decoder:
        raise ValueError(
            f"{folder}: mask_token_id in config.json is {mask}, which is the ordinary token {tokenizer.mask_token!r}; "
            "a mask must be a special token"
        )
    return mask


def special_id(config: Mapping[str, Any], name: str) -> int | None:
    """A special id of config.json, None where there is none, which some tools write as -1. ValueError for no id."""
    found = config.get(name)
    if found is None or (found == -1 and not isinstance(found, bool)):
        return None
    return check_integer(f"config.json: {name}", found, least=0)


def _ids(config: Mapping[str, Any], file: str) -> list[int]:
    """The ends of text that ``file`` names: none, one or a list."""
    found = config.get("eos_token_id")
    if found is None:
        return []
    listed = found if isinstance(found, list) else [found]
    return [check_integer(f"{file}: eos_token_id", i, least=0) for i in listed]


def _tokenizer(folder: Path, config: Mapping[str, Any], kind: Kind) -> "PreTrainedTokenizerFast":
    return read_tokenizer(
        folder,
        mask_id=special_id(config, "mask_token_id"),
        mask_token=kind.mask_token,
        chat_template=kind.chat_template,
        needs_mask=kind.attention != "causal",
        stand_ins=dict(kind.tokenizers),
    )
