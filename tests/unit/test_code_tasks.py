"""Tasks whose answers are programs: how they ask, which problems they have, how they judge."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from revelm.core import registry
from revelm.core.types import Completion, Problem, Score
from revelm.rewards.sandbox.limits import Limits
from revelm.tasks.code import Code
from revelm.tasks.code_collections import Apps, PrimeIntellect
from revelm.tasks.code_task import FUNCTION_INSTRUCTION, STDIO_INSTRUCTION, CodeTask
from revelm.tasks.humaneval import HumanEval, HumanEvalPlus
from revelm.tasks.livecodebench import LiveBenchCoding, LiveCodeBench, version_files
from revelm.tasks.mbpp import Mbpp, MbppPlus
from revelm.tasks.task import GuardedTask, WarmedTask
from tests.unit.test_code_records import contest, pack

DOUBLE = {"question": "Double it.", "test_method": "function", "test_list": ["assert f(1) == 2", "assert f(4) == 8"]}
EVERY: tuple[Callable[..., CodeTask], ...] = (HumanEval, HumanEvalPlus, Mbpp, MbppPlus, LiveCodeBench, LiveBenchCoding)
EVERY += (Apps, PrimeIntellect, Code)


def write(file: Path, *rows: dict[str, Any]) -> str:
    """A JSON Lines file."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def first_of(task: CodeTask) -> Problem:
    """The first test problem."""
    return task.problems("test")[0]


def only(folder: Path, *rows: dict[str, Any], **fields: Any) -> tuple[Code, Problem]:
    """A task about one row, all of it the test, and its problem."""
    other = {**DOUBLE, "question": "Another."}
    task = Code(data=write(folder / "train.jsonl", other), test_data=write(folder / "test.jsonl", *rows), **fields)
    return task, first_of(task)


def judged(task: CodeTask, problem: Problem, program: str) -> Score:
    """The verdict on a program in a block."""
    return task.score(problem, Completion(f"```python\n{program}\n```", 1, 1, "stop"))


@pytest.mark.parametrize("task", [kind(data="sample") for kind in EVERY], ids=lambda task: task.name)
def test_every_task_asks_for_a_block_and_travels(task: CodeTask) -> None:
    """Catches a task that worker processes cannot get, and one that does not say how to answer."""
    assert isinstance(task, GuardedTask)
    assert isinstance(task, WarmedTask)
    assert task.score_seconds * 10 > task.limits.total_seconds
    assert pickle.loads(pickle.dumps(task)) == task
    for problem in (*task.problems("train"), *task.problems("test")):
        (message,) = task.prompt(problem)
        usual = STDIO_INSTRUCTION if problem.info["is_stdio"] else FUNCTION_INSTRUCTION
        assert message["content"].endswith(usual) == (task.name != "livebench_coding")
        (message,) = replace(task, instruction="Go.").prompt(problem)
        assert message["content"].endswith("\n\nGo.")


def test_prompts_are_those_of_the_papers() -> None:
    """Catches a function whose name nothing in the prompt tells, and tests that are not shown, or all of them."""
    humaneval, mbpp, plus, lcb = (
        HumanEval(data="sample"),
        Mbpp(data="sample"),
        MbppPlus(data="sample"),
        LiveCodeBench(data="sample"),
    )
    assert "```python\nfrom typing import List\n\n\ndef runs(" in humaneval.prompt(first_of(humaneval))[0]["content"]
    asked = mbpp.prompt(first_of(mbpp))[0]["content"]
    tests = [
        "assert count_vowels('Revelm') == 2",
        "assert count_vowels('') == 0",
        "assert count_vowels('AEIOU xyz') == 5",
    ]
    assert "Your code should pass these tests:\n```python\n" + "\n".join(tests) + "\n```\n\n" in asked
    assert plus.prompt(first_of(plus))[0]["content"].count("assert") == 1
    method = lcb.problems("test")[1]
    assert "Begin your solution with this code:\n```python\nclass Solution:" in lcb.prompt(method)[0]["content"]
    assert method.info["is_stdio"] is False


