"""Demonstrations from a JSON-lines file: ``messages``, or ``prompt`` and ``completion``, one object per line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from revelm.core.types import Demonstration

ROLES = ("system", "user", "assistant")


def read_chat_rows(path: str | Path) -> list[Demonstration]:
    """All rows of the file; ``kind`` is the row's own field of that name, else "file". Blank lines are skipped.

    ``prompt`` may be a string or a list of messages. Other fields are ignored. Raises FileNotFoundError, or
    ValueError that names file, row (from 1), field and remedy; a file without rows is an error too.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such data file")
    try:
        with file.open(encoding="utf-8") as lines:
            rows = [_row(line, f"{file}, row {number}") for number, line in enumerate(lines, 1) if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    if not rows:
        raise ValueError(f"{file}: empty, at least one demonstration is needed")
    return rows


def _row(line: str, where: str) -> Demonstration:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: must be an object with 'messages' or 'prompt' and 'completion'")
    if "messages" in row:
        messages = _messages(row["messages"], f"{where}: messages")
    elif "prompt" in row and "completion" in row:
        messages = _prompt(row["prompt"], where) + _messages(
            _turn("assistant", row["completion"]), f"{where}: completion"
        )
    else:
        fields = ", ".join(map(str, row)) or "nothing"
        raise ValueError(f"{where}: needs 'messages', or 'prompt' and 'completion'; has {fields}")
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise ValueError(f"{where}: messages: the last of at least two turns must have the role 'assistant'")
    return Demonstration(messages, str(row.get("kind", "file")))


def _prompt(value: Any, where: str) -> tuple[Mapping[str, str], ...]:
    return _messages(_turn("user", value) if isinstance(value, str) else value, f"{where}: prompt")


def _turn(role: str, content: Any) -> list[dict[str, Any]]:
    """A single turn; a completion that is already a list of one message stays one."""
    return content if isinstance(content, list) else [{"role": role, "content": content}]


def _messages(value: Any, where: str) -> tuple[Mapping[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}: must be a list of at least one message, got {type(value).__name__}")
    for i, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise ValueError(f"{where}.{i}: must be an object whose 'content' is a string")
        if message.get("role") not in ROLES:
            raise ValueError(f"{where}.{i}.role: {message.get('role')!r}, must be one of {', '.join(ROLES)}")
    return tuple({"role": message["role"], "content": message["content"]} for message in value)
