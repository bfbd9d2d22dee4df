"""Mask, pad and stop ids of a checkpoint, from its own files; and its tokenizer, with its family's conventions."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revelm.core.types import ABSENT
from revelm.data.tokenizer import end_of_turn_id, read_tokenizer
from revelm.models.adapter_files import base_folder
from revelm.models.checkpoint_files import CONFIG, read_json, read_model_config, resolve_checkpoint
from revelm.models.kind import Kind, kind_of

TOKENIZER_CONFIG = "tokenizer_config.json"

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
    there is no mask token although the family needs one, or when the files contradict each other.
    """
    mask, pad, stops = config.get("mask_token_id"), config.get("pad_token_id"), _listed(config.get("eos_token_id"))
    if folder is not None:
        stops += _listed((read_json(folder / "generation_config.json") or {}).get("eos_token_id"))
    if folder is not None and (folder / TOKENIZER_CONFIG).is_file():
        tokenizer = _tokenizer(folder, config, kind)
        mask = tokenizer.mask_token_id if mask is None else mask
        pad = tokenizer.pad_token_id if pad is None else pad
        stops += [i for i in (end_of_turn_id(tokenizer), tokenizer.eos_token_id) if i is not None]
    if mask is None and kind.attention != "causal":
        raise ValueError(
            f"{folder}: no mask token: neither config.json (mask_token_id) nor the tokenizer has one; add one to the "
            "tokenizer and to the embedding with `revelm convert`"
        )
    stops = list(dict.fromkeys(stops))
    pad = pad if pad is not None else (stops[0] if stops else mask or 0)
    return {"mask_id": ABSENT if mask is None else mask, "pad_id": pad, "stop_ids": stops}


def _tokenizer(folder: Path, config: Mapping[str, Any], kind: Kind) -> "PreTrainedTokenizerFast":
    return read_tokenizer(
        folder,
        mask_id=config.get("mask_token_id"),
        mask_token=kind.mask_token,
        chat_template=kind.chat_template,
        needs_mask=kind.attention != "causal",
        stand_ins=dict(kind.tokenizers),
    )


def _listed(ids: Any) -> list[int]:
    return [] if ids is None else list(ids) if isinstance(ids, list) else [ids]