def test_a_prefix_opens_the_answer(tmp_path: Path) -> None:
    """Catches an answer that goes on from the prefix, as the prompt has it, and is judged without it."""
    row = {**DOUBLE, "prefix": "def f(x):\n"}
    task, problem = only(tmp_path, row)
    assert task.prompt(problem)[-1] == {"role": "assistant", "content": "```python\ndef f(x):\n"}
    for text, value in (("    return 2 * x\n```\nDone.", 1.0), ("    return x\n```", 0.0), ("    return 2 * x", 1.0)):
        assert task.score(problem, Completion(text, 1, 1, "stop")).value == value
    assert judged(task, problem, "def f(x):\n    return x + x").value == 1.0
    shown, problem = only(tmp_path, {**row, "solution": "f = lambda x: 2 * x\n"})
    assert shown.prompt(problem)[-1]["role"] == "user"
    task, problem = only(tmp_path, {**row, "solution": "def f(x):\n    return 2 * x\n"})
    assert task.worked(problem) == "    return 2 * x\n```"
    assert task.score(problem, Completion(task.worked(problem), 1, 1, "stop")).value == 1.0


def test_all_or_nothing_or_the_share(tmp_path: Path) -> None:
    """W69: the reward of code is a count of passed tests that no range bounds."""
    task, problem = only(tmp_path, DOUBLE)
    half = "def f(x):\n    return 2"
    verdict = judged(task, problem, half)
    assert (verdict.value, dict(verdict.breakdown)) == (0.0, {"correct": 0.0, "passed": 0.5, "has_code": 1.0})
    assert judged(replace(task, is_partial=True), problem, half).value == 0.5
    none = task.score(problem, Completion("I give up.", 1, 1, "stop"))
    assert (none.value, none.reason, none.breakdown["has_code"]) == (0.0, "no program", 0.0)


def test_an_expected_error_text_is_not_what_a_failed_program_gives(tmp_path: Path) -> None:
    """W63: a program that fails passes where the expected output is what its error says."""
    row = {
        "question": "Say it.",
        "test_method": "stdio",
        "test_input": [""],
        "test_output": ["error: name 'x' is not defined"],
    }
    task, problem = only(tmp_path, row)
    assert judged(task, problem, "print(x)").value == 0.0
    assert judged(task, problem, "import sys\nsys.exit(\"error: name 'x' is not defined\")").value == 0.0
    assert judged(task, problem, "print(\"error: name 'x' is not defined\")").value == 1.0


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(0)",
        "def f(x):\n    raise SystemExit(0)",
        "import builtins\nbuiltins.set = lambda x: 1\nset = isinstance = lambda *x: True\ndef f(x):\n    return 0",
        "class Same(int):\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return Same(7)",
    ],
)
def test_answers_do_not_pass_by_other_means(tmp_path: Path, program: str) -> None:
    """W59: exit counts as success; and catches builtins or an equality of the answer's that its tests use."""
    row = {**DOUBLE, "test_list": ["assert set([f(1)]) == set([2]) and isinstance(f(1), int)"]}
    task, problem = only(tmp_path, row)
    assert judged(task, problem, program).value == 0.0
    assert judged(task, problem, "def f(x):\n    return 2 * x").value == 1.0


def test_methods_and_functions_are_called_as_they_are_written() -> None:
    """Catches a right method that fails because the row asks for a function, and the other way round."""
    apps = Apps(data="sample")
    even, divisors = (
        next(p for p in apps.problems("train") + list(apps.problems("test")) if p.id.endswith(n)) for n in ("2", "3")
    )
    assert judged(apps, even, "class Solution:\n    def is_even(self, n):\n        return n % 2 == 0").value == 1.0
    assert (
        judged(apps, divisors, "def divisors(n):\n    return [d for d in range(1, n + 1) if n % d == 0]").value == 1.0
    )
    assert judged(apps, divisors, "def divisors(n):\n    return [1, n]").value == 0.0


