"""Weighted sums of rewards, and a judge of whole answers as one of them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from revelm.core.config import parse_config
from revelm.core.errors import RunError
from revelm.core.types import Completion, Problem, Score
from revelm.rewards.reward import Judged
from revelm.rewards.verdict import read_grade
from revelm.rollout.collect import Answer
from revelm.rollout.judge_prompt import grade_prompt
from revelm.rollout.open_rewards import check_rewards, open_rewards
from revelm.rollout.part_rewards import PartRewards, read_parts
from revelm.rollout.reward_config import RewardSpec
from revelm.rollout.reward_source import with_rewards
from revelm.trainers.config import RLConfig
from revelm.trainers.rollouts import rollout_metrics, to_episodes
from revelm.trainers.same_run import check_same_run
from revelm.trajectories.record import Trajectory
from tests.fake_judge import FakeJudge, Response, fake_judge, says
from tests.toy_tasks import Parity

HERE = __name__


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def answer(text: str, *, group: int = 0, correct: float = 1.0, value: float | None = None) -> Answer:
    """An answer of a token per character and a stop, revealed two at a time."""
    num = len(text) + 1
    size = -(-num // 4) * 4
    step = (np.arange(size) // 2 + 1).astype(np.int32)
    trajectory = Trajectory(
        prompt_ids=np.array([5], dtype=np.int32),
        completion_ids=np.arange(size, dtype=np.int32),
        step=step,
        forward=step,
        logprob=np.zeros(size),
        logprob_t1=np.zeros(size),
        confidence=np.ones(size),
        num_steps=int(step.max()),
        block_size=4,
        grid_offset=1,
        stop_length=num,
        finish_reason="stop",
        rule={"kind": "static"},
        sampling={"temperature": 1.0},
    )
    score = Score(correct if value is None else value, {"correct": correct, "has_box": 1.0})
    completion = Completion(text, num, int(step.max()), "stop")
    return Answer(Problem(f"p{group}", f"question {group}", "abc"), group, trajectory, completion, score)


@dataclass(frozen=True)
class Odd:
    """A reward of a user: no opinion about texts of even length."""

    broken: float | None = None

    def rate(self, given: Judged) -> Any:
        if self.broken is not None:
            return self.broken
        return float(len(given.completion.text)) if len(given.completion.text) % 2 else None


@dataclass(frozen=True)
class Nothing:
    """No reward."""

    size: int = 0


def counted(completions: Any, prompts: Any, completion_ids: Any, **kwargs: Any) -> list[float]:
    """A function in the manner of TRL."""
    assert prompts[0][0]["content"].startswith("question") or prompts[0][0]["content"].startswith("q")
    return [float(len(ids)) for ids in completion_ids]


def halves(solution_str: str, **kwargs: Any) -> dict[str, float]:
    """A function in the manner of verl."""
    return {"score": 0.5, "length": float(len(solution_str))}


def source(*specs: Any) -> PartRewards:
    """What a recipe with these parts opens."""
    spec = parse_config(RewardSpec, {"parts": list(specs)})
    (found,) = open_rewards(spec, Parity(), seed=3)
    assert isinstance(found, PartRewards)
    return found


def test_a_sum_of_parts() -> None:
    """Catches weights of other parts, a part without an opinion that counts as 0 in the log or moves its neighbours, a
    task's verdict that is lost, and a score that is logged and not learnt."""
    parts = source(
        {"kind": "task", "weight": 2},
        {"kind": f"{HERE}:Odd", "weight": 0.5, "name": "odd"},
        {"kind": "exact", "weight": 0},
        {"kind": "function", "path": f"{HERE}:counted", "weight": -0.125},
        {"kind": "function", "path": f"{HERE}:halves"},
    )
    given = [answer("abc"), answer("abcd", correct=0.0), answer("x", group=1)]
    found, counts = with_rewards(given, parts)
    assert [a.score.value for a in found] == [2 + 1.5 - 0.5 + 0.5, 0 - 0.625 + 0.5, 2 + 0.5 - 0.25 + 0.5]
    assert found[0].score.breakdown == {
        "correct": 1.0,
        "has_box": 1.0,
        "reward/task": 1.0,
        "reward/odd": 3.0,
        "reward/exact": 1.0,
        "reward/counted": 4.0,
        "reward/halves": 0.5,
        "reward/halves/length": 3.0,
    }
    assert "reward/odd" not in found[1].score.breakdown
    assert found[1].score.breakdown["correct"] == 0.0
    assert counts == {"rewards_unrated": 0.0}
    metrics = rollout_metrics(found)
    assert metrics["reward/odd"] == 2.0
    assert (metrics["reward/exact"], metrics["accuracy"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert metrics["reward"] == pytest.approx(np.mean([a.score.value for a in found]))
    assert metrics["length"] == pytest.approx(np.mean([4, 5, 2]))
    values = {"model": {"path": "m"}, "train": {"steps": 1}, "out": "o", "task": "chain"}
    episodes = to_episodes(found, parse_config(RLConfig, values), (0, 0))
    assert [e.score for e in episodes] == [a.score.value for a in found]
    assert [e.is_correct for e in episodes] == [True, False, True]


def test_an_answer_without_any_opinion_is_counted() -> None:
    """Catches an answer that scores 0 as nobody rates it, and a log that does not say so."""
    found, counts = with_rewards([answer("ab"), answer("abc")], source({"kind": f"{HERE}:Odd"}))
    assert [a.score.value for a in found] == [0.0, 3.0]
    assert counts == {"rewards_unrated": 1.0}
    assert "reward/Odd" not in found[0].score.breakdown


def test_a_verdict_that_could_not_be_reached_is_no_opinion() -> None:
    """Catches a broken sandbox that is punished like a wrong answer."""
    broken = replace(answer("abc"), score=Score(0.0, {"correct": 0.0, "error": 1.0}, reason="error: broken"))
    found, counts = with_rewards([broken], source("task", {"kind": "length", "limit": 8}))
    assert found[0].score.value == -0.5
    assert "reward/task" not in found[0].score.breakdown
    assert counts["rewards_unrated"] == 0.0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([{"kind": "exat"}], r"reward\.parts\.0\.kind: 'exat' is not known; did you mean 'exact'"),
        ([{"weight": 1}], r"reward\.parts\.0\.kind: required"),
        (["task", {"kind": "length"}], r"reward\.parts\.1\.limit: required, but not given"),
        ([{"kind": "length", "limit": 5, "fre": 2}], r"reward\.parts\.0\.fre: unknown field; did you mean 'free'"),
        ([{"kind": "task", "weight": "2"}], r"reward\.parts\.0\.weight: must be a finite number, got '2'"),
        ([{"kind": "task", "weight": float("nan")}], r"reward\.parts\.0\.weight: must be a finite number"),
        ([{"kind": "task", "name": "a b"}], r"reward\.parts\.0\.name: must be a word"),
        (["task", "exact", "task"], r"reward\.parts: 2 parts are called 'task'; give each a name of its own"),
        ([{"kind": "task", "weight": 0}], r"reward\.parts: all weights are 0"),
        ([{"kind": f"{HERE}:Nothing"}], r"reward\.parts\.0\.kind: .* is no reward; it needs a method rate"),
        ([{"kind": "judge_outcome", "judge": {"base_url": "x", "model": "m"}}], r"reward\.parts\.0\.judge\.base_url: "),
        (
            [{"kind": "judge_outcome", "judge": {"base_url": "http://h", "model": "m", "api_key_env": "NOT_SET_KEY"}}],
            "api_key_env: the environment variable 'NOT_SET_KEY' is not set",
        ),
        ([{"kind": "function", "path": f"{HERE}:test_a_sum_of_parts"}], "the function takes nothing; expected"),
    ],
)
def test_parts_that_are_refused(parts: list[Any], message: str) -> None:
    """Catches a mistake that is found out when the model was loaded, or never."""
    with pytest.raises(ValueError, match=message):
        check_rewards(parse_config(RewardSpec, {"parts": parts}), Parity())


