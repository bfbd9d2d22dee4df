"""Tokenizers: the small one this project builds, any other one by path or id, and chats as token ids.

The small one is a byte-level BPE: every text survives encode and decode unchanged; digits, line ends and ``+ - * =``
are always tokens of their own, so that a number's tokens do not depend on its neighbours. A chat turn costs two
tokens, ``<|role|>content<|im_end|>``; the answer follows ``<|assistant|>``.

Text from people never becomes a special token: content that spells one is refused, for it could end a turn early or
put a mask where the model expects a decision.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, MASK, END = "<|pad|>", "<|mask|>", "<|im_end|>"
GENERIC_CLASS = "PreTrainedTokenizerFast"
ROLES = ("system", "user", "assistant")
SPECIAL_TOKENS = (PAD, MASK, END, *(f"<|{role}|>" for role in ROLES))
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)
MAX_CHARACTER_TOKENS = 4  # bytes of a character in UTF-8
SPLIT = r"[0-9]|[-+*=]|\n| ?[^\s0-9+\-*=]+|[^\S\n]+"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('role ' + message['role'] + ' is not one of system, user, assistant') }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

Messages = Sequence[Mapping[str, str]]


def build_tiny_tokenizer(texts: Iterable[str], vocab_size: int = 384) -> "PreTrainedTokenizerFast":
    """A small tokenizer whose merges are learnt from ``texts``; the same texts always give the same tokenizer.

    ``vocab_size`` is an upper limit (few texts have few merges), at least 262: the bytes and the special tokens.
    Pad, mask and end of turn have the ids 0, 1, 2. Save with ``save_tokenizer``.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size < MIN_VOCAB_SIZE:
        raise ValueError(f"vocab_size is {vocab_size}, must be at least {MIN_VOCAB_SIZE} (all bytes, special tokens)")
    tokenizer = Tokenizer(models.BPE())
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"), bytes_of])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        mask_token=MASK,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(tokenizer: "PreTrainedTokenizerFast", folder: str | Path) -> None:
    """Write the tokenizer files into ``folder``, under the class name that every release of transformers reads."""
    tokenizer.save_pretrained(str(folder))
    file = Path(folder) / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["tokenizer_class"] = config["tokenizer_class"].replace("TokenizersBackend", GENERIC_CLASS)
    file.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def load_tokenizer(path_or_id: str | Path) -> "PreTrainedTokenizerFast":
    """The tokenizer of a local checkpoint directory, or of a model id on the Hugging Face hub.

    A mask token that only config.json knows (``mask_token_id``) is declared; without a pad token the end-of-turn token
    pads. Raises ValueError when files are missing or damaged, the hub cannot be reached, or there is no mask token.
    """
    folder = Path(path_or_id)
    if not folder.is_dir() and (folder.is_absolute() or str(path_or_id)[:1] in ".~" or len(folder.parts) > 2):
        raise ValueError(f"tokenizer path {str(path_or_id)!r} is not a directory")
    tokenizer = _from_local(folder) if folder.is_dir() else _from_hub(str(path_or_id))
    _declare_mask(tokenizer, folder)
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def encode_text(tokenizer: "PreTrainedTokenizerFast", text: str, *, name: str = "text") -> list[int]:
    """Ids of plain ``text``, nothing added. ValueError when it spells a special token (``name``: what to call it)."""
    ids = _encode(tokenizer, text)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    found = [i for i in ids if i in special]
    if found:
        token = tokenizer.convert_ids_to_tokens(found[0])
        raise ValueError(f"{name} spells the special token {token!r}; remove it, or put a space inside it")
    return ids


def encode_chat(
    tokenizer: "PreTrainedTokenizerFast", messages: Messages, *, add_generation_prompt: bool = True
) -> list[int]:
    """Ids of a chat through the tokenizer's template. ValueError for content that spells a special token."""
    _check_content(tokenizer, messages)
    return _encode(tokenizer, _render(tokenizer, messages, add_generation_prompt))


