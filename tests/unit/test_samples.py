"""Evaluation while training: the model left as it was, rows and sample tables, the same by one process or two."""

import json
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from revelm.core.types import Completion, Problem, Score
from revelm.eval.config import EvaluationSpec, SettingSpec
from revelm.trainers.evaluation import Evaluation, evaluate_run, plan_evaluation
from revelm.trainers.run_log import RunLog, read_rows
from revelm.trainers.samples import sample_rows, write_samples
from tests.tiny_checkpoint import tiny_model, tiny_tokenizer
from tests.toy_tasks import Parity

SETTINGS = {name: SettingSpec(temperature=t, max_new_tokens=8) for name, t in (("cold", 0.5), ("warm", 1.0))}
SPEC = EvaluationSpec(settings=SETTINGS, samples_per_problem=2)


class Ending(Parity):
    """A task whose scores fail, as a broken judge does."""

    def score(self, problem: Problem, completion: Completion) -> Score:
        """Never."""
        raise RuntimeError("the judge is down")


class Process:
    """One of several threads that play processes: ``gather`` waits for all."""

    def __init__(self, rank: int, meeting: threading.Barrier, table: dict[int, Any]) -> None:
        self.rank, self.size, self.meeting, self.table = rank, meeting.parties, meeting, table

    def gather(self, value: Any) -> list[Any]:
        """What all had, by rank."""
        self.table[self.rank] = value
        self.meeting.wait(600)
        return [self.table[i] for i in range(self.size)]

    def together(self) -> AbstractContextManager[None]:
        """Errors stay where they are."""
        return nullcontext()


def plan(task: Any = None, **changes: Any) -> Evaluation:
    """Three problems, two settings, two answers each."""
    model = tiny_model()
    return plan_evaluation(task or Parity(), SPEC, family=model.family, tokenizer=tiny_tokenizer(), **changes)


def run(folder: Path, evaluation: Evaluation, model: Any = None, *, is_main: bool = True, **changes: Any) -> Any:
    """Evaluate after step 7 of an RL run in ``folder``."""
    log = RunLog(folder, phase="rl", total=9, start=0, is_main=is_main)
    return evaluate_run(evaluation, model or tiny_model(), tiny_tokenizer(), log=log, step=7, **changes)


def untimed(settings: Any) -> Any:
    """The metrics without what a clock said."""
    return {n: {k: v for k, v in m.items() if "second" not in k} for n, m in settings.items()}


@pytest.mark.parametrize("is_training", [True, False])
def test_the_model_is_left_as_it_was(tmp_path: Path, is_training: bool) -> None:
    """Catches dropout that stays off after the first evaluation, weights touched, random numbers used up."""
    model = tiny_model().train(is_training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.random.get_rng_state()
    settings = run(tmp_path, plan(), model)
    assert model.training is is_training
    assert torch.equal(torch.random.get_rng_state(), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    rows = read_rows(tmp_path)
    assert [(row["phase"], row["at"], row["step"], row["setting"]) for row in rows] == [
        ("eval", "rl", 7, "cold"),
        ("eval", "rl", 7, "warm"),
    ]
    assert [row["accuracy"] for row in rows] == [settings[name]["accuracy"] for name in ("cold", "warm")]
    assert rows[0]["accuracy"]["n"] == 6
    assert rows[0]["truncated"].keys() == {"mean", "low", "high", "n"}


def test_a_failed_evaluation_leaves_nothing_behind(tmp_path: Path) -> None:
    """Catches a model left in evaluation mode, and rows of half an evaluation."""
    model = tiny_model().train()
    with pytest.raises(RuntimeError, match="judge is down"):
        run(tmp_path, plan(Ending()), model)
    assert model.training
    assert read_rows(tmp_path) == []


def test_processes_share_an_evaluation(tmp_path: Path) -> None:
    """Catches answers that depend on the number of processes, groups that collide, and files written twice."""
    alone = run(tmp_path / "alone", plan())
    meeting, table, found = threading.Barrier(2), dict[int, Any](), dict[int, Any]()

    def work(rank: int) -> None:
        shared = plan(world=Process(rank, meeting, table))
        found[rank] = run(tmp_path / str(rank), shared, is_main=rank == 0)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert untimed(found[0]) == untimed(found[1]) == untimed(alone)
    tables = [(tmp_path / name / "samples" / "step-7.jsonl").read_text() for name in ("alone", "0")]
    assert tables[0] == tables[1]
    assert not (tmp_path / "1").exists()


def test_what_could_not_be_asked_is_an_error_before(tmp_path: Path) -> None:
    """Catches an evaluation that fails at its first time, hours into a run."""
    model = tiny_model()
    for spec, told in (
        (EvaluationSpec(max_new_tokens=500), r"eval\.settings\.static"),
        (EvaluationSpec(cache={"kind": "prefix"}), r"eval\.cache"),
    ):
        with pytest.raises(ValueError, match=told):
            plan_evaluation(Parity(), spec, family=model.family, tokenizer=tiny_tokenizer())


def test_the_table_tells_each_answer(tmp_path: Path) -> None:
    """Catches rows that mix up problems, and a table without what the score was made of."""
    run(tmp_path, plan(num_samples=4))
    rows = [json.loads(line) for line in (tmp_path / "samples" / "step-7.jsonl").read_text().splitlines()]
    assert [(row["setting"], row["problem"]) for row in rows] == [
        ("cold", "test:1000"),
        ("cold", "test:1001"),
        ("warm", "test:1000"),
        ("warm", "test:1001"),
    ]
    for row in rows:
        assert row["problem"].removeprefix("test:") in row["prompt"]
        assert row["score"] == row["breakdown"]["correct"] == float(sum(map(ord, row["answer"])) % 2 == 0)
        assert 0 < row["forwards"] <= row["tokens"] <= 8
        assert row["finish_reason"] in ("stop", "length")


def test_every_setting_and_problem_gets_its_share(tmp_path: Path) -> None:
    """Catches a table that the first setting, or the answers to the first problem, fill alone."""
    from revelm.engine.engine import Engine
    from revelm.rollout.collect import collect

    engine = Engine(tiny_model().eval(), tiny_tokenizer(), num_slots=8)
    asked = {"sampling": SETTINGS["warm"].sampling(), "group_size": 3, "seed": 0}
    found = collect(engine, Parity(), Parity().problems("test"), **asked)
    rows = sample_rows({"a": found, "b": found[:2]}, tiny_tokenizer(), limit=9)
    assert [row["problem"][-1] for row in rows if row["setting"] == "a"] == ["0", "1", "2", "0", "1"]
    assert [row["setting"] for row in rows].count("b") == 2
    assert write_samples(tmp_path, 1, {"a": found}, tokenizer=tiny_tokenizer(), limit=0) is None
    assert not (tmp_path / "samples").exists()
