"""What callers hand in as a prompt (ids, text or messages), as token ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Number
from operator import index
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from revelm.core.types import Family
from revelm.data.tokenizer import encode_chat, encode_open_turn
from revelm.decoding.sampling import Sampling
from revelm.engine.request import Request, make_infill, make_request


@dataclass(frozen=True)
class Infill:
    """A text with holes: ``tokens`` are ids, and None at every position that is to be filled.

    The tokens before the first hole are the prompt, all others the completion, in which given ones have step 0. The
    model sees all of them at every step, so it needs full attention. See docs/caches.md.
    """

    tokens: Sequence[int | None]


Prompt: TypeAlias = str | Sequence[int] | Sequence[Mapping[str, str]] | Infill


def prompt_ids(
    prompt: str | Sequence[int] | Sequence[Mapping[str, str]], tokenizer: Any | None, *, name: str = "the prompt"
) -> list[int]:
    """Ids of one prompt: a string is encoded as it stands, messages through the tokenizer's chat template.

    Messages that end with an assistant's are gone on with: the last one is the beginning of the answer.
    ValueError, which calls the prompt ``name``, for what is neither of them nor integers.
    """
    is_chat = not isinstance(prompt, str) and len(prompt) > 0 and isinstance(prompt[0], Mapping)
    if (isinstance(prompt, str) or is_chat) and tokenizer is None:
        raise ValueError("a prompt of text or messages needs a tokenizer; pass tokenizer=load_tokenizer(path) or ids")
    if isinstance(prompt, str):
        return list(tokenizer.encode(prompt, add_special_tokens=False))  # type: ignore[union-attr]
    if is_chat and prompt[-1].get("role") == "assistant":  # type: ignore[union-attr]
        return encode_open_turn(tokenizer, prompt)
    if is_chat:
        return encode_chat(tokenizer, prompt, add_generation_prompt=True)
    return [_token_id(i, name) for i in _entries(prompt)]


def make_requests(
    prompts: Sequence[Prompt], sampling: Sampling | Sequence[Sampling], family: Family, tokenizer: Any | None
) -> list[Request]:
    """Checked requests, one per prompt.

    One ``Sampling`` for all gives request i the seed ``sampling.seed + i`` (wrapped to 64 bits), so that equal prompts
    get different answers; a list gives every request exactly its own. ValueError for one prompt in place of a list.
    """
    _check_list(prompts)
    if isinstance(sampling, Sampling):
        seeds = [(sampling.seed + i + 2**63) % 2**64 - 2**63 for i in range(len(prompts))]
        settings: Sequence[Sampling] = [replace(sampling, seed=seed) for seed in seeds]
    else:
        settings = sampling
    if len(settings) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts but {len(settings)} sampling settings; give one, or one per prompt")
    if tokenizer is None and any(s.stop_strings for s in settings):
        raise ValueError("sampling.stop_strings needs a tokenizer; pass tokenizer=load_tokenizer(path) or use stop_ids")
    return [
        make_infill(i, _known_ids(p, name=f"prompt {i}"), s, family)
        if isinstance(p, Infill)
        else make_request(i, prompt_ids(p, tokenizer, name=f"prompt {i}"), s, family)
        for i, (p, s) in enumerate(zip(prompts, settings, strict=True))
    ]


def _known_ids(infill: Infill, *, name: str) -> list[int | None]:
    """The ids of a text with holes, None at every hole."""
    return [None if entry is None else _token_id(entry, name) for entry in _entries(infill.tokens)]


def _entries(values: Any) -> Sequence[Any]:
    """An array or tensor as a list of Python's numbers, much faster to go through; all else as it is."""
    return values.tolist() if isinstance(values, np.ndarray | Tensor) else values


def _token_id(value: Any, name: str) -> int:
    """``value`` unless it is no integer: rounded, 1.7 would be an id that nobody gave."""
    try:
        return index(value)
    except TypeError:
        raise ValueError(f"{name} holds {value!r}, which is no token id; give integers") from None


def _check_list(prompts: Any) -> None:
    """One prompt where a list of them belongs would be read as many (a string, letter by letter)."""
    is_single = isinstance(prompts, str | Infill) or _is_part(prompts)
    if is_single or any(_is_part(p) for p in prompts):
        raise ValueError("prompts: expected a list of prompts, got a single one; write [prompt]")


def _is_part(value: Any) -> bool:
    """Whether this is a part of a prompt, a number or a message, and no prompt."""
    if isinstance(value, np.ndarray | Tensor):
        return value.ndim == 0
    return isinstance(value, Number | Mapping | np.bool_)
