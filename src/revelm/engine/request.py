"""One request: prompt ids and how to decode it, checked before any work begins."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from revelm.core.grid import block_start, padded_length
from revelm.core.types import Family, require_diffusion
from revelm.decoding.sampling import Sampling
from revelm.trajectories.record import NEVER

DEFAULT_NEW_TOKENS = 256


@dataclass(frozen=True, eq=False)
class Request:
    """``index``: the engine's number for it, in order of arrival; ``prompt_ids`` int32 [P]; ``sampling`` says how many
    tokens.

    It is decoded window by window on a canvas of ``length`` positions. ``window``: positions of one window (a block
    of block models); windows are counted from ``grid_offset``. ``given``: tokens int64 [length - P] that are known
    behind the prompt, -1 at the holes between them (infilling); None: all are holes. Requests of one ``key`` may share
    a prefilled prompt. ``is_streamed``: someone wants to hear of every commit.
    """

    index: int
    prompt_ids: np.ndarray
    sampling: Sampling
    stop_ids: tuple[int, ...]
    window: int
    grid_offset: int
    length: int
    given: np.ndarray | None = None
    key: Hashable = None
    is_streamed: bool = False

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
    _check_settings(index, sampling, family)
    own = _block_size(family)
    if own is not None and sampling.block_size not in (None, own):
        raise ValueError(
            f"prompt {index}: sampling.block_size is {sampling.block_size}, but {family.name} decodes blocks of {own}; "
            f"give {own} or leave it out"
        )
    if reason := shortage(len(ids), sampling, family):
        raise ValueError(f"prompt {index} {reason}")
    count = _num_new_tokens(len(ids), sampling, family)
    stops = (*(() if sampling.ignore_eos else family.stop_ids), *sampling.stop_ids)
    return Request(
        index=index,
        prompt_ids=ids.astype(np.int32),
        sampling=replace(sampling, max_new_tokens=count),
        stop_ids=tuple(dict.fromkeys(stops)),
        window=own or min(sampling.block_size or count, count),
        grid_offset=len(ids) if own is None else 0,
        length=padded_length(len(ids) + count, own or 1),
    )


def shortage(length: int, sampling: Sampling, family: Family) -> str:
    """Why a prompt of ``length`` tokens leaves too little room for an answer, as the end of a sentence; "" when not."""
    if room_behind(length, family) < 1:
        room = f"the model has {family.max_length} positions"
        return f"has {length} tokens, which leaves no room for an answer: {room}; shorten the prompt"
    count, own = _num_new_tokens(length, sampling, family), _block_size(family)
    needed = padded_length(length + count, own or 1)
    if needed <= family.max_length:
        return ""
    whole = "" if own is None else ", in whole blocks,"
    return (
        f"of {length} tokens plus max_new_tokens={count}{whole} needs {needed} positions; the model has "
        f"{family.max_length}"
    )


def _num_new_tokens(length: int, sampling: Sampling, family: Family) -> int:
    if sampling.max_new_tokens is None:
        return min(DEFAULT_NEW_TOKENS, room_behind(length, family))
    return sampling.max_new_tokens


def make_infill(index: int, tokens: Sequence[int | None], sampling: Sampling, family: Family) -> Request:
    """A request to fill the holes, None, between ``tokens``; what stands before the first one is the prompt.

    What the family stops at means nothing in a text whose end is given; explicit ``stop_ids`` are honoured in holes.
    ValueError names the request and the remedy.
    """
    if family.attention == "block":
        raise ValueError(
            f"prompt {index}: an Infill needs full attention, but {family.name} writes block after block and a block "
            "never sees what stands behind it; use a full-attention model"
        )
    ids = np.array([NEVER if token is None else token for token in tokens], dtype=np.int64)
    is_hole = np.array([token is None for token in tokens], dtype=bool)
    if not is_hole.any() or is_hole[0]:
        problem = "begins with a hole" if is_hole.any() else "has no hole"
        raise ValueError(f"prompt {index}: the Infill {problem}; give token ids first, then None where one is missing")
    length = int(is_hole.argmax())
    count = len(ids) - length
    if sampling.max_new_tokens not in (None, count):
        raise ValueError(
            f"prompt {index}: sampling.max_new_tokens is {sampling.max_new_tokens}, but the Infill has {count} "
            "positions from its first hole on; leave it out"
        )
    if sampling.stop_strings:
        raise ValueError(f"prompt {index}: sampling.stop_strings cannot be searched in an Infill; use stop_ids")
    if family.mask_id in tokens:
        raise ValueError(f"prompt {index}: the Infill holds the mask token (id {family.mask_id}); a hole is None")
    _check_ids(index, np.where(is_hole, ids[0], ids), family)
    settings = replace(sampling, max_new_tokens=count, ignore_eos=True)
    return replace(make_request(index, ids[:length].tolist(), settings, family), given=ids[length:])


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


def _check_settings(index: int, sampling: Sampling, family: Family) -> None:
    """Ids that settings name are the model's, and some are left to draw."""
    for name in ("banned_ids", "stop_ids"):
        outside = [i for i in vars(sampling)[name] if not 0 <= i < family.vocab_size]
        if outside:
            raise ValueError(
                f"prompt {index}: sampling.{name} holds {outside[0]}, but the model's vocabulary has "
                f"{family.vocab_size} entries; give ids of its own tokenizer, 0..{family.vocab_size - 1}"
            )
    if len({*sampling.banned_ids, *family.banned_ids}) >= family.vocab_size:
        raise ValueError(
            f"prompt {index}: sampling.banned_ids leaves none of the model's {family.vocab_size} tokens; leave at "
            "least one"
        )