def wants_more(completions: Any, difficulty: Any) -> list[float]:
    """A function whose argument no problem has."""
    return [1.0] * len(completions)


def test_missing_columns_are_refused() -> None:
    """Catches a function that fails at the first reward, for want of an argument."""
    spec = parse_config(RewardSpec, {"parts": [{"kind": "function", "path": f"{HERE}:wants_more"}]})
    with pytest.raises(ValueError, match="the function wants difficulty, but problems of this task have"):
        check_rewards(spec, Parity())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"reward": {"parts": ["task"], "judge": {"base_url": "http://h", "model": "m"}}, "value": {}},
            "reward: parts: scores of whole answers, in whose place judge puts rewards of steps",
        ),
        (
            {"reward": {"parts": ["task"], "reward_model": {"path": "m"}}},
            r"reward_model\.task_weight is 0, so that the sum of parts would count for nothing",
        ),
        (
            {"reward": {"parts": ["task", "tokens_per_forward"]}, "shaping": {"speed_weight": 0.1}},
            r"shaping\.speed_weight and the part tokens_per_forward of reward\.parts both pay for speed",
        ),
    ],
)
def test_combinations_that_are_refused(changes: dict[str, Any], message: str) -> None:
    """Catches two sections of which one silently undoes the other."""
    values = {"model": {"path": "m"}, "train": {"steps": 2}, "out": "o", "task": "chain"}
    with pytest.raises(ValueError, match=message):
        parse_config(RLConfig, {**values, **changes})


