"""Functions of users, called as they are called elsewhere."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from revelm.core.errors import RunError
from revelm.core.registry import build
from revelm.core.types import COLUMNS, Completion, Problem, Score
from revelm.rewards.reward import Judged, Ratings
from revelm.rollout.reward_functions import Function

HERE = __name__


def judged(text: str, number: int = 0, **info: Any) -> Judged:
    """An answer to problem ``set:<number>``, whose reference is its number."""
    problem = Problem(f"set:{number}", f"question {number}", str(number), info)
    prompt = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": f"question {number}"})
    ids = tuple(range(len(text)))
    return Judged(problem, Completion(text, len(text), 1, "stop"), Score(1.0, {"correct": 1.0}), prompt, number, ids)


def opened(name: str, **fields: Any) -> Function:
    """The part of a recipe."""
    found = build("rewards", {"kind": "function", "path": f"{HERE}:{name}", **fields}, field="reward.parts.0")
    assert isinstance(found, Function)
    return found


def values(name: str, *answers: Judged, **fields: Any) -> tuple[float | None, ...]:
    """What a function of this file says."""
    found: Ratings = opened(name, **fields).rate_all(answers)
    return found.values


# As in the documentation of TRL.
def longer(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    return [float(len(ids)) for ids in completion_ids]


def conversational(prompts: Any, completions: Any, answer: Any, **kwargs: Any) -> list[float]:
    assert prompts[0] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "question 1"},
    ]
    assert set(kwargs) >= {"completion_ids", "question", "ground_truth", "solution", "reference", "problem_id", "level"}
    assert kwargs["level"] == [3, None]
    contents = [completion[0]["content"] for completion in completions]
    assert completions[0] == [{"role": "assistant", "content": contents[0]}]
    return [1.0 if content == truth else 0.0 for content, truth in zip(contents, answer, strict=True)]


def math_only(prompts: Any, completions: Any, data: Any, **kwargs: Any) -> list[float | None]:
    return [float(kind == "math") if kind == "math" else None for kind in data]


def plain(prompts: Any, completions: Any) -> list[Any]:
    assert prompts[0] == "Be brief.\n\nquestion 1"
    return [len(completion) for completion in completions]


async def awaited(completions: Any, **kwargs: Any) -> Any:
    return np.array([0.5] * len(completions), dtype=np.float32)


def test_functions_of_trl() -> None:
    """Catches columns of one problem given to all, completions in another form than prompts, and answers out of
    order."""
    one, two = judged("1", 1, level=3), judged("no", 2)
    assert values("conversational", one, two) == (1.0, 0.0)
    assert values("longer", one, two) == (1.0, 2.0)
    assert values("plain", one, two, shows="text") == (1.0, 2.0)
    assert values("awaited", one, two) == (0.5, 0.5)
    assert values("longer") == ()


def test_no_opinion_is_none() -> None:
    """Catches None that becomes 0, or nan."""
    assert values("math_only", judged("a", 1, data="math"), judged("b", 2, data="code")) == (1.0, None)


def test_columns_of_the_data_come_first() -> None:
    """Catches a reference that hides the data set's own column of that name, and verl's files without their source."""
    row = {"answer": "worked", "data_source": "openai/gsm8k", "extra_info": {"index": 4}, "difficulty": 2}
    own = judged("a", 7, answer="short", **{COLUMNS: row})
    given = opened("longer")._trl([own])
    assert (given["answer"], given["difficulty"], COLUMNS in given) == (["worked"], [2], False)
    asked = opened("detailed")._verl(own)
    assert (asked["data_source"], asked["ground_truth"], asked["extra_info"]) == ("openai/gsm8k", "7", {"index": 4})
    found = opened("longer")._trl([judged("a", 7, answer="long answer", prompts="no", completions="no")])
    assert (found["answer"], found["reference"], found["question"]) == (["long answer"], ["7"], ["question 7"])
    assert found["completions"] == [[{"role": "assistant", "content": "a"}]]


# As in the documentation of verl.
def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> Any:
    assert data_source == "set"
    assert extra_info["question"].startswith("question")
    return float(solution_str == ground_truth)


def detailed(data_source: str, solution_str: str, ground_truth: str, extra_info: Any, scale: float = 1.0) -> Any:
    assert (data_source, ground_truth, extra_info) == ("openai/gsm8k", "72", {"index": 4})
    return {"score": scale * 0.5, "acc": True, "pred": "71", "bad": float("nan")}


def test_functions_of_verl() -> None:
    """Catches a ground truth of another problem, and a dict of which nothing but the score is kept, or all of it."""
    assert values("compute_score", judged("1", 1), judged("1", 2)) == (1.0, 0.0)
    info = {"data_source": "openai/gsm8k", "ground_truth": "72", "extra_info": {"index": 4}}
    found = opened("detailed", kwargs={"scale": 3}).rate_all([judged("71", 1, **info)])
    assert (found.values, found.details) == ((1.5,), ({"acc": 1.0},))


def raises(completions: Any, **kwargs: Any) -> list[float]:
    return [1 / (completion[0]["content"] != "bad") for completion in completions]


def raises_together(completions: Any, **kwargs: Any) -> list[float]:
    return [1.0 / (len(completions) == 1)] * len(completions)


def raises_verl(solution_str: str, **kwargs: Any) -> float:
    raise KeyError("missing")


def no_score(solution_str: str, **kwargs: Any) -> Any:
    return {"acc": 1.0}


def ends(completions: Any, **kwargs: Any) -> Any:
    sys.exit("no licence")


def takes_texts(completions: Any, **kwargs: Any) -> Any:
    return [float(completion.startswith("a")) for completion in completions]


def searches(completions: Any, **kwargs: Any) -> Any:
    return [float(re.search("a", completion) is not None) for completion in completions]


def too_few(completions: Any, **kwargs: Any) -> Any:
    return [1.0]


def one_number(completions: Any, **kwargs: Any) -> Any:
    return 1.0


def not_a_number(completions: Any, **kwargs: Any) -> Any:
    return [float("nan")] * len(completions)


def a_word(completions: Any, **kwargs: Any) -> Any:
    return ["1.0"] * len(completions)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", r":raises: ZeroDivisionError: .* \(test_reward_functions\.py, line \d+\), about problem 'set:2'"),
        ("raises_together", r"about 2 answers to 2 problems together \('set:1', \.\.\.\), not one alone"),
        ("raises_verl", r"KeyError: 'missing' \(test_reward_functions.*about problem 'set:1'"),
        ("ends", r":ends: SystemExit: no licence \(test_reward_functions.*about problem 'set:1'"),
        ("takes_texts", r"AttributeError: .*about problem 'set:1'; completions are chats.*: shows: text gives texts"),
        ("searches", r"TypeError: .*about problem 'set:1'; completions are chats.*: shows: text gives texts"),
        ("no_score", r"gave \{'acc': 1\.0\}, without 'score', about problem 'set:1'"),
        ("too_few", r"gave \[1\.0\] for 2 answers; expected a list of as many"),
        ("one_number", r"gave 1\.0 for 2 answers"),
        ("not_a_number", r"gave nan about problem 'set:1'; expected a finite number, or None"),
        ("a_word", r"gave '1\.0' about problem 'set:1'"),
    ],
)
def test_failures_name_function_and_problem(name: str, message: str) -> None:
    """Catches a traceback that does not say which answer it is about, and a reward of nan that ends in the weights."""
    with pytest.raises(RunError, match=message):
        values(name, judged("good", 1), judged("bad", 2))


def demanding(completions: Any, difficulty: Any) -> list[float]:
    return [1.0] * len(completions)


def unclear(text: str, truth: str) -> float:
    return 1.0


not_callable = 3


class Uncalled:
    def __call__(self, completions: Any) -> list[float]:
        return [1.0] * len(completions)


called = Uncalled()


def test_columns_that_are_missing_are_told_before_the_run() -> None:
    """Catches a TypeError after the model was loaded and a whole step decoded."""
    with pytest.raises(ValueError, match=r"the function wants difficulty, but problems of this task have answer, "):
        opened("demanding").check_columns(judged("", 1))
    opened("demanding").check_columns(judged("", 1, difficulty=2))
    opened("demanding", kwargs={"difficulty": 1}).check_columns(judged("", 1))
    opened("compute_score").check_columns(judged("", 1))
    assert values("demanding", judged("", 1, difficulty=2)) == (1.0,)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{HERE}:nothing", "has no function 'nothing'"),
        (f"{HERE}:not_callable", "expected a function, not_callable is none"),
        (f"{HERE}:Uncalled", "is a class; give a function"),
        (f"{HERE}:unclear", r"takes text, truth; expected completions \(as for TRL\) or solution_str"),
        ("nowhere.at_all:f", "no module named 'nowhere'"),
        ("nowhere/at_all.py:f", "no such file"),
        ("module", r"expected package\.module:function"),
        (":f", r"expected package\.module:function"),
    ],
)
def test_addresses_that_lead_nowhere(path: str, message: str) -> None:
    """Catches a mistyped address that is found out at the first reward."""
    with pytest.raises(ValueError, match=rf"reward\.parts\.0: path='{path}': .*{message}"):
        build("rewards", {"kind": "function", "path": path}, field="reward.parts.0")


def test_a_file_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a file that is run anew for every call, that hides a module of its name, or stays half-loaded."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text(
        "import json\nassert json.dumps\nCALLS = []\n"
        "def reward(completions, **kwargs):\n    CALLS.append(1)\n    return [len(CALLS)] * len(completions)\n"
    )
    function = Function("json.py:reward")
    assert [function.rate_all([judged("a")]).values for _ in range(2)] == [(1.0,), (2.0,)]
    assert function.name == "reward"
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
            Function("broken.py:reward")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ValueError, match=r"script\.py ends the process where it is imported; put"):
        Function("script.py:reward")


def test_an_instance_that_can_be_called() -> None:
    """Catches a check for functions proper, which refuses what works elsewhere."""
    assert values("called", judged("a")) == (1.0,)
    wrapped: Callable[..., Any] = called
    assert wrapped(["a"]) == [1.0]
