"""One request: prompt ids and how to decode it, checked before any work begins."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from revelm.core.grid import padded_length
from revelm.core.types import Family
from revelm.decoding.sampling import Sampling

DEFAULT_NEW_TOKENS = 256


@dataclass(frozen=True, eq=False)
class Request:
    """``index`` is the place in the caller's list; ``prompt_ids`` int32 [P]; ``sampling`` says how many tokens."""

    index: int
    prompt_ids: np.ndarray
    sampling: Sampling
    stop_ids: tuple[int, ...]

    @property
    def limit(self) -> int:
        """One past the last position that may count as response."""
        assert self.sampling.max_new_tokens is not None, "make_request gives every request its number"
        return len(self.prompt_ids) + self.sampling.max_new_tokens


def room_behind(length: int, family: Family) -> int:
    """Tokens that fit behind a prompt of ``length`` tokens, in whole blocks."""
    size = family.block_size or 1
    return family.max_length // size * size - length


def make_request(index: int, prompt: Sequence[int], sampling: Sampling, family: Family) -> Request:
    """Check a prompt of token ids against the model. ValueError names the request and the remedy."""
    ids = np.asarray(prompt, dtype=np.int64)
    if ids.ndim != 1 or len(ids) == 0:
        raise ValueError(f"prompt {index} has shape {ids.shape}; give a non-empty list of token ids")
    if ids.min() < 0 or ids.max() >= family.vocab_size:
        raise ValueError(f"prompt {index} holds ids outside the model's vocabulary of {family.vocab_size} entries")
    if (ids == family.mask_id).any():
        raise ValueError(f"prompt {index} contains the mask token (id {family.mask_id}); remove it from the prompt")
    room = room_behind(len(ids), family)
    if room < 1:
        raise ValueError(
            f"prompt {index} has {len(ids)} tokens, which leaves no room for an answer: the model has "
            f"{family.max_length} positions; shorten the prompt"
        )
    if sampling.max_new_tokens is None:
        sampling = replace(sampling, max_new_tokens=min(DEFAULT_NEW_TOKENS, room))
    stops = (*(() if sampling.ignore_eos else family.stop_ids), *sampling.stop_ids)
    request = Request(index, ids.astype(np.int32), sampling, tuple(dict.fromkeys(stops)))
    size = padded_length(request.limit, family.block_size or 1)
    if size > family.max_length:
        raise ValueError(
            f"prompt {index} of {len(ids)} tokens plus max_new_tokens={sampling.max_new_tokens}, in whole blocks, "
            f"needs {size} positions; the model has {family.max_length}"
        )
    return request