def test_what_the_prompt_has_is_there_for_the_answer() -> None:
    """Catches an answer that fails for lack of the prompt's imports and helpers, or for ``from __future__`` behind."""
    task = HumanEval(data="sample")
    runs, unshift, _ = task.problems("test")
    typed = (
        "from __future__ import annotations\nfrom itertools import groupby\n\ndef runs(numbers: List[int]) -> Later:\n"
    )
    typed += "    return [len(list(g)) for _, g in groupby(numbers)]\n"
    assert judged(task, runs, typed).value == 1.0
    assert (
        judged(
            task, unshift, "def unshift(text):\n    for _ in range(25):\n        text = shift(text)\n    return text"
        ).value
        == 1.0
    )
    body = "    for _ in range(25):\n        text = shift(text)\n    return text"
    for text in (body, f"\n{body}\n"):
        assert task.score(unshift, Completion(text, 1, 1, "stop")).value == 1.0
    assert task.score(unshift, Completion("    I give up.", 1, 1, "stop")).reason == "no program"
    assert judged(task, unshift, "    for _ in range(25):\n        text = shift(text)\n    return text").value == 1.0


def test_splits_of_mbpp_are_those_of_the_paper(tmp_path: Path) -> None:
    """Catches prompts and validation problems in the test, and rows without a number."""
    row = {"text": "t", "code": "def f(x):\n    return 2 * x", "test_list": DOUBLE["test_list"]}
    data = write(tmp_path / "m.jsonl", *({**row, "task_id": n} for n in (1, 10, 11, 510, 511, 600, 601, 974)))
    task = Mbpp(data=data)
    assert [p.info["number"] for p in task.problems("test")] == [11, 510]
    assert [p.info["number"] for p in task.problems("train")] == [601, 974]
    with pytest.raises(ValueError, match=r"row 1.*field 'task_id': 'x' is not the number"):
        Mbpp(data=write(tmp_path / "m.jsonl", {**row, "task_id": "x"})).problems("test")


@pytest.mark.parametrize(
    ("task", "file"), [(HumanEvalPlus, "HumanEvalPlus-OriginFmt.jsonl.gz"), (MbppPlus, "MbppPlus-OriginFmt.jsonl.gz")]
)
def test_files_of_inputs_alone_are_refused(tmp_path: Path, task: Callable[..., CodeTask], file: str) -> None:
    """Catches EvalPlus's file without results, whose few base tests would pass for all of them."""
    row = {
        "task_id": 1,
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "canonical_solution": "    ...",
        "test": "",
        "plus_input": [],
    }
    with pytest.raises(ValueError, match=f"field 'plus_input': inputs without expected results.*give {file}"):
        task(data=write(tmp_path / "p.jsonl", row)).problems("test")


def test_a_forgotten_assert_is_added(tmp_path: Path) -> None:
    """Catches three problems of MBPP+ whose tests any program passes: they look at the result and assert nothing."""
    test = "def assertion(out, exp):\n    if isinstance(out, bool):\n        exact_match = out == exp\n    else:\n"
    test += "        exact_match = exp == (out is not None)\n\n\nfor inp, exp in [('a', True), ('b', False)]:\n"
    row = {"task_id": 737, "prompt": "p", "code": "def f(t):\n    ...", "test_list": ["assert f('a')"]}
    task = MbppPlus(data=write(tmp_path / "p.jsonl", {**row, "test": f"{test}    assertion(f(inp), exp)\n"}))
    assert judged(task, first_of(task), "import re\ndef f(t):\n    return re.search('a', t)").value == 1.0
    assert judged(task, first_of(task), "def f(t):\n    return t == 'a'").value == 1.0
    assert judged(task, first_of(task), "def f(t):\n    return None").value == 0.0


def lcb_row(name: str, day: str, **fields: Any) -> dict[str, Any]:
    """A problem of LiveCodeBench: double a number."""
    row = {"question_content": f"Double it, {name}.", "question_id": name, "contest_date": f"{day}T00:00:00"}
    public, hidden = contest("stdin", ("1", "2")), contest("stdin", ("5", "10"))
    return {
        **row,
        "metadata": "{}",
        "public_test_cases": json.dumps(public),
        "private_test_cases": pack(hidden),
        **fields,
    }


