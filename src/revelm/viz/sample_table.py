"""The newest sample answers of a run, ready to print: what was asked, what was answered, what it was worth."""

from collections.abc import Mapping
from dataclasses import dataclass

from revelm.viz.entry import plain_text
from revelm.viz.run_files import Row, Samples
from revelm.viz.ticks import is_drawable, short_number

MAX_ROWS = 200
MAX_CHARACTERS = 6000


@dataclass(frozen=True)
class SampleView:
    """One answer as text; ``verdict`` is "right", "wrong" or "" (not recorded), ``facts`` one line of numbers."""

    problem: str
    setting: str
    verdict: str
    facts: str
    preview: str
    prompt: str
    answer: str
    reference: str


def sample_views(samples: Samples | None) -> list[SampleView]:
    """At most ``MAX_ROWS`` answers in the order of the file; long texts are cut, and say so."""
    return [] if samples is None else [_view(row) for row in samples.rows[:MAX_ROWS]]


def _view(row: Row) -> SampleView:
    answer = _text(row, "answer")
    return SampleView(
        problem=_text(row, "problem"),
        setting=_text(row, "setting"),
        verdict=_verdict(row),
        facts=_facts(row),
        preview=" ".join(answer.split())[:90] or "(empty)",
        prompt=_text(row, "prompt"),
        answer=answer,
        reference=_text(row, "reference"),
    )


def _text(row: Row, name: str) -> str:
    text = row.get(name)
    shown = "" if text is None else str(text)
    more = len(shown) - MAX_CHARACTERS
    return plain_text(shown[:MAX_CHARACTERS]) + (f" … ({more} more characters)" if more > 0 else "")


def _verdict(row: Row) -> str:
    breakdown = row.get("breakdown")
    correct = breakdown.get("correct") if isinstance(breakdown, Mapping) else None
    return ("right" if correct >= 1 else "wrong") if is_drawable(correct) else ""


def _facts(row: Row) -> str:
    pairs = [(name, row.get(name)) for name in ("score", "tokens", "forwards")]
    breakdown = row.get("breakdown")
    if isinstance(breakdown, Mapping):
        pairs += [(str(name), value) for name, value in breakdown.items() if name != "correct"]
    told = [f"{name} {short_number(value)}" for name, value in pairs if is_drawable(value)]
    reason = row.get("finish_reason")
    return plain_text(" · ".join([*told, *([f"finish {reason}"] if isinstance(reason, str) else [])]))
