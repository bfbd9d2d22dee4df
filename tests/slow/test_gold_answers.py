"""Every gold answer of the public mathematical benchmarks, boxed and as its worked solution, is right."""

from pathlib import Path

import pytest

from revelm.core.registry import build
from revelm.core.types import Completion

PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "data"
FILES = {
    "gsm8k": ("gsm8k/test.jsonl", "gsm8k/train.jsonl"),
    "math500": ("math500/test.jsonl", "math_train/train.jsonl"),
    "aime2024": ("aime2024/test.jsonl", None),
    "aime2025": ("aime2025/test.jsonl", None),
    "amc23": ("amc23/test.jsonl", None),
    "minerva": ("minerva_math/test.jsonl", None),
    "olympiadbench": ("olympiadbench/test.jsonl", None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_gold_answers_are_right(name: str) -> None:
    """Catches an answer of a public file that its own task calls wrong: no model could ever be right there."""
    file, train = FILES[name]
    if not (PUBLIC / file).is_file():
        pytest.skip("needs the public data beside the repository")
    more = {} if train is None else {"train_data": str(PUBLIC / train)}
    task = build("tasks", {"kind": name, "data": str(PUBLIC / file), **more})
    for problem in (*task.problems("test"), *task.problems("train")):
        for text in (f"\\boxed{{{problem.reference}}}", task.worked(problem)):
            verdict = task.score(problem, Completion(text, len(text), 1, "stop"))
            assert verdict.value == 1.0, (problem.id, problem.reference, verdict.reason)
