"""The path from problems to scored answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from revelm.core.config import parse_config
from revelm.core.types import Problem
from revelm.decoding.sampling import Sampling
from revelm.engine.engine import Engine
from revelm.objectives.trace_rl import TraceRL
from revelm.parallel.world import World
from revelm.rollout.collect import Answer, collect, collect_meanwhile, read_completion
from revelm.trainers.config import RLConfig
from revelm.trainers.rollouts import Ask, Asker
from revelm.trajectories.record import Trajectory
from tests.guarded_tasks import Consulting, GuardedParity
from tests.tiny_checkpoint import tiny_model, tiny_tokenizer
from tests.toy_tasks import Parity

SAMPLING = Sampling(max_new_tokens=9)


def answers(problems: list[Problem], *, group_size: int = 2, seed: int = 5, num_slots: int = 64) -> list[Answer]:
    """Answers of an untrained model."""
    engine = Engine(tiny_model(spread=0.05), tiny_tokenizer(), num_slots=num_slots)
    return collect(engine, Parity(), problems, sampling=SAMPLING, group_size=group_size, seed=seed)


def tokens(found: list[Answer], problem: str) -> list[list[int]]:
    """The answers to one problem, as ids."""
    return [a.trajectory.completion_ids.tolist() for a in found if a.problem.id == problem]


def test_answers_do_not_depend_on_their_neighbours() -> None:
    """Catches seeds by place in the batch: a problem's answers would change with what else is asked."""
    problems = list(Parity().problems("train"))
    together = answers(problems)
    for chosen in ([problems[3]], [problems[5], problems[3]], problems[::-1]):
        apart = answers(chosen, num_slots=3)
        assert tokens(apart, "train:3") == tokens(together, "train:3")
    assert tokens(answers(problems[:2], group_size=5), "train:1")[:2] == tokens(together, "train:1")


def test_verdicts_reached_meanwhile_are_those_reached_after() -> None:
    """Catches scores that go to other answers, as these end in another order than they were asked in, and an engine
    that a verdict that raises leaves at work."""
    engine, problems = Engine(tiny_model(spread=0.05), tiny_tokenizer(), num_slots=2), list(Parity().problems("train"))
    asked: dict[str, Any] = {"sampling": SAMPLING, "group_size": 3, "seed": 5}

    def told(found: list[Answer]) -> list[tuple[Any, ...]]:
        return [
            (a.problem.id, a.group, tuple(a.trajectory.completion_ids), a.score.value, a.trajectory.info) for a in found
        ]

    here = told(collect(engine, Parity(), problems, **asked))
    assert {value for *_, value, _ in here} == {0.0, 1.0}
    for asking in (collect, collect_meanwhile):
        assert told(asking(engine, GuardedParity(), problems, **asked)) == here
        with pytest.raises(ValueError, match=r"problem 'train:1': its verdict raised KeyError"):
            asking(engine, GuardedParity(bad="train:1"), problems, **asked)
        assert not engine.is_busy
    assert told(collect_meanwhile(engine, Parity(), problems, **asked)) == here


def test_a_prompt_may_ask_workers() -> None:
    """Catches prompts that are written when the pool is already at work for their answers."""
    engine, problems = Engine(tiny_model(spread=0.05), tiny_tokenizer()), list(Parity().problems("train"))[:2]
    asked: dict[str, Any] = {"sampling": SAMPLING, "group_size": 2, "seed": 5}
    meanwhile = collect_meanwhile(engine, Consulting(), problems, **asked)
    assert [a.score.value for a in meanwhile] == [a.score.value for a in collect(engine, Parity(), problems, **asked)]


def test_answers_differ_where_they_should() -> None:
    """Catches equal seeds within a group, across problems, or for every step of a run."""
    found = answers(list(Parity().problems("train")), group_size=3)
    assert len({tuple(a.trajectory.completion_ids.tolist()) for a in found}) == len(found)
    other = answers(list(Parity().problems("train")), group_size=3, seed=6)
    assert tokens(found, "train:0") != tokens(other, "train:0")


def test_a_problem_asked_twice_gets_other_answers() -> None:
    """Catches one seed for all problems of a step: a problem drawn twice gives the same answers in two groups."""
    problems = list(Parity().problems("train"))
    chosen = [problems[0], problems[1], problems[0]]
    engine = Engine(tiny_model(spread=0.05), tiny_tokenizer())
    asked: dict[str, Any] = {"sampling": SAMPLING, "group_size": 2}
    found = collect(engine, Parity(), chosen, seed=[5, 6, 7], **asked)
    ids = [a.trajectory.completion_ids.tolist() for a in found]
    assert ids[:2] != ids[4:]
    alone = collect(engine, Parity(), chosen[2:], seed=7, **asked)
    assert [a.trajectory.completion_ids.tolist() for a in alone] == ids[4:]
    with pytest.raises(ValueError, match="zip"):
        collect(engine, Parity(), chosen, seed=[5], **asked)


