"""Plain prompts with their responses from a JSON-lines file: ``{"prompt": str, "response": str}``, one object a line.

No chat template comes in between: the model reads the prompt as it stands, and nothing is added to the response.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revelm.data.tokenizer import encode_text, end_of_turn_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def numbered_rows(path: str | Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of every line that is not blank; ValueError for a file in another encoding."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such data file")
    try:
        with file.open(encoding="utf-8") as lines:
            yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def is_prompt_file(path: str | Path) -> bool:
    """Whether the first row has a ``response``: such a file has plain rows throughout, any other one has chats."""
    line = next((line for _, line in numbered_rows(path)), "")
    try:
        return "response" in json.loads(line)
    except (json.JSONDecodeError, TypeError):
        return False


def read_prompt_rows(path: str | Path) -> list[tuple[str, str]]:
    """(prompt, response) of every row. ValueError names file, row (from 1), field and remedy."""
    return [_pair(line, f"{path}, row {number}") for number, line in numbered_rows(path)]


def encode_pair(tokenizer: "PreTrainedTokenizerFast", prompt: str, response: str) -> tuple[list[int], int]:
    """Ids of prompt and response, encoded apart, and how many are the prompt's.

    A response that ends with the end-of-turn token, spelt out, ends with that token; elsewhere special tokens are
    refused (ValueError), as they are in every text from people.
    """
    end = end_of_turn_id(tokenizer)
    prompt_ids, stop = encode_text(tokenizer, prompt, name="prompt"), list[int]()
    if end is not None and response.endswith(token := str(tokenizer.convert_ids_to_tokens(end))):
        response, stop = response.removesuffix(token), [end]
    return [*prompt_ids, *encode_text(tokenizer, response, name="response"), *stop], len(prompt_ids)


def _pair(line: str, where: str) -> tuple[str, str]:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(row, dict) or not {"prompt", "response"} <= row.keys():
        raise ValueError(f"{where}: must be an object with 'prompt' and 'response', like the first row of the file")
    for name in ("prompt", "response"):
        if not isinstance(row[name], str):
            raise ValueError(f"{where}: {name} must be a string, got {type(row[name]).__name__}")
    if not row["response"]:
        raise ValueError(f"{where}: response is empty; there is nothing to compute the likelihood of")
    return row["prompt"], row["response"]
