"""Bad data on its way through training: a clear error or a bounded fallback, and nothing that slips to a neighbour.

Beside this: rewards and judges in test_reward_sources.py and test_judge.py, task files in test_file_tasks.py, prompts
in test_early_errors.py, blocks of other sizes in test_replay_enlarged.py.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from revelm.cli.main import main
from revelm.core.config import parse_config
from revelm.core.types import Completion, Problem, Score
from revelm.decoding.dynamic import Dynamic
from revelm.engine.engine import Engine
from revelm.objectives.batch import Episode, Text
from revelm.objectives.block_sft import BlockSFT
from revelm.objectives.random_mask_sft import RandomMaskSFT
from revelm.objectives.returns import entry_rewards
from revelm.objectives.shaping import Shaping
from revelm.objectives.trace_rl import TraceRL
from revelm.parallel.world import World
from revelm.rollout.process_rewards import ProcessRewards
from revelm.rollout.reward_config import JudgeSpec
from revelm.rollout.reward_source import with_rewards
from revelm.trainers.config import RLConfig
from revelm.trainers.rollouts import Ask, Asker
from tests.fake_judge import Response, fake_judge, says
from tests.full_attention import full_model
from tests.models import mixed_requests, sharp_model
from tests.tiny_checkpoint import save_tiny, tiny_model, tiny_tokenizer
from tests.toy_tasks import Parity
from tests.unit.test_reward_sources import answer

MODELS = {"block": sharp_model, "full": full_model}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@lru_cache(maxsize=2)
def episodes(attention: str) -> tuple[Episode, ...]:
    """Answers in groups of four, each token worth another reward: groups that all score alike, others that do not."""
    prompts, settings = mixed_requests(Dynamic(0.2), (3, 4, 6))
    settings = [replace(s, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0) for s in settings]
    found = Engine(MODELS[attention](), num_slots=8).generate(prompts, settings)
    rng = np.random.default_rng(0)
    scores = [1.0 if i // 4 % 2 else float(i % 3) for i in range(len(found))]
    return tuple(
        Episode(t, score, i // 4, i, rewards=rng.normal(size=len(t.completion_ids)))
        for i, (t, score) in enumerate(zip(found, scores, strict=True))
    )


@pytest.mark.parametrize("attention", MODELS)
def test_dropping_samples_moves_nothing(attention: str) -> None:
    """Catches rewards, orders of reveals, ids or credits in lists of their own, which slip when samples are left out:
    truncated ones, groups without signal, groups out of range, and what is cut into shares and micro-batches."""
    before = {sample.key: sample for sample in episodes(attention)}
    plain = [replace(s, rewards=None) for s in before.values()]
    shaped = Shaping(overlong="mask").apply(plain)
    objective = TraceRL(group_range=(0.1, 1.2))
    kept = objective.credit(shaped)
    assert 0 < len(kept) < len(shaped) < len(before)
    assert {s.key for s in kept} != set(range(len(kept))), "nothing was dropped in front of what is kept"
    order = np.random.default_rng(1).permutation(len(kept))
    samples = [replace(kept[i], rewards=before[kept[i].key].rewards) for i in order]
    seen: set[tuple[int, int]] = set()
    for batch in objective.prepare(samples, MODELS[attention]().family, 7).split(90):
        columns = {name: column.numpy() for name, column in batch.columns.items()}
        rewards = entry_rewards(list(before.values()), columns)
        for i, (key, place) in enumerate(zip(columns["episode"], columns["place"], strict=True)):
            sample, where = before[int(key)], int(place)
            assert int(batch.targets[i]) == sample.trajectory.completion_ids[where]
            assert columns["behaviour"][i] == sample.trajectory.logprob[where]
            others = [s.score for s in shaped if s.group == sample.group]
            credit = (sample.score - np.mean(others)) / np.std(others)
            assert columns["credit"][i] == pytest.approx(credit)
            assert sample.rewards is not None
            assert rewards[i] == sample.rewards[where]
            seen.add((sample.key, where))
    assert len(seen) == sum(int((s.trajectory.step[: s.trajectory.stop_length] > 0).sum()) for s in kept)


def test_refilled_steps_keep_answers_and_samples_together() -> None:
    """Catches groups or keys that are counted anew in every draw, so that samples of two problems are one group."""
    rollout = {"problems_per_step": 3, "group_size": 2, "max_new_tokens": 6, "refills": True, "max_attempts": 9}
    fixed = {"model": {"path": "m"}, "train": {"steps": 1, "seed": 1}, "out": "o", "task": "t"}
    config = parse_config(RLConfig, fixed | {"rollout": rollout | {"stop_ids": [*range(3, 262, 9)]}})
    config = config.model_copy(update={"shaping": config.shaping.model_copy(update={"overlong": "zero"})})
    task = Parity()
    engine = Engine(tiny_model(spread=0.05), tiny_tokenizer(), num_slots=4)
    asker = Asker(Ask(task, task.problems("train")), TraceRL(), config, World())
    found = asker.draw(engine, step=0, drawn=0)
    assert found.problems_drawn * 2 == len(found.answers) > 6
    assert len({e.group for e in found.episodes}) == 3
    assert [e.key for e in found.episodes] == sorted({e.key for e in found.episodes})
    for episode in found.episodes:
        drawn = found.answers[episode.key]
        assert drawn.trajectory is episode.trajectory
        assert drawn.group == episode.group
        assert episode.score == (drawn.score.value if drawn.trajectory.finish_reason == "stop" else 0.0)
    for group in {e.group for e in found.episodes}:
        members = [e for e in found.episodes if e.group == group]
        assert len({found.answers[e.key].problem.id for e in members}) == 1
        assert sum(e.credit for e in members) == pytest.approx(0.0, abs=1e-9)
        assert len({e.score for e in members}) == 2


@pytest.mark.parametrize("attention", MODELS)
def test_an_answer_that_is_only_a_stop(attention: str) -> None:
    """Catches an empty answer that fails, has no signal, or moves those beside it."""
    family, first = MODELS[attention]().family, episodes(attention)[0]
    long = max(episodes(attention), key=lambda s: s.trajectory.stop_length)
    arrays = {name: vars(long.trajectory)[name].copy() for name in ("completion_ids", "step")}
    stop = replace(long.trajectory, **arrays, stop_length=1, finish_reason="stop", edits=())
    empty = Episode(stop, 1.0, first.group, 99, credit=-0.5)
    alone = TraceRL().prepare([replace(first, credit=1.0)], family, 0)
    both = TraceRL().prepare([empty, replace(first, credit=1.0)], family, 0)
    is_first = both.columns["episode"] == first.key
    assert both.targets[is_first].tolist() == alone.targets.tolist()
    assert both.columns["behaviour"][is_first].tolist() == alone.columns["behaviour"].tolist()
    assert both.columns["place"][~is_first].tolist() == [0.0]
    assert both.count == alone.count + 1
    nothing = replace(stop, finish_reason="cancelled", stop_length=0)
    with pytest.raises(ValueError, match="was cancelled before any token was decided; leave it out"):
        TraceRL().prepare([Episode(nothing, 1.0, 0, 1)], family, 0)


@pytest.mark.parametrize(("attention", "objective"), [("block", BlockSFT(low=1.0)), ("full", RandomMaskSFT(low=1.0))])
def test_a_text_without_an_answer(attention: str, objective: Any) -> None:
    """Catches an empty answer in a file of chats that is refused, learnt as a prompt, or moves those beside it."""
    family = MODELS[attention]().family
    texts = [Text(np.arange(3, 12), 4, 0), Text(np.arange(20, 25), 4, 1), Text(np.arange(5, 13), 4, 2)]
    found = objective.prepare(texts, family, 3)
    without = objective.prepare([texts[0], texts[2]], family, 3)
    targets = [t for t in found.targets.tolist() if t != family.pad_id]
    assert targets == [*range(7, 12), 24, *range(9, 13)]
    assert [t for t in without.targets.tolist() if t != family.pad_id] == [*range(7, 12), *range(9, 13)]


def test_a_judge_that_is_too_slow_for_good() -> None:
    """Catches patience without end, and answers whose verdicts came that lose them to those that did not."""
    is_over = Event()

    def slow(body: dict[str, Any], _: int) -> Response:
        if "SLOW" in str(body["messages"]):
            is_over.wait(600.0)
        return says("\\boxed{-1}")

    values = {"model": "j", "chunk_tokens": 4, "num_samples": 1, "retries": 0, "timeout": 3.0}
    answers = [answer("abc"), answer("SLOWxyz"), answer("def", correct=0.0), answer("ghi")]
    with fake_judge(slow) as server:
        spec = JudgeSpec(base_url=server.base_url, normalise="none", max_failure_share=0.5, **values)
        found, counts = with_rewards(answers, ProcessRewards(spec, seed=0))
        is_over.set()
    rewards = [one.step_rewards.tolist() for one in found if one.step_rewards is not None]
    # Both chunks of the second answer show its first four characters; its outcome, +1, stands in.
    assert rewards == [[0, 0, 0, -1], [0, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0, -1], [0, 0, 0, -1]]
    assert (counts["judge_failures"], counts["judge_fallbacks"], counts["judge_calls"]) == (2, 2, 5)


@dataclass(frozen=True)
class Flawed(Parity):
    """Gives no usable score for the answers to problem ``bad``: None, or that of another kind."""

    bad: str = "train:3"
    flaw: str = "none"

    def score(self, problem: Problem, completion: Completion) -> Score:
        """The verdict, except for one problem."""
        good = super().score(problem, completion)
        flawed: dict[str, Any] = {"none": None, "nan": Score(float("nan"), good.breakdown), "bare": Score(1.0, {})}
        return flawed[self.flaw] if problem.id == self.bad else good


@pytest.mark.parametrize(
    ("flaw", "words"),
    [("none", "gave None for an answer"), ("nan", "the score of an answer is nan"), ("bare", "whose breakdown has")],
)
def test_a_run_without_a_score_stops_with_what_it_learnt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flaw: str, words: str
) -> None:
    """Catches a score that is missing or NaN in the middle of a run and reaches the weights, is skipped without a word,
    or costs the steps before it."""
    model, out = save_tiny(tmp_path / "model", num_hidden_layers=1), tmp_path / "run"
    rollout = {"problems_per_step": 1, "group_size": 4, "max_new_tokens": 4, "save_every": 1}
    recipe = {"model": {"path": str(model)}, "rollout": rollout, "train": {"steps": 9}, "out": str(out)}
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(recipe | {"task": {"kind": f"{__name__}:Flawed", "flaw": flaw}}))
    assert main(["rl", str(file)]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert words in told.splitlines()[-1]
    assert "problem 'train:3'" in told.splitlines()[-1]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert 0 < len(rows) < 6, "every problem is asked within an epoch"
    assert (out / "LATEST").read_text() == f"checkpoint-{len(rows)}\n"
    assert None not in [value for row in rows for value in row.values()]
