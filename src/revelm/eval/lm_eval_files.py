"""Local files as data of the harness's tasks, and what our own tasks do beside it; named by ``lm_eval_tasks/*.yaml``.

The harness hands every loader all of ``--metadata`` (and of ``--model_args``); each takes the words that are its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from revelm.data.record_files import read_records
from revelm.data.rows import Row
from revelm.rewards.code_answer import code_answer
from revelm.rewards.code_score import score_code
from revelm.tasks.code_records import entry_tests
from revelm.tasks.code_task import fitted
from revelm.tasks.humaneval import HumanEval


def gsm8k(*, gsm8k: str | None = None, gsm8k_train: str | None = None, **_: Any) -> DatasetDict:
    """Splits "test" and "train" (for examples in the prompt), of rows with ``question`` and ``answer``."""
    files = {"test": ("gsm8k", gsm8k), "train": ("gsm8k_train", gsm8k_train)}
    return DatasetDict({split: _rows("gsm8k_local", *named) for split, named in files.items()})


def hellaswag(*, hellaswag: str | None = None, **_: Any) -> DatasetDict:
    """Split "validation", of rows with ``activity_label``, ``ctx_a``, ``ctx_b``, ``endings`` and ``label``."""
    return DatasetDict({"validation": _rows("hellaswag_local", "hellaswag", hellaswag)})


def humaneval(*, humaneval: str | None = None, **_: Any) -> DatasetDict:
    """Split "test", of rows with ``task_id``, ``prompt``, ``entry_point`` and ``test``.

    ``asked``: the prompt in the words in which the task ``humaneval`` asks a chat model.
    """
    rows, task = _rows("humaneval_local", "humaneval", humaneval), HumanEval(data=humaneval)
    asked = [task.prompt(problem)[-1]["content"] for problem in task.problems("test")]
    return DatasetDict({"test": rows.add_column("asked", asked)})


def text(*, text: str | None = None, **_: Any) -> DatasetDict:
    """Split "test": the paragraphs of a text file, each a document of its own."""
    if text is None:
        raise ValueError("task text_local: give its file: --metadata text=FILE.txt")
    parts = [part.strip() for part in Path(text).read_text(encoding="utf-8").split("\n\n")]
    return DatasetDict({"test": Dataset.from_list([{"text": part} for part in parts if part])})


def all_answers(resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The filter that keeps every sample of a problem."""
    del docs
    return [list(answers) for answers in resps]


def judge_humaneval(doc: Mapping[str, Any], results: Sequence[Sequence[str]]) -> dict[str, float]:
    """``pass@1``: the share of the samples that pass all tests in our sandbox; ``unjudged``: that reached no verdict.

    A sample is the program in its last code block, or else goes on where the prompt ends.
    """
    tests, start = entry_tests(Row("humaneval", 1, None, doc)), str(doc["prompt"])
    scores = []
    for text in results[0]:
        program, fitting = fitted(code_answer(text, tests.names or ()) or text, tests, start=start)
        scores.append(score_code(program, fitting))
    return {
        "pass@1": sum(score.value for score in scores) / len(scores),
        "unjudged": sum(score.breakdown.get("error", 0.0) for score in scores) / len(scores),
    }


def _rows(task: str, word: str, path: str | None) -> Dataset:
    """The rows of a file; ValueError says how to name one."""
    if path is None:
        raise ValueError(f"task {task}: give its file: --metadata {word}=FILE.jsonl")
    return Dataset.from_list([dict(fields) for _, fields in read_records(path, field=word)])
