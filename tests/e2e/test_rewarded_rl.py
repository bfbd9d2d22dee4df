"""Whole RL runs whose rewards come from elsewhere: a judge behind a socket, a reward model on the disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3Config, Qwen3ForSequenceClassification

from revelm.cli.main import main
from revelm.core.config import parse_config
from revelm.core.errors import RunError
from revelm.data.tokenizer import save_tokenizer
from revelm.engine.engine import Engine
from revelm.objectives.trace_rl import TraceRL
from revelm.parallel.placement import Placement
from revelm.parallel.world import World
from revelm.rollout.collect import Answer, read_completion
from revelm.rollout.open_rewards import open_rewards
from revelm.trainers import rl
from revelm.trainers.config import OptimizerSpec, RLConfig
from revelm.trainers.critic import open_critic, open_value_model
from revelm.trainers.rollouts import Ask, Asker
from revelm.trainers.value_spec import ValueSpec
from revelm.trajectories.store import read_trajectories
from tests.fake_judge import FakeJudge, Response, fake_judge, says
from tests.processes import Processes
from tests.tiny_checkpoint import save_tiny, tiny_model, tiny_tokenizer
from tests.toy_tasks import Parity

BLOCK = 4


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny", num_hidden_layers=1)


def rl_values(source: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """A short RL run."""
    return {
        "model": {"path": str(source)},
        "task": "tests.toy_tasks:Parity",
        "rollout": {"problems_per_step": 2, "group_size": 4, "max_new_tokens": 8, "save_every": 1},
        "optimizer": {"learning_rate": 3e-3},
        "train": {"steps": 4},
        "out": str(out),
    } | changes


def judged(server: FakeJudge, **changes: Any) -> dict[str, Any]:
    """The sections of a recipe with a judge: one chunk per block, one attempt."""
    told = {"base_url": server.base_url, "model": "j", "chunk_tokens": BLOCK, "num_samples": 1, "retries": 0}
    return {"reward": {"judge": told | changes}, "value": {"warmup_steps": 1, "learning_rate": 1e-3}}


def run(values: dict[str, Any], *words: str) -> int:
    """``revelm rl``; its exit code."""
    file = Path(values["out"]).with_suffix(".json")
    file.write_text(json.dumps(values))
    return main(["rl", str(file), *words])


def rows(folder: str | Path) -> list[dict[str, Any]]:
    """metrics.jsonl without times."""
    found = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in found]


def sign(text: str) -> int:
    """What the judge thinks of a text."""
    return 1 if sum(map(ord, text)) % 3 else -1


def opinion(body: dict[str, Any], _: int) -> Response:
    """A verdict on the text between the last markers of a request."""
    shown = str(body["messages"][-1]["content"]).rsplit("<<<", 1)[1].split("\n", 1)[1].rsplit("\n", 1)[0]
    return says(f"\\boxed{{{sign(shown)}}}")


def chunk_values(answer: Answer) -> dict[int, float]:
    """What steps earn: the last one in every four tokens (up to the stop) what the prefix behind them is worth."""
    trajectory, completion = answer.trajectory, answer.completion
    earned: dict[int, float] = {}
    for first in range(0, trajectory.stop_length, BLOCK):
        places = range(first, min(first + BLOCK, trajectory.stop_length))
        before = completion.text[: completion.offsets[first - 1]] if first else ""
        prefix = completion.text[: completion.offsets[places[-1]]]
        latest = int(max(trajectory.step[i] for i in places))
        value = sign(prefix) if prefix[len(before) :].strip() else (1.0 if answer.score.value else -1.0)
        earned[latest] = earned.get(latest, 0.0) + float(value)
    return earned


@pytest.mark.parametrize("shrinkage", [1, 3])
def test_chunk_rewards_reach_the_returns_of_their_steps(shrinkage: int) -> None:
    """Catches rewards that go to another answer or another step, or shrink where steps are merged or span two chunks,
    on their way from a judge's reply to what a critic learns; dropped groups and permuted samples are on that way. And
    a judge that is asked about groups which are thrown away."""
    policy = tiny_model(spread=0.05)
    spec = parse_config(ValueSpec, {})
    critic_model = open_value_model(spec, policy)
    with fake_judge(opinion) as server:
        values = rl_values(Path("unused"), Path("unused"), **judged(server, normalise="none"))
        config = parse_config(RLConfig, values | {"objective": {"kind": "trace_rl", "group_range": [0.2, 0.9]}})
        sources = open_rewards(config.reward, Parity(), seed=0)
        ask = Ask(Parity(), Parity().problems("train"))
        engine = Engine(policy, tiny_tokenizer(), num_slots=3)
        found = Asker(ask, TraceRL(group_range=(0.2, 0.9)), config, World(), sources).draw(engine, step=0, drawn=0)
    assert 0 < len(found.episodes) <= len(found.answers)
    assert len(server.bodies) <= sum(-(-e.trajectory.stop_length // BLOCK) for e in found.episodes), (
        "others were judged"
    )
    objective = TraceRL(shrinkage=shrinkage)
    critic = open_critic(spec, critic_model, optimizer=OptimizerSpec(), total_updates=9, placement=Placement())
    order = np.random.default_rng(0).permutation(len(found.episodes))
    parts = [[found.episodes[i] for i in half] for half in np.array_split(order, 2)]
    shares = [objective.prepare(part, policy.family, 0).split(60) for part in parts]
    assessed, _ = critic.assess(shares, found.episodes, objective=objective)
    columns = [batch.columns for share in assessed for batch in share]
    entries = {
        (int(e), int(p)): (int(m), float(r))
        for c in columns
        for e, p, m, r in zip(*(c[name].tolist() for name in ("episode", "place", "moment", "return")), strict=True)
    }
    assert len({episode for episode, _ in entries}) == len(found.episodes)
    returns = set()
    for episode in found.episodes:
        answer = found.answers[episode.key]
        assert answer.trajectory is episode.trajectory
        earned, step = chunk_values(answer), episode.trajectory.step
        for place in range(episode.trajectory.stop_length):
            moment, value = entries[episode.key, place]
            together = [step[p] for (key, p), (m, _) in entries.items() if key == episode.key and m == moment]
            assert value == pytest.approx(sum(v for s, v in earned.items() if s >= min(together)), abs=1e-6)
            returns.add(round(value, 3))
    assert len(returns) >= 4, "hardly any two returns differ"


@pytest.mark.parametrize("backbone", ["own", "shared"])
def test_a_judged_run(model: Path, tmp_path: Path, backbone: str) -> None:
    """Catches a judge that is asked and not listened to, numbers that nobody logs, and answers judged twice."""
    value = {"value": {"backbone": backbone, "warmup_steps": 1}}
    ends = []
    for name, behaviour in (("a", opinion), ("b", lambda body, _: says("\\boxed{1}"))):
        with fake_judge(behaviour) as server:
            assert run(rl_values(model, tmp_path / name, **judged(server) | value)) == 0
            asked = len(server.bodies)
        found = rows(tmp_path / name)
        assert [row["step"] for row in found] == [1, 2, 3, 4]
        assert all("value_loss" in row and ("loss" in row or row["step"] == 1) for row in found)
        assert sum(row["judge_calls"] for row in found) == asked > 0
        assert all(row["judge_chunks"] >= row["num_answers"] for row in found)
        assert all(row["judge_failures"] == row["judge_unreadable"] == 0 for row in found)
        assert all(-1 <= row["process"] <= 1 for row in found)
        assert (tmp_path / name / "report.html").is_file()
        ends.append(load_file(tmp_path / name / "checkpoint-4" / "model.safetensors"))
    assert not any(row["process"] == 1 for row in rows(tmp_path / "a"))
    assert any(not torch.equal(ends[0][name], ends[1][name]) for name in ends[0]), "verdicts change nothing"


def test_verdicts_that_cannot_be_read_are_counted(model: Path, tmp_path: Path) -> None:
    """Catches a reply without a verdict that ends a run, goes unnoticed, or is a reward of its own."""

    def mumbles(body: dict[str, Any], number: int) -> Response:
        kinds = (says("I cannot tell"), Response(b"<html>"), says(None), Response(b"", status=400))
        return kinds[body["seed"] // 2 % 4] if body["seed"] % 2 else opinion(body, number)

    with fake_judge(mumbles) as server:
        values = rl_values(model, tmp_path / "run", **judged(server, num_samples=2, max_failure_share=1.0))
        assert run(values) == 0
    found = rows(tmp_path / "run")
    assert sum(row["judge_failures"] for row in found) > sum(row["judge_unreadable"] for row in found) > 0
    assert all(row["judge_calls"] > row["judge_failures"] for row in found)
    assert all(0 < row["judge_fallbacks"] <= row["judge_chunks"] for row in found)
    assert sum("loss" in row for row in found) == 3


def test_a_judge_that_dies_costs_no_step(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches steps lost with the judge, a traceback, and a resume that asks other questions or trains twice."""
    is_down, out = True, tmp_path / "run"

    def dies(body: dict[str, Any], number: int) -> Response:
        is_second_step = (out / "metrics.jsonl").is_file() and len(rows(out)) >= 1
        return Response(b"", status=503) if is_down and is_second_step else opinion(body, number)

    with fake_judge(dies) as server:
        values = rl_values(model, out, **judged(server))
        assert run(values) == 1
        told = capsys.readouterr().err
        assert "Traceback" not in told
        assert "the judge fails too often" in told.splitlines()[-1]
        assert "HTTP 503" in told.splitlines()[-1]
        assert (out / "LATEST").read_text() == "checkpoint-1\n"
        assert len(rows(out)) == 1
        assert run(values, "--resume") == 1, "it is still down"
        assert sorted(p.name for p in out.glob("checkpoint-*")) == ["checkpoint-1"]
        is_down = False
        assert run(values, "--resume") == 0
        assert run(values | {"out": str(tmp_path / "straight")}) == 0
    assert rows(out) == rows(tmp_path / "straight")
    first, second = (load_file(p / "checkpoint-4" / "model.safetensors") for p in (out, tmp_path / "straight"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def told_to_run(world: World, values: dict[str, Any]) -> tuple[str, str]:
    """What a process of several ends with: the kind of its error, and its words."""
    try:
        rl.run(parse_config(RLConfig, values))
    except RunError as error:
        return "RunError", str(error)
    return "", ""


def test_a_judge_that_dies_under_two_processes(pair: Processes, model: Path, tmp_path: Path) -> None:
    """Catches a process that waits for one whose judge is gone, steps lost with it, answers judged by both or without
    their group, and counts of one process."""
    is_down, out = True, tmp_path / "two"

    def dies(body: dict[str, Any], number: int) -> Response:
        is_second_step = (out / "metrics.jsonl").is_file() and len(rows(out)) >= 1
        is_for_second = "q1" in str(body["messages"]) or "q4" in str(body["messages"])
        return Response(b"", status=401) if is_down and is_second_step and is_for_second else opinion(body, number)

    with fake_judge(dies) as server:
        precise = {"model": {"path": str(model), "dtype": "float64"}, "train": {"steps": 4, "max_positions": 100}}
        values = rl_values(model, out, **judged(server)) | precise
        ends = pair.run(told_to_run, values)
        assert [kind for kind, _ in ends] == ["RunError"] * 2
        assert all("HTTP 401; check base_url" in words for _, words in ends)
        done = len(rows(out))
        assert (out / "LATEST").read_text() == f"checkpoint-{done}\n"
        is_down = False
        assert pair.run(told_to_run, values | {"resume": True}) == [("", "")] * 2
        assert run(values | {"out": str(tmp_path / "one")}) == 0
    for a, b in zip(rows(tmp_path / "one"), rows(out), strict=True):
        assert a.pop("phase") == b.pop("phase")
        assert a.pop("padding") >= 0 <= b.pop("padding")
        counts = {"judge_calls", "judge_cached"}  # equal questions are asked once by each process
        assert sum(a.pop(name) for name in counts) == sum(b.pop(name) for name in counts)
        assert a == pytest.approx(b, rel=1e-6, abs=1e-9)
    first, second = (load_file(p / "checkpoint-4" / "model.safetensors") for p in (tmp_path / "one", out))
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=1e-6, atol=1e-9)


def test_a_judge_that_was_never_there(model: Path, tmp_path: Path) -> None:
    """Catches a checkpoint of nothing, because of which the recipe is refused when the judge is there."""
    with fake_judge(lambda body, number: Response(b"", status=401)) as server:
        values = rl_values(model, tmp_path / "run", **judged(server))
        assert run(values) == 1
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    with fake_judge(opinion) as server:
        assert run(values | judged(server)) == 0


def test_a_run_with_a_reward_model(model: Path, tmp_path: Path) -> None:
    """Catches scores that go to another answer, the task's verdict lost behind them, and a model that is not asked."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 262, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0, "eos_token_id": 2}
    judge = Qwen3ForSequenceClassification(Qwen3Config(**sizes, **heads, num_labels=1)).eval()
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.normal_(0.0, 0.3) if parameter.ndim > 1 else None
    judge.save_pretrained(tmp_path / "judge")
    tokenizer = tiny_tokenizer()
    save_tokenizer(tokenizer, tmp_path / "judge")
    section = {"path": str(tmp_path / "judge"), "weight": 2.0, "task_weight": 0.5}
    assert run(rl_values(model, tmp_path / "run", reward={"reward_model": section}, train={"steps": 2})) == 0
    names = {problem.id: problem.question for problem in Parity().problems("train")}
    for row in rows(tmp_path / "run"):
        scores, raw = [], []
        for trajectory in read_trajectories(tmp_path / "run" / "trajectories" / f"step-{row['step']}.parquet"):
            completion = read_completion(tokenizer, trajectory)
            text = f"<|user|>{names[trajectory.info['problem']]}<|im_end|><|assistant|>{completion.text}<|im_end|>"
            ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
            with torch.no_grad():
                raw.append(float(judge(input_ids=ids).logits[0, 0]))
            is_right = sum(map(ord, completion.text)) % 2 == 0
            scores.append(trajectory.info["score"])
            assert scores[-1] == pytest.approx(0.5 * is_right + 2.0 * raw[-1], abs=1e-4)
        assert len(set(scores)) == len(scores) == row["num_answers"]
        assert row["reward"] == pytest.approx(np.mean(scores))
        assert row["reward_model"] == pytest.approx(np.mean(raw), abs=1e-4)
        assert 0 < row["accuracy"] < 1
        assert row["reward_truncated"] == 0
        assert row["num_trained"] == row["num_answers"]
