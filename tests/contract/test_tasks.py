"""What every task promises. A task in the registry is enrolled; nothing here names one."""

import json
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from revelm.core import registry
from revelm.core.types import Completion, Problem, Score
from revelm.tasks.data_source import SAMPLE, sample_file
from revelm.tasks.task import AnswerTask, DemonstrationTask, Task

NUM = 40
NASTY = ("", " ", "\x00", "\ud800", "🙂" * 500, "\\boxed{", "\\boxed{}" * 99, "{" * 5000, "1234\n" * 999, "-0", "None")


@dataclass(frozen=True)
class Doubling:
    """A task as a user would write it."""

    num: int = 50

    @property
    def name(self) -> str:
        return "doubling"

    def problems(self, split: str) -> list[Problem]:
        if split not in ("train", "test"):
            raise ValueError(f"split={split!r}: expected 'train' or 'test'")
        first = 0 if split == "train" else self.num
        return [Problem(f"doubling:{i}", f"2*{i}", str(2 * i)) for i in range(first, first + self.num)]

    def prompt(self, problem: Problem) -> list[dict[str, str]]:
        return [{"role": "user", "content": problem.question}]

    def score(self, problem: Problem, completion: Completion) -> Score:
        correct = float(completion.text == problem.reference)
        return Score(correct, {"correct": correct})


@dataclass(frozen=True)
class Generous(Doubling):
    """A broken task: whatever is answered is right."""

    def score(self, problem: Problem, completion: Completion) -> Score:
        return Score(1.0, {"correct": 1.0})


def spec(name: str) -> dict[str, str]:
    """The task with its sample, where the package has one (by default it may ask the hub), else with its defaults."""
    return {"kind": name, **({"data": SAMPLE} if Path(sample_file(name)).is_file() else {})}


def answer(text: str) -> Completion:
    return Completion(text, num_tokens=len(text), num_forwards=1, finish_reason="stop")


def gold(task: Task, problem: Problem) -> str:
    """An answer that the task itself calls right: worked out where it can be, else the reference."""
    return task.worked(problem) if isinstance(task, DemonstrationTask) else problem.reference


def check_gold_is_right_and_the_rest_is_not(task: Task) -> None:
    """A full answer scores 1; nothing, nonsense and another problem's answer score less; no text raises."""
    for split in ("train", "test"):
        some = task.problems(split)[:NUM]
        for problem, other in zip(some, [*some[1:], *some[:1]], strict=True):
            right = task.score(problem, answer(gold(task, problem)))
            assert (right.value, right.breakdown["correct"], right.scope) == (1.0, 1.0, "outcome")
            wrong = [*NASTY, *([] if problem.reference == other.reference else [gold(task, other)])]
            for text in wrong:
                verdict = task.score(problem, answer(text))
                assert verdict.value < 1.0
                assert verdict.breakdown["correct"] == 0.0
                assert all(isinstance(v, float) for v in verdict.breakdown.values())


def check_is_deterministic(task: Task) -> None:
    """The same problems, prompts and verdicts from an equal task, and after a journey to another process."""
    twin = pickle.loads(pickle.dumps(task))
    assert twin == task
    for split in ("train", "test"):
        assert list(task.problems(split)) == list(twin.problems(split)) == list(task.problems(split))
        for problem in task.problems(split)[:NUM]:
            assert task.prompt(problem) == twin.prompt(problem)
            assert pickle.loads(pickle.dumps(problem)) == problem
    if isinstance(task, DemonstrationTask):
        assert task.demonstrations(20, 1) == twin.demonstrations(20, 1)
        assert (task.demonstrations(20, 1) != task.demonstrations(20, 2)) == bool(task.problems("train"))


def check_splits_are_apart(task: Task) -> None:
    """No problem is asked in training and in the test, ids are unique, another split is refused."""
    train, test = task.problems("train"), task.problems("test")
    assert {p.question for p in train}.isdisjoint(p.question for p in test)
    ids = [p.id for p in (*train, *test)]
    assert len(set(ids)) == len(ids)
    with pytest.raises(ValueError, match="validation"):
        task.problems("validation")


def check_prompt_does_not_give_the_answer_away(task: Task) -> None:
    """A prompt is a chat that ends with the user and does not hold the worked answer."""
    for problem in task.problems("test")[:NUM]:
        messages = task.prompt(problem)
        assert messages[-1]["role"] == "user"
        assert json.loads(json.dumps(messages)) == messages
        assert task.score(problem, answer(messages[-1]["content"])).value < 1.0


def check_answers_have_one_spelling(task: Task) -> None:
    """The key of a right answer is the same each time and found again by a twin; no text raises, or gives no text."""
    if not isinstance(task, AnswerTask):
        return
    twin = pickle.loads(pickle.dumps(task))
    for problem in task.problems("test")[:NUM]:
        key = task.answer(problem, answer(gold(task, problem)))
        assert key
        assert key == twin.answer(problem, answer(gold(task, problem) + "\n"))
        keys = [task.answer(problem, answer(text)) for text in NASTY]
        assert all(key is None or isinstance(key, str) for key in keys)
        assert task.answer(problem, answer("")) is None


CHECKS = (
    check_answers_have_one_spelling,
    check_gold_is_right_and_the_rest_is_not,
    check_is_deterministic,
    check_splits_are_apart,
    check_prompt_does_not_give_the_answer_away,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", registry.names("tasks"))
def test_registered_tasks_keep_their_promises(name: str, check: Any) -> None:
    """Catches a verdict that rewards nonsense or raises, a leak from test to training, and hidden randomness."""
    check(registry.build("tasks", spec(name)))


def test_a_new_task_is_enrolled_by_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches checks that know their subjects by name: a task from outside runs through the same ones."""
    monkeypatch.setitem(registry.TASKS, "new", f"{__name__}:Doubling")
    assert "new" in registry.names("tasks")
    for check in CHECKS:
        check(registry.build("tasks", {"kind": "new", "num": 45}))
        check(registry.build("tasks", {"kind": f"{__name__}:Doubling"}))
    with pytest.raises(AssertionError):
        check_gold_is_right_and_the_rest_is_not(Generous())


def test_scoring_needs_no_torch() -> None:
    """Catches an import that makes every reward worker load gigabytes, in a process of its own."""
    code = (
        "import json, sys\nfrom revelm.core.registry import build\nfrom revelm.core.types import Completion\n"
        "for spec in json.loads(sys.argv[1]):\n    task = build('tasks', spec)\n"
        "    task.score(task.problems('test')[0], Completion('1', 1, 1, 'stop'))\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    source = Path(__file__).resolve().parents[2] / "src"
    specs = json.dumps([spec(name) for name in registry.names("tasks")])
    done = subprocess.run(
        [sys.executable, "-c", code, specs],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(source)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
