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
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from revelm.core.atomic import atomic_files
from revelm.core.git_lfs import refuse_pointer
from revelm.data.tokenizer_files import GENERIC_CLASS, TOKENIZER_CONFIG, portable_settings, tokenizer_files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, MASK, END = "<|pad|>", "<|mask|>", "<|im_end|>"
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

PROBE = "\u2603"  # a content that no template writes of itself

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
    """Write the tokenizer's files into ``folder``, in words that transformers 4 and 5 read.

    They replace whatever tokenizer was there. OSError when writing fails, with ``folder`` as it was.
    """
    former = [file.name for file in tokenizer_files(Path(folder))]
    with atomic_files(folder, last=TOKENIZER_CONFIG, obsolete=former) as place:
        tokenizer.save_pretrained(str(place))
        file = place / TOKENIZER_CONFIG
        settings = portable_settings(json.loads(file.read_text(encoding="utf-8")))
        file.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_tokenizer(
    folder: str | Path,
    *,
    mask_id: int | None = None,
    mask_token: str | None = None,
    chat_template: str | None = None,
    needs_mask: bool = True,
    stand_ins: Mapping[str, str] = MappingProxyType({}),
) -> "PreTrainedTokenizerFast":
    """The tokenizer in a local directory, with what its files leave open filled in.

    A mask token that only config.json knows (``mask_id``), or that is in the vocabulary without a title
    (``mask_token``), is declared; ``chat_template`` serves where there is none; without a pad token the end-of-turn
    token pads. ``stand_ins``: tokenizer classes that exist only as code beside a checkpoint, and the class of
    transformers that reads the same files. Raises ValueError when files are missing or damaged, or there is no mask
    token but ``needs_mask``.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ValueError(f"tokenizer path {str(folder)!r} is not a directory")
    tokenizer = _from_local(place, stand_ins)
    if tokenizer.mask_token_id is None:
        _declare_mask(tokenizer, mask_id, mask_token)
    if tokenizer.mask_token_id is None and needs_mask:
        raise ValueError(
            f"the tokenizer of {str(folder)!r} has no mask token. Name an existing one as mask_token in "
            "tokenizer_config.json, or add one together with its row of the embedding: `revelm convert`"
        )
    if not tokenizer.chat_template and chat_template is not None:
        tokenizer.chat_template = chat_template
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def end_of_turn_id(tokenizer: "PreTrainedTokenizerFast") -> int | None:
    """The special token that the chat template writes behind an assistant's turn; else the end of text, if any.

    A template may insist on a system's turn, or refuse an assistant's: what cannot be rendered is not asked again.
    """
    asked = [{"role": "user", "content": "?"}, {"role": "assistant", "content": PROBE}]
    for turns in (asked, [{"role": "system", "content": "?"}, *asked]) if tokenizer.chat_template else ():
        try:
            before, _, behind = _render(tokenizer, turns, False).rpartition(PROBE)
        except ValueError:
            continue
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        found = [i for i in _encode(tokenizer, behind) if i in special]
        if before and found:
            return found[0]
    return tokenizer.eos_token_id


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
    end = end_of_turn_id(tokenizer)
    if end is None:
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
    response = response[: response.index(end)] if end in response else response
    return [*prompt_ids, *response, end], len(prompt_ids)


def encode_open_turn(tokenizer: "PreTrainedTokenizerFast", messages: Messages) -> list[int]:
    """Ids of a chat whose last message, an assistant's, is the beginning of an answer: nothing ends its turn.

    That beginning is encoded apart from what precedes it, as responses are in training. Raises ValueError for messages
    of other roles, a beginning without a question, and content that spells a special token.
    """
    *asked, opening = messages
    if not asked or opening.get("role") != "assistant":
        raise ValueError("messages: the beginning of an answer must follow a question, with the role 'assistant'")
    _check_content(tokenizer, messages)
    return encode_chat(tokenizer, asked) + _encode(tokenizer, opening["content"])


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


def _from_local(folder: Path, stand_ins: Mapping[str, str]) -> "PreTrainedTokenizerFast":
    import transformers
    from transformers import AutoTokenizer, PreTrainedConfig

    file = folder / TOKENIZER_CONFIG
    if not file.is_file():
        raise ValueError(f"{folder}: {TOKENIZER_CONFIG} is missing: not a checkpoint directory, or an incomplete one")
    for one in tokenizer_files(folder):
        refuse_pointer(one)
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        named = settings.get("tokenizer_class")
        if named in stand_ins or ("auto_map" in settings and named not in dir(transformers)):
            # The class is code that came with the checkpoint, which is not run.
            return _fast(getattr(transformers, _stand_in(named, folder, stand_ins)).from_pretrained(str(folder)))
        # The model's own config.json only matters when no class is named; the model type need not be known.
        known = {} if named is None else {"config": PreTrainedConfig()}
        how = {"local_files_only": True, "trust_remote_code": False, **known}
        return _fast(AutoTokenizer.from_pretrained(str(folder), **how))
    except Exception as error:  # a boundary: files of others, errors of many types
        raise ValueError(f"{folder}: tokenizer files are damaged or incomplete ({_first_line(error)})") from error


def _stand_in(named: str, folder: Path, stand_ins: Mapping[str, str]) -> str:
    """The class of transformers that reads the files of a class it does not have."""
    if named in stand_ins:
        return stand_ins[named]
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"its class {named} is code of its own, and there is no tokenizer.json")
    return GENERIC_CLASS


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
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt))
    except Exception as error:  # a boundary: a template is a program of others
        roles = ", ".join(str(message.get("role")) for message in messages)
        raise ValueError(f"the chat template refuses turns of {roles} ({_first_line(error)})") from error


def _check_content(tokenizer: "PreTrainedTokenizerFast", messages: Messages) -> None:
    for i, message in enumerate(messages):
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise ValueError(f"messages.{i}: must have the strings 'role' and 'content', got {dict(message)!r}")
        encode_text(tokenizer, message["content"], name=f"messages.{i}.content")


def _declare_mask(tokenizer: "PreTrainedTokenizerFast", mask_id: int | None, mask_token: str | None) -> None:
    """Give the mask its title, if the vocabulary has it by number or by text."""
    if mask_id is not None and 0 <= mask_id < len(tokenizer):
        tokenizer.mask_token = tokenizer.convert_ids_to_tokens(mask_id)
    elif mask_token is not None and mask_token in tokenizer.get_added_vocab():
        tokenizer.mask_token = mask_token


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
