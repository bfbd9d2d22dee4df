"""Samples of users' files as token ids: chats through the chat template, rendered pairs and raw texts as they stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from revelm.core.types import Demonstration
from revelm.data.shapes import STEPS, Pair, Plain, Sample
from revelm.data.tokenizer import encode_demonstration, encode_text, end_of_turn_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Ids:
    """Token ids, of which the first ``prompt_length`` are given; ``step``: when each other one is revealed, from 1."""

    ids: tuple[int, ...]
    prompt_length: int
    step: tuple[int, ...] | None = None


def encode_sample(tokenizer: "PreTrainedTokenizerFast", sample: Sample, *, is_rendered: bool = False) -> Ids:
    """A sample to learn. Every response ends with the end-of-turn token, every text with the end of text, if any.

    ``is_rendered``: pairs have the marks of a chat in them (``is_rendered``); otherwise they go through the template.
    ValueError for a special token in a text that is not to have any, and for an order that does not fit its response.
    """
    if isinstance(sample, Demonstration):
        return Ids(*_fixed(encode_demonstration(tokenizer, sample.messages)))
    if isinstance(sample, Plain):
        return encode_whole(tokenizer, sample.text)
    if is_rendered:
        return _rendered(tokenizer, sample)
    turns = [{"role": "user", "content": sample.prompt}, {"role": "assistant", "content": sample.response}]
    ids, length = _fixed(encode_demonstration(tokenizer, turns))
    return Ids(ids, length, _steps(sample, len(ids) - length, is_end_added=True))


def spells_marks(tokenizer: "PreTrainedTokenizerFast", samples: Sequence[Any]) -> bool:
    """Whether ``samples`` are pairs that are rendered: the prompt of each one spells a special token, as in a template.

    One prompt alone that does is somebody's text, and never becomes a mark.
    """
    marks = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    pairs = [sample for sample in samples if isinstance(sample, Pair)]
    return bool(pairs) and all(any(mark in pair.prompt for mark in marks) for pair in pairs)


def encode_whole(tokenizer: "PreTrainedTokenizerFast", text: str) -> Ids:
    """A text without prompt, then the end of text. Where the tokenizer begins texts with a token, that one is given."""
    begin = [i for i in tokenizer("")["input_ids"][:1] if i == tokenizer.bos_token_id]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return Ids((*begin, *encode_text(tokenizer, text), *end), len(begin))


def encode_pair(tokenizer: "PreTrainedTokenizerFast", prompt: str, response: str) -> tuple[list[int], int]:
    """Ids of prompt and response, encoded apart, and how many are the prompt's; nothing is added.

    A response that ends with the end-of-turn token, spelt out, ends with that token; elsewhere special tokens are
    refused (ValueError), as they are in every text from people.
    """
    end = end_of_turn_id(tokenizer)
    prompt_ids, stop = encode_text(tokenizer, prompt, name="prompt"), list[int]()
    if end is not None and response.endswith(token := str(tokenizer.convert_ids_to_tokens(end))):
        response, stop = response.removesuffix(token), [end]
    return [*prompt_ids, *encode_text(tokenizer, response, name="response"), *stop], len(prompt_ids)


def pieces(sample: Ids, size: int) -> list[Ids]:
    """A text cut into pieces of ``size`` tokens, the last one shorter; only the first has its given beginning."""
    cuts = range(0, len(sample.ids), size)
    return [Ids(sample.ids[cut : cut + size], 0 if cut else sample.prompt_length) for cut in cuts]


def _rendered(tokenizer: "PreTrainedTokenizerFast", pair: Pair) -> Ids:
    """Special tokens that are spelt become ones; what follows the last end of turn is dropped, a missing one added."""
    end = end_of_turn_id(tokenizer)
    texts = (pair.prompt, pair.response)
    prompt, response = (list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    if tokenizer.mask_token_id in (*prompt, *response):
        raise ValueError(f"spells the mask token {tokenizer.mask_token!r}; remove it")
    is_end_added = end is not None and end not in response
    size = len(response) if end is None or is_end_added else len(response) - response[::-1].index(end)
    ids = [*response[:size], *([end] if end is not None and is_end_added else [])]
    step = _steps(pair, len(response) + is_end_added, is_end_added=is_end_added)
    return Ids((*prompt, *ids), len(prompt), None if step is None else step[: len(ids)])


def _steps(pair: Pair, size: int, *, is_end_added: bool) -> tuple[int, ...] | None:
    """The pair's order from 1, for ``size`` tokens; an added end of turn may have none, and then comes last."""
    if pair.step is None:
        return None
    step = pair.step
    if is_end_added and len(step) == size - 1:
        step = (*step, max(step, default=0) + 1)
    if len(step) != size:
        raise ValueError(
            f"{STEPS} has {len(step)} entries, and the response has {size} tokens; give the tokenizer the order was "
            "made with, or remove the field"
        )
    return tuple(entry - min(step) + 1 for entry in step)


def _fixed(found: tuple[list[int], int]) -> tuple[tuple[int, ...], int]:
    return tuple(found[0]), found[1]
