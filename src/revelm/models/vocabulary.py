"""A mask token for a vocabulary that has none, and rows for it in embedding and head.

A new row is the mean of the rows of all known tokens. A mask that looks like an average word keeps the first layers
within what they know; and as a logit the mean row is never the largest, so that the other probabilities hardly change
(Hewitt 2021, "Initializing new word embeddings for pretrained language models"). A row of zeros or of noise does
neither. Checkpoints often have more rows than tokens, for speed; the mask takes such a free row before the table grows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from revelm.data.tokenizer import MASK, encode_chat, end_of_turn_id
from revelm.models.kind import Kind
from revelm.models.special_ids import special_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHUNK_ROWS = 8192


@dataclass(frozen=True)
class Growth:
    """What becomes of the vocabulary: its rows from now on, which of them are new, and which belong to known tokens.

    ``known`` None: all that there were. ``mask_token`` is the text that was added, None where nothing was.
    """

    size: int
    new: tuple[int, ...] = ()
    known: tuple[int, ...] | None = None
    mask_id: int | None = None
    mask_token: str | None = None


def grow(
    tokenizer: "PreTrainedTokenizerFast | None",
    kind: Kind,
    config: Mapping[str, Any],
    *,
    size: int,
    mask_token: str | None,
    multiple: int | None,
) -> Growth:
    """Give ``tokenizer`` (changed in place) a mask token if it needs one, and say which rows that takes.

    ``size``: rows that there are; ``multiple``: round the rows up to one of it. ValueError when the files contradict
    each other, ask for a second mask token, or for one that has another meaning.
    """
    mask, declared = special_id(config, "mask_token_id"), None if tokenizer is None else tokenizer.mask_token_id
    if kind.attention == "causal":
        return _rounded(Growth(size), size, multiple)
    if tokenizer is None and mask is None:
        raise ValueError("the checkpoint has neither a tokenizer nor mask_token_id in config.json; add its tokenizer")
    if mask is not None and tokenizer is not None and mask != declared:
        held = f"has {declared}" if declared is not None else "does not know that id"
        raise ValueError(f"config.json: mask_token_id is {mask}, but the tokenizer {held}; make them agree")
    if tokenizer is None or declared is not None:
        if tokenizer is not None and mask_token not in (None, tokenizer.mask_token):
            raise ValueError(f"mask_token: {mask_token!r}, but the tokenizer has the mask {tokenizer.mask_token!r}")
        return _rounded(Growth(size, mask_id=mask if declared is None else declared), size, multiple)
    text = mask_token or kind.mask_token or MASK
    _check_free(tokenizer, text)
    vocabulary = tokenizer.get_vocab()
    known = tuple(sorted(i for i in set(vocabulary.values()) if i < size))
    place = _declare(tokenizer, text)
    new = () if text in vocabulary and place < size else (place,)
    added = text if text not in vocabulary else None
    return _rounded(Growth(max(size, place + 1), new, known, place, added), size, multiple)


def _check_free(tokenizer: "PreTrainedTokenizerFast", text: str) -> None:
    """ValueError when ``text`` is a token that stands for something else."""
    place = tokenizer.get_vocab().get(text)
    if place is None:
        return
    if place not in tokenizer.added_tokens_decoder:
        raise ValueError(f"mask_token: {text!r} is an ordinary token of the vocabulary; give one of its own")
    taken = {tokenizer.special_tokens_map.get(f"{name}_token") for name in ("eos", "pad", "bos", "unk")}
    if text in taken or place == end_of_turn_id(tokenizer):
        raise ValueError(f"mask_token: {text!r} ends, begins or pads texts; give a token of its own")
    if place in _written(tokenizer):
        raise ValueError(f"mask_token: {text!r} is a token that the chat template writes; give one of its own")


def _written(tokenizer: "PreTrainedTokenizerFast") -> list[int]:
    """Ids of a short chat; none where there is no template, or one that refuses such a chat."""
    try:
        return encode_chat(tokenizer, [{"role": "user", "content": "?"}, {"role": "assistant", "content": "?"}])
    except ValueError:
        return []


def resized(table: Tensor, growth: Growth) -> Tensor:
    """``table`` [rows, D] with ``growth.size`` rows, new ones the mean of the known ones; itself if nothing changes."""
    if not growth.new:
        return table
    with torch.no_grad():
        mean = _mean(table, range(len(table)) if growth.known is None else growth.known)
        if growth.size > len(table):
            grown = table.new_empty(growth.size, table.shape[1])
            grown[: len(table)] = table
            table = grown
        table[list(growth.new)] = mean.to(table.dtype)
    return table


def _rounded(growth: Growth, size: int, multiple: int | None) -> Growth:
    """``growth`` with its size rounded up, and every row behind the first ``size`` counted as new."""
    total = growth.size if multiple is None else -(-growth.size // multiple) * multiple
    new = tuple(sorted({*growth.new, *range(size, total)}))
    return Growth(total, new, growth.known, growth.mask_id, growth.mask_token)


def _declare(tokenizer: "PreTrainedTokenizerFast", text: str) -> int:
    """Make ``text`` the mask token, as a token of its own; its id."""
    from tokenizers import AddedToken

    tokenizer.add_special_tokens({"mask_token": AddedToken(text, special=True, normalized=False)})
    place = tokenizer.mask_token_id
    assert isinstance(place, int), "a token that was just added has an id"
    return place


def _mean(table: Tensor, rows: Sequence[int]) -> Tensor:
    """Mean of some rows in float64, a few at a time: tables are large."""
    total = torch.zeros(table.shape[1], dtype=torch.float64)
    for part in torch.tensor(list(rows)).split(CHUNK_ROWS):
        total += table[part].double().sum(0)
    return total / len(rows)
