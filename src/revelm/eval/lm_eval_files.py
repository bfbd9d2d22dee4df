"""Local files as data of the harness's tasks, and what our own tasks do beside it; named by ``lm_eval_tasks/*.yaml``.

The harness hands every loader all of ``--metadata`` (and of ``--model_args``); each takes the words that are its own.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from revelm.data.record_files import read_records


def gsm8k(*, gsm8k: str | None = None, gsm8k_train: str | None = None, **_: Any) -> DatasetDict:
    """Splits "test" and "train" (for examples in the prompt), of rows with ``question`` and ``answer``."""
    files = {"test": ("gsm8k", gsm8k), "train": ("gsm8k_train", gsm8k_train)}
    return DatasetDict({split: _rows("gsm8k_local", *named) for split, named in files.items()})


def hellaswag(*, hellaswag: str | None = None, **_: Any) -> DatasetDict:
    """Split "validation", of rows with ``activity_label``, ``ctx_a``, ``ctx_b``, ``endings`` and ``label``."""
    return DatasetDict({"validation": _rows("hellaswag_local", "hellaswag", hellaswag)})


def humaneval(*, humaneval: str | None = None, **_: Any) -> DatasetDict:
    """Split "test", of rows with ``task_id``, ``prompt``, ``entry_point`` and ``test``."""
    return DatasetDict({"test": _rows("humaneval_local", "humaneval", humaneval)})


def text(*, text: str | None = None, **_: Any) -> DatasetDict:
    """Split "test": the paragraphs of a text file, each a document of its own."""
    if text is None:
        raise ValueError("task text_local: give its file: --metadata text=FILE.txt")
    parts = [part.strip() for part in Path(text).read_text(encoding="utf-8").split("\n\n")]
    return DatasetDict({"test": Dataset.from_list([{"text": part} for part in parts if part])})


def _rows(task: str, word: str, path: str | None) -> Dataset:
    """The rows of a file; ValueError says how to name one."""
    if path is None:
        raise ValueError(f"task {task}: give its file: --metadata {word}=FILE.jsonl")
    return Dataset.from_list([dict(fields) for _, fields in read_records(path, field=word)])
