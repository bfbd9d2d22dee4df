"""Words of a user's own, with which published prompts are asked, and answers of programs that begin with a thought."""

import json
from pathlib import Path
from typing import Any

import pytest

from revelm.core.registry import build
from revelm.core.types import Completion, Problem
from revelm.tasks.code import Code
from revelm.tasks.humaneval import HumanEval

QUESTIONS = {
    "gsm8k": {},
    "aime2025": {"style": "instruction_first"},
    "gpqa": {},
    "math": {},
    "custom": {},
    "multiple_choice": {},
    "mbpp": {},
    "livebench_coding": {},
}


def said(text: str) -> Completion:
    return Completion(text, num_tokens=1, num_forwards=1, finish_reason="stop")


def asked_of(task: Any) -> Problem:
    return next(iter((*task.problems("test"), *task.problems("train"))))


@pytest.mark.parametrize("kind", QUESTIONS)
def test_an_instruction_can_say_where_the_question_stands(kind: str) -> None:
    """Catches a published prompt that cannot be asked, since its words stand on both sides of the question."""
    spec = {"kind": kind, "data": "sample", **QUESTIONS[kind]}
    bare, own, other = (
        build("tasks", {**spec, "instruction": words}) for words in ("", "Q: {question}\nA, {x}: ", "Go.")
    )
    problem = asked_of(own)
    (asked,), (message,), (usual,) = (task.prompt(problem) for task in (bare, own, other))
    assert message["content"] == f"Q: {asked['content']}\nA, {{x}}: "
    assert usual["content"] in {f"{asked['content']}{gap}Go." for gap in ("\n", "\n\n")} | {f"Go.\n{asked['content']}"}


def test_a_question_is_put_in_once() -> None:
    """Catches a question whose own braces are taken for a place to put it."""
    task = build("tasks", {"kind": "math", "data": "sample", "instruction": "{question}?"})
    assert task.prompt(Problem("1", "f({question})", "1"))[0]["content"] == "f({question})?"


def test_programs_behind_a_thought() -> None:
    """Catches a model that thinks and is not asked to, a draft inside the thought that is run, and a thought that does
    not end taken for an answer; and demonstrations that do not end the thought."""
    task = HumanEval(data="sample", is_thinking=True)
    problem = asked_of(task)
    question, opening = task.prompt(problem)
    assert [question] == HumanEval(data="sample").prompt(problem)
    assert opening == {"role": "assistant", "content": "<think>\n"}
    right, wrong = (f"```python\n{code}\n```" for code in (problem.reference, "def runs(values):\n    return 0"))
    for text, value in (
        (f"{wrong}\n</think>\n\n{right}", 1.0),
        (f"{right}\n</think>\n\n{wrong}", 0.0),
        (right, 0.0),
        (task.worked(problem), 1.0),
    ):
        assert task.score(problem, said(text)).value == value, text


def test_a_row_that_begins_the_program_begins_the_answer(tmp_path: Path) -> None:
    """Catches a thought in front of the code that a row gives, as no published prompt has it."""
    record = {"question": "Double.", "test_method": "function", "test_list": ["assert f(2) == 4"]}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**record, "prefix": "def f(x):\n"}), encoding="utf-8")
    task = Code(test_data=str(file), is_thinking=True)
    problem = asked_of(task)
    assert task.prompt(problem)[-1] == {"role": "assistant", "content": "```python\ndef f(x):\n"}
    assert task.score(problem, said("    return 2 * x\n```")).value == 1.0


def test_addresses_of_the_hub_are_checked() -> None:
    """Catches an address that is looked for among the files of this machine."""
    task = Code(test_data="hf://datasets/owner")
    with pytest.raises(ValueError, match=r"'hf://datasets/owner': expected hf://datasets/owner/name/file"):
        task.problems("test")
