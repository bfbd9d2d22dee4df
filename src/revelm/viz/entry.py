"""One trajectory made ready for drawing: its tokens as text, their blocks, and the facts for a header.

Token text comes from the caller, because turning ids into text needs a tokenizer and drawing does not.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revelm.core.grid import block_of
from revelm.trajectories.record import Trajectory

_NON_CHARACTERS = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_SPECIAL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef" + _NON_CHARACTERS + "]"
)
"""What ``_shown_character`` may change, but for newlines and tabs."""
_NAMED = {"\n": "\u23ce\n", "\t": "\u21e5", "\r": "\u240d", "\x7f": "\u2421"}


@dataclass(frozen=True)
class TraceEntry:
    """One trajectory to draw. ``pieces[i]`` is the text of completion token i (may be empty).

    ``label`` heads the panel ("before RL"), ``note`` is one line of context under it ("reward 0").
    ``replaced_pieces``: for each of the trajectory's edits the text of the token it replaced; left out, those are shown
    by their ids. Raises ValueError when there is not exactly one piece per completion token, or per edit.
    """

    trajectory: Trajectory
    pieces: tuple[str, ...]  # R
    prompt_text: str
    label: str
    note: str = ""
    replaced_pieces: tuple[str, ...] = ()  # one per edit, or none

    def __post_init__(self) -> None:
        size = len(self.trajectory.completion_ids)
        if len(self.pieces) != size:
            raise ValueError(
                f"entry.pieces has {len(self.pieces)} texts for {size} completion tokens; give one text per token "
                f"(label {self.label!r})"
            )
        if self.replaced_pieces and len(self.replaced_pieces) != len(self.trajectory.edits):
            raise ValueError(
                f"entry.replaced_pieces has {len(self.replaced_pieces)} texts for {len(self.trajectory.edits)} edits; "
                f"give one text per edit, or none (label {self.label!r})"
            )


def last_step(entry: TraceEntry) -> int:
    """The last denoising step, however the record counts idle ones."""
    return max(entry.trajectory.num_steps, int(entry.trajectory.step.max(initial=0)))


def blocks(entry: TraceEntry) -> list[int]:
    """Block index of each completion token, counted over prompt and completion from ``grid_offset``."""
    record = entry.trajectory
    start = len(record.prompt_ids)
    return [
        int(block_of(start + i, record.block_size, grid_offset=record.grid_offset)) for i in range(len(entry.pieces))
    ]


def edits_of(entry: TraceEntry) -> dict[int, list[tuple[int, str]]]:
    """The edits of each edited position: their steps, and what stood there before, as ``shown_text`` shows it."""
    edits = entry.trajectory.edits
    found: dict[int, list[tuple[int, str]]] = {}
    for edit, piece in zip(edits, entry.replaced_pieces or [""] * len(edits), strict=True):
        found.setdefault(edit.position, []).append((edit.step, shown_text(piece, edit.replaced)))
    return found


def shown_text(piece: str, token_id: int) -> str:
    """``piece`` with invisible characters made visible; a newline becomes a return sign and a line break.

    Control characters get their Unicode picture, unpaired surrogates and non-characters the replacement sign, and a
    piece with no text at all is shown by its id: every token stays visible, and the result is valid in HTML and XML.
    """
    if not piece:
        return f"\u2039{token_id}\u203a"
    return "".join(_shown_character(character) for character in piece)


def plain_text(text: str) -> str:
    """``text`` without characters that HTML or XML files cannot hold; newlines and tabs stay."""
    return _SPECIAL.sub(lambda found: _shown_character(found[0]), text.replace("\r\n", "\n"))


def _shown_character(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    category = unicodedata.category(character)
    is_bidirectional_control = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    if is_bidirectional_control or category in ("Cs", "Cc") or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF:
        return "\ufffd"
    return "\u23ce\n" if category in ("Zl", "Zp") else character


def facts(entry: TraceEntry) -> list[tuple[str, str]]:
    """(name, value) pairs for a header: steps, tokens, TPF, why it ended, and how it was decoded."""
    record = entry.trajectory
    pairs = [
        ("steps", str(record.num_steps)),
        ("tokens", str(record.num_tokens)),
        ("tokens per forward", f"{record.tokens_per_forward:.2f}"),
        ("edits", str(len(record.edits) or "")),
        ("finish", str(record.finish_reason).replace("_", " ")),
        ("rule", _described(record.rule)),
        ("temperature", _number(record.sampling.get("temperature"))),
        ("block size", str(record.block_size)),
    ]
    return [(name, plain_text(value)) for name, value in pairs if value]


def token_data(entry: TraceEntry) -> dict[str, Any]:
    """The per-token arrays the viewer plays, as JSON-ready lists (None where a number is not finite)."""
    record = entry.trajectory
    return {
        "ids": [int(i) for i in record.completion_ids],
        "raw": list(entry.pieces),
        "shown": [shown_text(p, int(i)) for p, i in zip(entry.pieces, record.completion_ids, strict=True)],
        "step": [int(s) for s in record.step],
        "forward": [int(f) for f in record.forward],
        "logprob": [_finite(v) for v in record.logprob],
        "confidence": [_finite(v) for v in record.confidence],
        "block": blocks(entry),
        "edits": {str(position): edits for position, edits in edits_of(entry).items()},
        "stop": record.stop_length,
        "lastStep": last_step(entry),
        "promptLength": len(record.prompt_ids),
        "label": entry.label,
    }


def _finite(value: Any) -> float | None:
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else ""


def _described(rule: Mapping[str, Any]) -> str:
    """``{"kind": "dynamic", "threshold": 0.9}`` as "dynamic, threshold 0.9"."""
    fields = [f"{name} {value}" for name, value in rule.items() if name != "kind" and value is not None]
    return ", ".join([str(rule.get("kind", "")), *fields]).strip(", ")