def test_versions_of_livecodebench(tmp_path: Path) -> None:
    """Catches results on other problems than those of the release that is named."""
    assert version_files("release_v2") == ["test.jsonl", "test2.jsonl"]
    assert version_files("v6") == ["test6.jsonl"]
    write(tmp_path / "test.jsonl", lcb_row("a", "2023-06-01"), lcb_row("b", "2024-01-01"))
    write(tmp_path / "test2.jsonl", lcb_row("c", "2024-05-01"))
    folder = str(tmp_path)

    def ids(**fields: Any) -> list[str]:
        task = registry.build("tasks", {"kind": "livecodebench", "data": folder, **fields})
        return [p.id.rpartition(":")[2] for p in task.problems("test")]

    assert ids() == ["a", "b", "c"]
    assert ids(version="release_v1") == ["a", "b"]
    assert ids(version="v2") == ["c"]
    assert ids(since="2024-01-01", until="2024-04-30") == ["b"]
    assert ids(data=str(tmp_path / "test2.jsonl")) == ["c"]
    for wrong, said in (({"version": "v7"}, "task.version"), ({"since": "May"}, "since: expected a date")):
        with pytest.raises(ValueError, match=said):
            ids(**wrong)


def test_hidden_tests_count_and_damaged_ones_are_no_verdict(tmp_path: Path) -> None:
    """Catches an answer that is right for the tests in the question alone, and a crash in the middle of a run."""
    rows = (lcb_row("a", "2024-01-01"), lcb_row("b", "2024-01-01", private_test_cases="damaged"))
    task = LiveCodeBench(data=write(tmp_path / "l.jsonl", *rows))
    good, damaged = task.problems("test")
    assert judged(task, good, "print(2 * int(input()))").value == 1.0
    assert judged(task, good, "print(2)").value == 0.0
    verdict = judged(task, damaged, "print(2 * int(input()))")
    assert (verdict.value, verdict.breakdown["error"]) == (0.0, 1.0)
    assert verdict.reason.startswith("error")
    assert "row 2" in verdict.reason


def test_chats_of_verl_are_asked_as_they_are(tmp_path: Path) -> None:
    """Catches a system message that is lost, and an instruction behind one that is there already."""
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "Double it."}]
    truth = json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})
    task, problem = only(tmp_path, {"prompt": chat, "reward_model": {"ground_truth": truth}})
    assert task.prompt(problem) == chat
    assert judged(task, problem, "print(2 * int(input()))").value == 1.0
    with pytest.raises(ValueError, match=r"row 1.*field 'prompt': ends with a turn of 'system'"):
        only(tmp_path, {"prompt": chat[:1], "reward_model": {"ground_truth": truth}})


def test_fields_are_checked_before_anything_runs() -> None:
    """Catches a limit or an executor that is only refused at the first answer."""
    built = registry.build("tasks", {"kind": "code", "limits": {"seconds": 2}, "executor": {"kind": "local"}})
    assert built.limits == Limits(seconds=2)
    for wrong, said in (
        ({"limits": {"seconds": 0}}, "limits.seconds=0"),
        ({"executor": "nowhere"}, "executor"),
        ({"max_bad_rows": -1}, "max_bad_rows=-1"),
    ):
        with pytest.raises(ValueError, match=said):
            registry.build("tasks", {"kind": "code", **wrong})


def test_bad_rows_may_be_left_out(tmp_path: Path) -> None:
    """W69: an empty test list counts as solved; here it is left out where that is allowed, and an error elsewhere."""
    rows = ({**DOUBLE, "test_list": []}, DOUBLE)
    with pytest.raises(ValueError, match=r"test\.jsonl, row 1 \(line 1\), field 'test_list': holds no tests"):
        only(tmp_path, *rows)
    task, problem = only(tmp_path, *rows, max_bad_rows=1)
    assert problem.id == "code:test:2"
    with pytest.raises(ValueError, match="code:test:2: has no solution to learn from"):
        task.worked(problem)