def test_a_resumed_run_keeps_its_parts(tmp_path: Any) -> None:
    """Catches a weight that changes on resuming, and a judge that may not move to another address."""
    values = {"model": {"path": "m"}, "train": {"steps": 2}, "out": "o", "task": "chain"}

    def told(weight: float, url: str) -> RLConfig:
        part = {"kind": "judge_outcome", "weight": weight, "judge": {"base_url": url, "model": "m"}}
        return parse_config(RLConfig, {**values, "reward": {"parts": ["task", part]}})

    check_same_run(told(0.5, "http://b"), told(0.5, "http://a"), tmp_path)
    with pytest.raises(ValueError, match=r"resume: reward\.parts\.1\.weight is 0\.6, but .* says 0\.5"):
        check_same_run(told(0.6, "http://a"), told(0.5, "http://a"), tmp_path)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), "1"])
def test_values_that_are_no_numbers_name_part_and_problem(broken: Any) -> None:
    """Catches nan in a sum, which nobody can trace back to its part."""
    parts = read_parts([{"kind": "task"}])
    odd = replace(parts[0], name="odd", reward=Odd(broken=broken))
    with pytest.raises(RunError, match=r"reward 'odd': gave .* about problem 'p0'; expected a number"):
        PartRewards([odd], Parity(), seed=0).score([answer("abc")])


# A judge of whole answers.


def judge(server: FakeJudge, **changes: Any) -> dict[str, Any]:
    """The part of a recipe."""
    told = {"base_url": server.base_url, "model": "j", "retries": 0, "concurrency": 1}
    fields = {key: changes.pop(key) for key in ("num_samples", "low", "high", "template", "weight") if key in changes}
    return {"kind": "judge_outcome", "judge": told | changes, **fields}


def shown(body: dict[str, Any]) -> str:
    """The text between the markers of a request."""
    return str(body["messages"][-1]["content"]).rsplit("<<<", 1)[1].split("\n", 1)[1].rsplit("\n", 1)[0]


def by_length(body: dict[str, Any], _: int) -> Response:
    """A grade as large as the text is long."""
    return says(f"<think>\\boxed{{0}}</think> I like it. \\boxed{{{len(shown(body))}}}")


