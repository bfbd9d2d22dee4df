"""One request: prompt ids and how to decode it, checked before any work begins."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from revelm.core.grid import padded_length
from revelm.core.types import Family
from revelm.decoding.sampling import Sampling


@dataclass(frozen=True, eq=False)
class Request:
    """``index`` is the place in the caller's list; ``prompt_ids`` int32 [P]."""

    index: int
    prompt_ids: np.ndarray
    sampling: Sampling
    stop_ids: tuple[int, ...]

    @property
    def limit(self) -> int:
        """One past the last position that may count as response."""
        return len(self.prompt_ids) + self.sampling.max_new_tokens


def make_request(index: int, prompt: Sequence[int], sampling: Sampling, family: Family) -> Request:
    """Check a prompt of token ids against the model. ValueError names the request and the remedy."""
    ids = np.asarray(prompt, dtype=np.int64)
    if ids.ndim != 1 or len(ids) == 0:
        raise ValueError(f"prompt {index} has shape {ids.shape}; give a non-empty list of token ids")
    if ids.min() < 0 or ids.max() >= family.vocab_size:
        raise ValueError(f"prompt {index} holds ids outside the model's vocabulary of {family.vocab_size} entries")
    if (ids == family.mask_id).any():
        raise ValueError(f"prompt {index} contains the mask token (id {family.mask_id}); remove it from the prompt")
    stops = (*(() if sampling.ignore_eos else family.stop_ids), *sampling.stop_ids)
    request = Request(index, ids.astype(np.int32), sampling, tuple(dict.fromkeys(stops)))
    size = padded_length(request.limit, family.block_size or 1)
    if size > family.max_length:
        raise ValueError(
            f"prompt {index} of {len(ids)} tokens plus max_new_tokens={sampling.max_new_tokens}, in whole blocks, "
            f"needs {size} positions; the model has {family.max_length}"
        )
    return request
