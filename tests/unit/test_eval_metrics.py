"""The numbers of an evaluation from its samples, counted by hand."""

from typing import Any

import pytest

from revelm.eval.metrics import summarise
from revelm.eval.samples import Sample


def sample(group: int, number: int, correct: float, **changes: Any) -> Sample:
    """One answer."""
    fields: dict[str, Any] = {
        "problem": f"p{group}",
        "question": "q",
        "reference": "r",
        "prompt": "",
        "text": "t",
        "answer": None,
        "score": correct,
        "reason": "",
        "breakdown": {"correct": correct},
        "tokens": 4,
        "forwards": 2,
        "finish_reason": "stop",
        "seed": 0,
    }
    return Sample(group=group, number=number, **fields | changes)


def test_accuracy_says_what_is_right_whatever_the_length() -> None:
    """W68: catches an accuracy that follows a rule on lengths, or one that hides how many answers were cut."""
    rows = [sample(0, 0, 1.0, finish_reason="length", tokens=900), sample(1, 0, 0.0, finish_reason="length")]
    rows += [sample(2, 0, 1.0), sample(3, 0, 1.0)]
    found = summarise(rows)
    assert found["accuracy"]["mean"] == 0.75
    assert found["truncated"]["mean"] == 0.5


def test_lengths_are_those_that_were_decoded() -> None:
    """W70: catches a length counted in the text again: it is what the engine counted, whatever the text."""
    found = summarise([sample(0, 0, 1.0, text="", tokens=7, forwards=2), sample(1, 0, 1.0, text="x" * 99, tokens=3)])
    assert found["length"]["mean"] == 5.0
    assert found["forwards"]["mean"] == 2.0
    assert found["tokens_per_forward"]["mean"] == 10 / 4


def test_errors_are_told_and_count_as_wrong() -> None:
    """Catches a verdict that could not be reached and is left out of the accuracy, which flatters."""
    broken = {"correct": 0.0, "error": 1.0}
    found = summarise([sample(0, 0, 1.0), sample(1, 0, 0.0, breakdown=broken, reason="error: timed out")])
    assert found["errors"]["mean"] == 0.5
    assert found["accuracy"]["mean"] == 0.5


def test_pass_at_one_is_the_accuracy_with_its_interval() -> None:
    """Catches two intervals for one number, and pass@k that forgets that answers to one problem go together."""
    rows = [sample(g, i, float((g * 7 + i * g) % 3 == 0)) for g in range(12) for i in range(4)]
    found = summarise(rows)
    assert list(found["pass_at_k"]) == ["1", "2", "4"]
    one, accuracy = found["pass_at_k"]["1"], found["accuracy"]
    assert [one[k] for k in ("mean", "low", "high")] == pytest.approx([accuracy[k] for k in ("mean", "low", "high")])
    assert one["n"] == 12
    assert accuracy["n"] == 48
    solved = sum(any(r.correct for r in rows if r.group == g) for g in range(12)) / 12
    assert found["pass_at_k"]["4"]["mean"] == pytest.approx(solved)
    assert found["majority_at_k"] == {}
    assert list(summarise(rows, pass_at=(3,))["pass_at_k"]) == ["3"]


def test_majorities_need_keys() -> None:
    """Catches majorities of texts, which differ in every answer, and those of one."""
    keys = ["7", "7", "8", None]
    rows = [sample(0, i, float(key == "7"), answer=key) for i, key in enumerate(keys)]
    rows += [sample(1, i, 0.0, answer="9") for i in range(4)]
    assert summarise(rows)["majority_at_k"]["4"]["mean"] == 0.5
    assert list(summarise(rows)["majority_at_k"]) == ["2", "4"]


def test_nobody_answers_is_a_majority_of_nobody() -> None:
    """Catches majorities that are missing, instead of 0, where no answer could be read."""
    rows = [sample(g, i, 0.0) for g in range(3) for i in range(2)]
    assert summarise(rows)["majority_at_k"] == {}
    assert summarise(rows, is_voting=True)["majority_at_k"]["2"]["mean"] == 0.0


def test_a_k_is_told_once() -> None:
    """Catches a k that is asked twice, and one that some problem has no answers for."""
    rows = [sample(g, i, 0.0) for g in range(3) for i in range(4)]
    assert list(summarise(rows, pass_at=(4, 2, 2))["pass_at_k"]) == ["2", "4"]
    assert list(summarise(rows[:-1], pass_at=(4, 2, 2))["pass_at_k"]) == ["2"]


def test_groups_stand_beside_seen_and_unseen() -> None:
    """Catches a group that is dropped, numbers that are no text, and answers without a group that join one."""
    rows = [sample(g, 0, float(g == 0), info={"seen": g < 2, "group": g % 2}) for g in range(4)]
    assert {name: part["accuracy"]["mean"] for name, part in summarise(rows)["groups"].items()} == {
        "seen": 0.5,
        "unseen": 0.0,
        "0": 0.5,
        "1": 0.0,
    }
    assert summarise([*rows, sample(9, 0, 1.0)])["groups"].keys() == {"0", "1"}