def test_grades_are_rewards() -> None:
    """Catches a grade that goes to another answer or is not laid out on 0 to 1, and an empty answer that is asked
    about."""
    given = [answer("abc"), answer("ab", group=1), answer(""), answer("abcdefghij", group=1)]
    with fake_judge(by_length) as server:
        found, counts = with_rewards(given, source(judge(server, weight=2)))
        asked = server.question(0)
    assert [a.score.value for a in found] == [0.6, 0.4, 0.0, 2.0]
    assert [a.score.breakdown["reward/judge_outcome"] for a in found] == [0.3, 0.2, 0.0, 1.0]
    assert (counts["judge_calls"], counts["judge_failures"], counts["rewards_unrated"]) == (3, 0, 0)
    assert all(words in asked for words in ("question 0", "abc"))


def test_an_answer_without_a_grade_is_worth_the_mean_of_its_group() -> None:
    """Catches a failure of the judge that counts against the answer it befell."""

    def mumbles(body: dict[str, Any], number: int) -> Response:
        return says("hm" if len(shown(body)) in (3, 5) else f"\\boxed{{{len(shown(body))}}}")

    given = [answer("abc"), answer("ab"), answer("abcd"), answer("abcde", group=1)]
    with fake_judge(mumbles) as server:
        found, counts = with_rewards(given, source(judge(server)))
        with pytest.raises(RunError, match="on_failure: error"):
            source(judge(server, on_failure="error")).score(given)
        with pytest.raises(RunError, match="the judge fails too often"):
            source(judge(server, max_failure_share=0.1)).score(given)
    assert [a.score.value for a in found] == pytest.approx([0.3, 0.2, 0.4, 0.0])
    assert "reward/judge_outcome" not in found[3].score.breakdown
    assert (counts["judge_unreadable"], counts["rewards_unrated"]) == (2, 1)


def test_grades_are_remembered_and_averaged(tmp_path: Any) -> None:
    """Catches a memory that only knows 1 and -1, so that every grade is paid for again; and draws of equal seeds."""

    def varied(body: dict[str, Any], _: int) -> Response:
        return says(f"\\boxed{{{body['seed'] % 5}}}")

    file = tmp_path / "grades.jsonl"
    with fake_judge(varied) as server:
        parts = judge(server, num_samples=4, low=0, high=4, cache=str(file))
        first, counts = with_rewards([answer("abc")], source(parts))
        assert len({body["seed"] for body in server.bodies}) == 4
        mean = np.mean([body["seed"] % 5 for body in server.bodies]) / 4
        again, later = with_rewards([answer("abc")], source(parts))
    assert first[0].score.value == again[0].score.value == pytest.approx(mean)
    assert (counts["judge_calls"], later["judge_calls"], later["judge_cached"]) == (4, 0, 4)


def test_a_template_is_filled_in_once() -> None:
    """Catches an answer that writes {reference} and is shown it, and braces of an answer that break the template."""
    problem = Problem("p", "Q {answer}", "secret {0}")
    system, user = grade_prompt(problem, "{reference} {x}", template="A {answer} B {question} {other}", low=1, high=5)
    assert "secret" not in user["content"]
    assert "{reference} {x}" in user["content"]
    assert user["content"].endswith("B Q {answer} {other}")
    assert all(words in system["content"] for words in ("from 1 (worthless) to 5", "\\boxed{n}", "graded, and nothing"))
    with pytest.raises(ValueError, match=r"reward\.parts\.0: template: has no \{answer\}"):
        read_parts([{"kind": "judge_outcome", "judge": {"base_url": "http://h", "model": "m"}, "template": "?"}])


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("\\boxed{7}", 7.0),
        ("\\boxed{3} no, \\boxed{ 2.5 }", 2.5),
        ("\\boxed{11}", None),
        ("\\boxed{-1}", None),
        ("\\boxed{7/10}", None),
        ("\\boxed{nan}", None),
        ("\\boxed{1e1}", None),
        ("7", None),
        ("", None),
        ("<think>\\boxed{7}", None),
    ],
)
def test_grades_in_replies(reply: str, grade: float | None) -> None:
    """Catches a grade outside its range, or in a thought."""
    assert read_grade(reply, 0, 10) == grade
