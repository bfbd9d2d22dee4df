"""One stored answer of an evaluation as text for a page. What a model wrote is hostile; pages escape it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revelm.viz.entry import plain_text
from revelm.viz.sample_table import MAX_CHARACTERS

VERDICTS = ("right", "wrong", "error")
PREVIEW = 90


@dataclass(frozen=True)
class AnswerView:
    """One answer as text; ``verdict`` is one of ``VERDICTS``."""

    task: str
    setting: str
    verdict: str
    problem: str
    facts: str
    reason: str
    preview: str
    prompt: str
    text: str
    extracted: str
    reference: str

    @property
    def size(self) -> int:
        """Characters that it takes on a page."""
        return len(self.prompt) + len(self.text) + len(self.extracted) + len(self.reference)


def answer_view(task: str, setting: str, row: Mapping[str, Any]) -> AnswerView:
    """A row of a file of samples."""
    breakdown = row["breakdown"]
    verdict = "error" if breakdown.get("error") else ("right" if breakdown["correct"] == 1 else "wrong")
    facts = [f"answer {row['number'] + 1}", f"{row['tokens']} tokens", f"{row['forwards']} forwards"]
    text = shown(row["text"])
    return AnswerView(
        task=plain_text(task),
        setting=plain_text(setting),
        verdict=verdict,
        problem=shown(row["problem"]),
        facts=plain_text(" · ".join([*facts, f"finish {row['finish_reason']}", f"seed {row['seed']}"])),
        reason=shown(row["reason"]),
        preview=preview(text),
        prompt=shown(row["prompt"] or row["question"]),
        text=text,
        extracted=shown(row["answer"] or ""),
        reference=shown(row["reference"]),
    )


def shown(value: Any) -> str:
    """``value`` as text of at most ``MAX_CHARACTERS``; what is cut says so."""
    text = str(value)
    more = len(text) - MAX_CHARACTERS
    return plain_text(text[:MAX_CHARACTERS]) + (f" … ({more} more characters)" if more > 0 else "")


def preview(text: str) -> str:
    """The beginning of ``text`` on one line."""
    return " ".join(text[: 4 * PREVIEW].split())[:PREVIEW] or "(empty)"