def test_a_step_that_draws_a_problem_twice_asks_it_anew(tmp_path: Path) -> None:
    """Catches seeds of a step's beginning: more problems per step than there are would double every group."""
    model = tiny_model(spread=0.05)
    values = {"model": {"path": "m"}, "task": "chain", "train": {"steps": 1}, "out": str(tmp_path)}
    rollout = {"problems_per_step": 4, "group_size": 3, "max_new_tokens": 9}
    config = parse_config(RLConfig, {**values, "rollout": rollout})
    task = Parity(num_train=2)
    asker = Asker(Ask(task, list(task.problems("train"))), TraceRL(), config, World())
    found = asker.draw(Engine(model, tiny_tokenizer()), step=0, drawn=0).answers[:12]
    groups: dict[str, list[list[list[int]]]] = {}
    for i in range(0, 12, 3):
        ids = [a.trajectory.completion_ids.tolist() for a in found[i : i + 3]]
        groups.setdefault(found[i].problem.id, []).append(ids)
    assert [len(same) for same in groups.values()] == [2, 2]
    assert all(one != other for one, other in groups.values())


def test_groups_and_scores_stay_with_their_answers() -> None:
    """Catches a score, a problem or a group number that slips to a neighbour."""
    problems = list(Parity().problems("train"))[2:5]
    found = answers(problems, group_size=4)
    assert [a.group for a in found] == [0] * 4 + [1] * 4 + [2] * 4
    assert [a.problem for a in found] == [p for p in problems for _ in range(4)]
    for answer in found:
        text = tiny_tokenizer().decode(answer.trajectory.response_ids.tolist(), skip_special_tokens=True)
        assert answer.completion.text == text
        assert answer.score == Parity().score(answer.problem, answer.completion)
        assert answer.trajectory.info == {"problem": answer.problem.id, "score": answer.score.value}
        assert answer.completion.num_tokens == answer.trajectory.stop_length
        assert answer.completion.num_forwards == answer.trajectory.num_forwards


def record(ids: list[int], stop_length: int, reason: str, **sampling: object) -> Trajectory:
    """A trajectory of hand-made tokens."""
    size = len(ids)
    return Trajectory(
        prompt_ids=np.array([5], dtype=np.int32),
        completion_ids=np.array(ids, dtype=np.int32),
        step=np.arange(1, size + 1, dtype=np.int32),
        forward=np.arange(1, size + 1, dtype=np.int32),
        logprob=np.zeros(size),
        logprob_t1=np.zeros(size),
        confidence=np.ones(size),
        num_steps=size,
        block_size=4,
        grid_offset=0,
        stop_length=stop_length,
        finish_reason=reason,  # type: ignore[arg-type]
        rule={"kind": "static"},
        sampling={"temperature": 1.0, **sampling},
    )


def test_text_ends_before_the_stop() -> None:
    """Catches the stop token, what was decoded behind it, or the stop string as part of the answer."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode("ab=7\nxy", add_special_tokens=False)
    end = tokenizer.eos_token_id
    assert read_completion(tokenizer, record([*ids, end, *ids], len(ids) + 1, "stop")).text == "ab=7\nxy"
    assert read_completion(tokenizer, record([*ids, end], len(ids), "length")).text == "ab=7\nxy"
    # An entry for each token up to the stop, the stop included; of a cut text none beyond its end.
    assert read_completion(tokenizer, record([*ids, end, *ids], len(ids) + 1, "stop")).offsets == (
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        7,
    )
    assert read_completion(tokenizer, record([end, *ids], 1, "stop")).offsets == (0,)
    assert read_completion(tokenizer, record(ids, 0, "cancelled")).offsets == ()
    # A stop id that is no special token: the newline.
    assert read_completion(tokenizer, record(ids, 5, "stop")).text == "ab=7"
    cut = record(ids, 5, "stop_string", stop_strings=("7\n", "nowhere", "=7"))
    assert read_completion(tokenizer, cut).text == "ab"
    assert read_completion(tokenizer, cut).offsets == (1, 2, 2, 2, 2)


def test_a_stop_string_that_is_a_special_token() -> None:
    """Catches a crash when the stop string is not in the text because special tokens are left out of it."""
    tokenizer = tiny_tokenizer()
    user = tokenizer.convert_tokens_to_ids("<|user|>")
    ids = [*tokenizer.encode("hi", add_special_tokens=False), user]
    assert read_completion(tokenizer, record(ids, 3, "stop_string", stop_strings=("<|user|>",))).text == "hi"


def test_bad_prompts_fail_before_any_work() -> None:
    """Catches a prompt that is cut or decoded wrongly instead of refused."""
    engine = Engine(tiny_model(), tiny_tokenizer())
    problem = Parity().problems("train")[0]
    for question, words in (("a<|mask|>b", r"messages.0.content spells the special token"), ("x" * 90, "positions")):
        bad = [problem, replace(problem, question=question)]
        with pytest.raises(ValueError, match=words):
            collect(engine, Parity(), bad, sampling=SAMPLING, group_size=1, seed=0)
    assert engine.stats.forwards == 0
