"""One request: prompt ids and how to decode it, checked before any work begins."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from revelm.core.grid import block_start, padded_length
from revelm.core.types import Family, require_diffusion
from revelm.decoding.sampling import Sampling

DEFAULT_NEW_TOKENS = 256


@dataclass(frozen=True, eq=False)
class Request:
    """``index`` is the place in the caller's list; ``prompt_ids`` int32 [P]; ``sampling`` says how many tokens.

    It is decoded window by window on a canvas of ``length`` positions. ``window``: positions of one window (a block
    of block models); windows are counted from ``grid_offset``.
    """

    index: int
    prompt_ids: np.ndarray
    sampling: Sampling
    stop_ids: tuple[int, ...]
    window: int
    grid_offset: int
    length: int

    @property
    def limit(self) -> int:
        """One past the last position that may count as response."""
        assert self.sampling.max_new_tokens is not None, "make_request gives every request its number"
        return len(self.prompt_ids) + self.sampling.max_new_tokens

    @property
    def start(self) -> int:
        """First position of the first window; leftover prompt tokens of block models lie in it."""
        return int(block_start(len(self.prompt_ids), self.window, grid_offset=self.grid_offset))


def room_behind(length: int, family: Family) -> int:
    """Tokens that fit behind a prompt of ``length`` tokens, in whole blocks."""
    size = _block_size(family) or 1
    return family.max_length // size * size - length


def make_request(index: int, prompt: Sequence[int], sampling: Sampling, family: Family) -> Request:
    """Check a prompt of token ids and its settings against the model. ValueError names the request and the remedy."""
    require_diffusion(family)
    ids = np.asarray(prompt, dtype=np.int64)
    _check_ids(index, ids, family)
    own = _block_size(family)
    if own is not None and sampling.block_size not in (None, own):
        raise ValueError(
            f"prompt {index}: sampling.block_size is {sampling.block_size}, but {family.name} decodes blocks of {own}; "
            f"give {own} or leave it out"
        )
    room = room_behind(len(ids), family)
    if room < 1:
        raise ValueError(
            f"prompt {index} has {len(ids)} tokens, which leaves no room for an answer: the model has "
            f"{family.max_length} positions; shorten the prompt"
        )
    count = min(DEFAULT_NEW_TOKENS, room) if sampling.max_new_tokens is None else sampling.max_new_tokens
    stops = (*(() if sampling.ignore_eos else family.stop_ids), *sampling.stop_ids)
    length = padded_length(len(ids) + count, own or 1)
    if length > family.max_length:
        whole = "" if own is None else ", in whole blocks,"
        raise ValueError(
            f"prompt {index} of {len(ids)} tokens plus max_new_tokens={count}{whole} needs {length} positions; "
            f"the model has {family.max_length}"
        )
    return Request(
        index=index,
        prompt_ids=ids.astype(np.int32),
        sampling=replace(sampling, max_new_tokens=count),
        stop_ids=tuple(dict.fromkeys(stops)),
        window=own or min(sampling.block_size or count, count),
        grid_offset=len(ids) if own is None else 0,
        length=length,
    )


def _block_size(family: Family) -> int | None:
    """The size of a block model's blocks; None for full attention, where windows are the request's choice."""
    return family.block_size if family.attention == "block" else None


def _check_ids(index: int, ids: np.ndarray, family: Family) -> None:
    if ids.ndim != 1 or len(ids) == 0:
        raise ValueError(f"prompt {index} has shape {ids.shape}; give a non-empty list of token ids")
    if ids.min() < 0 or ids.max() >= family.vocab_size:
        raise ValueError(f"prompt {index} holds ids outside the model's vocabulary of {family.vocab_size} entries")
    if (ids == family.mask_id).any():
        raise ValueError(f"prompt {index} contains the mask token (id {family.mask_id}); remove it from the prompt")