def encode_demonstration(tokenizer: "PreTrainedTokenizerFast", messages: Messages) -> tuple[list[int], int]:
    """Ids of a chat that ends with the assistant's turn, and how many of them are the prompt.

    The prompt reaches to the end of the generation prompt and has the ids that generation would start from: prompt
    and response are encoded apart, no token straddles the two. The response ends with the end-of-turn token; what a
    template writes after it is dropped. Raises ValueError when the last turn is not the assistant's, or when the
    template writes a history that does not begin with the prompt.
    """
    if len(messages) < 2 or messages[-1].get("role") != "assistant":
        raise ValueError("messages: the last of at least two turns must have the role 'assistant'")
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-turn token; set eos_token in tokenizer_config.json")
    _check_content(tokenizer, messages)
    prompt = _render(tokenizer, messages[:-1], True)
    whole = _render(tokenizer, messages, False)
    if not whole.startswith(prompt):
        raise ValueError(
            "chat_template: the rendered chat does not begin with its own generation prompt "
            f"(...{prompt[-40:]!r}), so a model would be trained on another prompt than it is asked with"
        )
    prompt_ids, response = _encode(tokenizer, prompt), _encode(tokenizer, whole[len(prompt) :])
    end = tokenizer.eos_token_id
    response = response[: response.index(end)] if end in response else response
    return [*prompt_ids, *response, end], len(prompt_ids)


def token_pieces(tokenizer: "PreTrainedTokenizerFast", ids: Sequence[int]) -> tuple[str, ...]:
    """The text of each token, special ones spelt out; joined, they are the text of ``ids``.

    A character that several tokens share belongs to the last of them; the others get "".
    """
    pieces: list[str] = []
    pending: list[int] = []
    for token in ids:
        pending.append(int(token))
        text = str(tokenizer.decode(pending))
        is_partial = text.endswith("\ufffd") and len(pieces) + 1 < len(ids) and len(pending) < MAX_CHARACTER_TOKENS
        pieces.append("" if is_partial else text)
        pending = pending if is_partial else []
    return tuple(pieces)


def _from_local(folder: Path) -> "PreTrainedTokenizerFast":
    from transformers import AutoTokenizer, PreTrainedConfig

    file = folder / "tokenizer_config.json"
    if not file.is_file():
        raise ValueError(
            f"{folder}: tokenizer_config.json is missing: not a checkpoint directory, or an incomplete one"
        )
    try:
        # The model's own config.json only matters when no class is named; transformers need not know the model type.
        is_named = "tokenizer_class" in json.loads(file.read_text(encoding="utf-8"))
        known = {"config": PreTrainedConfig()} if is_named else {}
        return _fast(AutoTokenizer.from_pretrained(str(folder), local_files_only=True, **known))
    except Exception as error:  # a boundary: files of others, errors of many types
        raise ValueError(f"{folder}: tokenizer files are damaged or incomplete ({_first_line(error)})") from error


def _from_hub(name: str) -> "PreTrainedTokenizerFast":
    from transformers import AutoTokenizer

    try:
        return _fast(AutoTokenizer.from_pretrained(name))
    except Exception as error:  # a boundary: network and files of others, errors of many types
        raise ValueError(
            f"cannot load a tokenizer from {name!r}: no such directory, and no hub id that can be reached from here; "
            f"give a local checkpoint directory ({_first_line(error)})"
        ) from error


def _fast(tokenizer: Any) -> "PreTrainedTokenizerFast":
    """The tokenizer itself; ValueError for the slow kind, whose ids we could not trace back to text."""
    if not tokenizer.is_fast:
        raise ValueError("only tokenizers with a tokenizer.json are supported")
    return tokenizer


def _encode(tokenizer: "PreTrainedTokenizerFast", text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _render(tokenizer: "PreTrainedTokenizerFast", messages: Messages, add_generation_prompt: bool) -> str:
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template; add chat_template.jinja to the checkpoint directory")
    turns: list[Any] = [dict(message) for message in messages]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt))


def _check_content(tokenizer: "PreTrainedTokenizerFast", messages: Messages) -> None:
    for i, message in enumerate(messages):
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise ValueError(f"messages.{i}: must have the strings 'role' and 'content', got {dict(message)!r}")
        encode_text(tokenizer, message["content"], name=f"messages.{i}.content")


def _declare_mask(tokenizer: "PreTrainedTokenizerFast", folder: Path) -> None:
    """Set the mask token from config.json when the tokenizer does not name it; ValueError when nobody does."""
    if tokenizer.mask_token_id is not None:
        return
    config = folder / "config.json"
    mask_id = json.loads(config.read_text(encoding="utf-8")).get("mask_token_id") if config.is_file() else None
    if not isinstance(mask_id, int) or not 0 <= mask_id < len(tokenizer):
        raise ValueError(
            f"the tokenizer of {str(folder)!r} has no mask token. Name an existing one as mask_token in "
            "tokenizer_config.json, or add one: tokenizer.add_special_tokens({'mask_token': '<|mask|>'}), save it, "
            "and give the model's embedding a row for it"
        )
    tokenizer.mask_token = tokenizer.convert_ids_to_tokens(mask_id)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
