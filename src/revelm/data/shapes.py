"""What a row of a user's file says, in each of the shapes that its columns may have.

A shape is known by its columns (``revelm.data.sniff`` finds it). Its reader turns a row into a sample: a chat that ends
with an answer, a prompt with its response, or a text as it stands. Readers raise ValueErrors that name the file, the
row and the field. In CSV, which has text alone, lists and objects are written as JSON.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from math import isfinite, isnan
from typing import Any, Literal

from revelm.core.types import Demonstration
from revelm.data.record_files import format_of
from revelm.data.rows import SURROGATE, Row, decimal_text, shortened

Format = Literal[
    "messages",
    "prompt_completion",
    "prompt_response",
    "chosen",
    "code",
    "verl",
    "question_answer",
    "instruction",
    "text",
    "rendered",
]
Fields = tuple[str, ...]

ROLES = ("system", "user", "assistant")
SPEAKERS = {
    **{role: role for role in ROLES},
    **dict.fromkeys(("gpt", "chatgpt"), "assistant"),  # as ShareGPT calls them
    "human": "user",
    "developer": "system",
}
SYSTEMS = ("system", "system_prompt")  # columns
UNREAD = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")  # of a message
QUESTIONS = ("question", "problem", "prompt", "query")
ANSWERS = ("response", "solution", "answer", "ground_truth_answer")
INPUTS = ("input", "context")  # of an instruction
PROGRAMS = ("completion", "response", "solution", "canonical_solution", "code")
STEPS = "step_map"


@dataclass(frozen=True)
class Pair:
    """A prompt and its response. ``step``: for each token of the response when it was revealed, as the file has it."""

    prompt: str
    response: str
    step: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Plain:
    """A text without prompt."""

    text: str


Sample = Demonstration | Pair | Plain


@dataclass(frozen=True)
class Shape:
    """``choices``: sets of columns, of which a file has one; ``also``: further ones that count when asked for by name.

    ``read``: a row, and which set of columns the file has, to a sample.
    """

    name: Format
    choices: tuple[Fields, ...]
    read: Callable[[Row, Fields], Sample]
    also: tuple[Fields, ...] = ()


def is_absent(row: Row, field: str) -> bool:
    """Whether a field is missing or null; in CSV, where null cannot be written, also whether it is empty."""
    value = row.get(field)
    return value is None or (isinstance(value, float) and isnan(value)) or (value == "" and _is_csv(row))


def content(row: Row, field: str) -> str:
    """A field as text, just as it stands; a number as it is written, 27.0 as 27. ValueError for anything else."""
    value = row.get(field)
    if is_absent(row, field):
        raise row.error(field, "missing or null; fill it in or remove the row")
    if isinstance(value, float | Decimal) and isfinite(value):
        return decimal_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise row.error(field, f"expected text, not {shortened(value)}")
    return _whole(row, field, value)


def read_messages(row: Row, fields: Fields) -> Demonstration:
    """A chat, of which the last assistant turn is learnt."""
    return _demonstration(row, fields[0], _chat(row, fields[0]))


def read_prompt_completion(row: Row, fields: Fields) -> Demonstration:
    """What is asked and what is answered, each a text or a list of messages."""
    prompt, completion = (_turns(row, field, role) for field, role in zip(fields, ("user", "assistant"), strict=True))
    return _demonstration(row, fields[1], prompt + completion)


def read_prompt_response(row: Row, fields: Fields) -> Sample:
    """The same; two texts stay texts, for they may have the marks of a chat in them already."""
    step = _integers(row, STEPS)
    values = [_value(row, field) for field in fields]
    has_system = any(not is_absent(row, name) for name in SYSTEMS)
    if step is None and (has_system or not all(isinstance(value, str) for value in values)):
        return read_prompt_completion(row, fields)
    prompt, response = (_text(row, field) for field in fields)
    if not response:
        raise row.error(fields[1], "empty; there is nothing to learn")
    return Pair(prompt, response, step)


def read_chosen(row: Row, fields: Fields) -> Demonstration:
    """The preferred answer of two: a chat, or an answer to ``prompt``."""
    *prompt, chosen = fields
    answer = _turns(row, chosen, "assistant")
    asked = _turns(row, prompt[0], "user") if prompt else ()
    return _demonstration(row, chosen, answer if answer[: len(asked)] == asked else asked + answer)


def refuse_preferences(row: Row, fields: Fields) -> Sample:
    """ValueError: of two answers it has to be said that the better one is meant."""
    told = " and ".join(repr(field) for field in fields)
    raise ValueError(f"{row.path}: its columns {told} are preferences; to learn the chosen answers give format: chosen")


def read_code(row: Row, fields: Fields) -> Demonstration:
    """A programming problem and a program. ValueError where it has none: tests cannot be learnt."""
    asked = next((name for name in (*QUESTIONS, "text") if not is_absent(row, name)), QUESTIONS[0])
    program = next((name for name in PROGRAMS if not is_absent(row, name)), None)
    if program is None:
        raise row.error(
            fields[0],
            f"has tests but no program to learn; give one as {' or '.join(PROGRAMS)}, or let `revelm rl` learn from "
            "the tests, as task.data",
        )
    return _asked(row, content(row, asked), program)


def read_verl(row: Row, fields: Fields) -> Demonstration:
    """A chat up to the answer; learnt is ``extra_info.answer``, or else the ground truth alone."""
    asked = _chat(row, fields[0])
    inner = Row(row.path, row.number, row.line, {name: _value(row, name) for name in (fields[1], "extra_info")})
    worked, truth = "extra_info.answer", f"{fields[1]}.ground_truth"
    field = truth if is_absent(inner, worked) else worked
    return _demonstration(row, fields[0], (*asked, _turn("assistant", content(_first(inner, field), field))))


def read_question_answer(row: Row, fields: Fields) -> Demonstration:
    """A question and an answer."""
    return _asked(row, content(row, fields[0]), fields[1], before=_history(row))


def read_instruction(row: Row, fields: Fields) -> Demonstration:
    """An instruction, with its input below it where there is one, and an output (Alpaca, Dolly)."""
    given = next((content(row, name) for name in INPUTS if not is_absent(row, name)), "")
    asked = content(row, fields[0])
    return _asked(row, f"{asked}\n\n{given}" if given.strip() else asked, fields[1], before=_history(row))


def read_text(row: Row, fields: Fields) -> Plain:
    """A text as it stands."""
    return Plain(_text(row, fields[0]))


def read_rendered(row: Row, fields: Fields) -> Pair:
    """Two texts with the marks of a chat in them."""
    return Pair(_text(row, fields[0]), _text(row, fields[1]), _integers(row, STEPS))


def _asked(row: Row, question: str, field: str, *, before: tuple[Mapping[str, str], ...] = ()) -> Demonstration:
    """A question and the answer in a field, of several the first; ``before``: the turns until then."""
    answer = content(_first(row, field), field)
    if not answer:
        raise row.error(field, "empty; there is nothing to learn")
    return _demonstration(row, field, (*before, _turn("user", question), _turn("assistant", answer)))


def _first(row: Row, field: str) -> Row:
    """The row, or where the field is a list, one with the first entry in its place."""
    value = row.get(field)
    return replace(row, fields={**row.fields, field: value[0]}) if isinstance(value, list) and value else row


def _history(row: Row) -> tuple[Mapping[str, str], ...]:
    """The turns before a question or an instruction: ``history``, pairs of what was asked and answered."""
    pairs = _value(row, "history")
    if is_absent(row, "history") or pairs in ("", []):
        return ()
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise row.error("history", f"must be a list of pairs of texts, got {shortened(pairs)}")
    inner = [replace(row, fields={"history": said}) for pair in pairs for said in pair]
    return tuple(_turn(ROLES[1 + i % 2], _text(one, "history")) for i, one in enumerate(inner))


def _demonstration(row: Row, field: str, messages: tuple[Mapping[str, str], ...]) -> Demonstration:
    told = next((name for name in SYSTEMS if not is_absent(row, name)), None)
    if told is not None and (said := _text(row, told)).strip():
        if messages and messages[0]["role"] == "system" and messages[0]["content"] != said:
            raise row.error(told, "the chat has a system turn of its own; leave one of the two out")
        rest = messages[1:] if messages and messages[0]["role"] == "system" else messages
        messages = (_turn("system", said), *rest)
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise row.error(field, "the last of at least two turns must have the role 'assistant'")
    return Demonstration(messages, "file" if is_absent(row, "kind") else str(row.get("kind")))


def _turns(row: Row, field: str, role: str) -> tuple[Mapping[str, str], ...]:
    """A text as one turn of ``role``, or a list of messages."""
    return _chat(row, field) if isinstance(_value(row, field), list) else (_turn(role, _text(row, field)),)


def _turn(role: str, said: str) -> Mapping[str, str]:
    return {"role": role, "content": said}


def _chat(row: Row, field: str) -> tuple[Mapping[str, str], ...]:
    """The messages of a field: ``role`` and ``content``, or ``from`` and ``value``."""
    value = _value(row, field)
    if isinstance(value, Mapping) and (columns := _columns(value)):
        value = [dict(zip(value, message, strict=True)) for message in zip(*columns, strict=True)]
    if not isinstance(value, list) or not value:
        raise row.error(field, f"must be a list of at least one message, got {shortened(value)}")
    return tuple(_message(row, f"{field}.{i}", message) for i, message in enumerate(value))


def _columns(value: Mapping[str, Any]) -> list[list[Any]]:
    """The lists of an object that holds equally long ones, as ``datasets`` keeps a sequence of objects; else none."""
    found = [column for column in value.values() if isinstance(column, list)]
    return found if len(found) == len(value) and len({len(column) for column in found}) == 1 else []


def _message(row: Row, field: str, message: Any) -> Mapping[str, str]:
    if not isinstance(message, Mapping):
        raise row.error(field, f"must be an object with 'role' and 'content', got {shortened(message)}")
    role, said = ("role", "content") if message.get("role") is not None else ("from", "value")
    if message.get(role) is None:
        raise row.error(f"{field}.role", "missing or null")
    if not isinstance(message[role], str) or message[role] not in SPEAKERS:
        raise row.error(f"{field}.{role}", f"{shortened(message[role])}, must be one of {', '.join(SPEAKERS)}")
    if unread := next((name for name in UNREAD if message.get(name)), None):
        raise row.error(f"{field}.{unread}", f"is not learnt; write it into {said!r}, or leave the row out")
    text = message.get(said)
    if isinstance(text, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in text):
        text = "".join(str(part.get("text")) for part in text)
    if not isinstance(text, str):
        raise row.error(f"{field}.{said}", f"must be text, got {shortened(text)}")
    return _turn(SPEAKERS[message[role]], _whole(row, f"{field}.{said}", text))


def _text(row: Row, field: str) -> str:
    """A field that is text, just as it stands."""
    if is_absent(row, field) or not isinstance(row.get(field), str):
        raise row.error(field, f"must be text, got {shortened(row.get(field))}")
    return content(row, field)


def _value(row: Row, field: str) -> Any:
    """A field's value; in CSV, the list or object that its text is the JSON of."""
    value = row.get(field)
    if isinstance(value, str) and _is_csv(row) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _integers(row: Row, field: str) -> tuple[int, ...] | None:
    """The field as integers; None where it is missing or null."""
    value = _value(row, field)
    if is_absent(row, field):
        return None
    if not isinstance(value, list) or not value or any(type(entry) is not int or entry < 0 for entry in value):
        raise row.error(field, f"must be a list of integers from 0, got {shortened(value)}")
    return tuple(value)


def _whole(row: Row, field: str, text: str) -> str:
    if half := SURROGATE.search(text):
        raise row.error(field, f"character {half.start() + 1} is half of one (a lone surrogate); correct it")
    return text


def _is_csv(row: Row) -> bool:
    return format_of(row.path) == ".csv"
