"""Answers that the benchmarks' own harnesses accept, judged by the tasks; published tests that are put right."""

import json
from pathlib import Path
from typing import Any

import pytest

from revelm.core.types import Completion, Problem
from revelm.tasks.code_collections import Apps, PrimeIntellect
from revelm.tasks.code_task import CodeTask
from revelm.tasks.humaneval import HumanEvalPlus
from revelm.tasks.livecodebench import LiveCodeBench
from revelm.tasks.mbpp import Mbpp, MbppPlus

RIGHT = "def count_vowels(text):\n    return sum(letter in 'aeiouAEIOU' for letter in text)\n"


def only(kind: type[CodeTask], folder: Path, row: dict[str, Any]) -> tuple[CodeTask, Problem]:
    """A task of one row, and its problem."""
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    task = kind(data=str(folder / "rows.jsonl"), **({"test_share": 0.0} if kind in (Apps, PrimeIntellect) else {}))  # type: ignore[call-arg]
    return task, [*task.problems("train"), *task.problems("test")][0]


def passes(task: CodeTask, problem: Problem, answer: str) -> bool:
    """Whether an answer is right."""
    return task.score(problem, Completion(answer, 1, 1, "stop")).value == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        f"```python\n{RIGHT}```\nFor example:\n```python\nprint(count_vowels('a'))\n```",
        f"```python\n{RIGHT}\nassert count_vowels('a') == 7\n```",
        f"```python\n{RIGHT}\ntext = input('a text: ')\nprint(count_vowels(text))\n```",
        f"Here it is:\n\n{RIGHT}\nIt counts.",
        f"```text\n{RIGHT}```",
    ],
)
def test_functions_are_judged_whatever_is_around_them(answer: str) -> None:
    """Catches right functions that fail for an example, for input that never comes, or for want of a fence."""
    task = Mbpp(data="sample")
    problem = task.problems("test")[0]
    assert passes(task, problem, answer)
    assert not passes(task, problem, answer.replace("aeiouAEIOU", "aei"))


def test_scripts_are_judged_as_their_harness_does(tmp_path: Path) -> None:
    """Catches scores that are not those of the benchmark: numbers written otherwise, blanks, ``return`` in a script."""
    stdin = [{"input": "2\n", "output": "1\n0.50\n", "testtype": "stdin"}]
    contest = {"question_content": "q", "question_id": "1", "contest_date": "2024-01-01", "metadata": "{}"}
    tests = {"public_test_cases": json.dumps(stdin), "private_test_cases": "[]"}
    lists = {"inputs": ["2\n"], "outputs": ["1\n0.50\n"]}
    rows: dict[type[CodeTask], dict[str, Any]] = {
        LiveCodeBench: {**contest, **tests},
        Apps: {"problem_id": 1, "question": "q", "input_output": json.dumps(lists)},
        PrimeIntellect: {"question": "q", "test_method": "stdio", "test_input": ["2\n"], "test_output": ["1\n0.50\n"]},
    }
    answers = {
        "print(' 1\\n0.50')": (True, True, True),
        "print('1\\n0.5')": (True, True, False),
        "print('1\\n0.5000001')": (False, True, False),
        "print('1 0.50')": (False, False, False),
        "print('1\\n0.50')\nif True:\n    return\nprint(3)": (True, True, False),
    }
    for place, (kind, row) in enumerate(rows.items()):
        task, problem = only(kind, tmp_path, row)
        assert [passes(task, problem, f"```python\n{answer}\n```") for answer in answers] == [
            found[place] for found in answers.values()
        ]


def test_tests_that_no_program_passes_are_put_right(tmp_path: Path) -> None:
    """Catches two problems on which every model fails: arguments in the wrong order, and lists too large to return."""
    check = "import math\ndef _poly(xs, x):\n    return sum(c * math.pow(x, i) for i, c in enumerate(xs))\n"
    check += "def check(candidate):\n    for inp, exp in [([[1, 2]], -0.5)]:\n"
    check += "        assert _poly(*candidate(*inp), inp) <= 0.0001\n"
    row = {"task_id": "HumanEval/32", "prompt": "def find_zero(xs):\n", "entry_point": "find_zero", "test": check}
    task, problem = only(HumanEvalPlus, tmp_path, {**row, "canonical_solution": "    return -xs[0] / xs[1]\n"})
    assert passes(task, problem, f"```python\n{problem.reference}```")
    assert not passes(task, problem, "```python\ndef find_zero(xs): return -xs[0]\n```")

    test = "inputs = [[['a'], 2], [['a', 'b', 'c', 'd', 'e'], 77]]\nfor i, inp in enumerate(inputs):\n"
    code = "from itertools import combinations_with_replacement as c\ndef f(l, n):\n    return list(c(l, n))\n"
    row = {"task_id": "255", "prompt": "p", "code": code, "test_list": ["assert f(['a'], 1)"]}
    task, problem = only(MbppPlus, tmp_path, {**row, "test": f"{test}    assert f(*inp) == [('a', 'a')]\n"})
    assert passes(task, problem, f"```python\n{code}```")
    assert not passes(task, problem, "```python\ndef f(l, n): return []\n```")
