"""What a whole run keeps from step to step, and what it draws anew: noise, moments, schedule, order, evaluations."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from revelm.core.config import parse_config
from revelm.core.types import Completion, Problem, Score
from revelm.decoding.sampling import Sampling
from revelm.engine.engine import Engine
from revelm.eval.config import EvaluationSpec
from revelm.eval.run import evaluate, select_problems
from revelm.models.load import load_model, load_tokenizer
from revelm.objectives.batch import Batch, Episode
from revelm.objectives.random_mask_rl import RandomMaskRL
from revelm.objectives.shaping import Shaping
from revelm.objectives.trace_rl import TraceRL
from revelm.parallel.world import World
from revelm.rollout.collect import collect
from revelm.trainers import rl, sft
from revelm.trainers.batches import draw_batch
from revelm.trainers.config import RLConfig, SFTConfig
from revelm.trainers.learning import learn
from revelm.trainers.rollouts import Ask, Asker
from revelm.trainers.saved_state import read_state
from revelm.trainers.session import Session, find_start, open_session
from tests.tiny_checkpoint import save_tiny
from tests.toy_tasks import Parity
from tests.unit.test_bad_data import episodes as graded
from tests.unit.test_critic import block_episodes
from tests.unit.test_critic import opened as critic_of
from tests.unit.test_critic import rows as row_batches

STILL = {"learning_rate": 1e-30}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny", num_hidden_layers=1)


def common(source: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """What recipes of both loops share."""
    return {"model": {"path": str(source)}, "train": {"steps": 4, "max_positions": 200}, "out": str(out)} | changes


def sft_config(source: Path, out: Path, **changes: Any) -> SFTConfig:
    """The same text in every step."""
    data = out.parent / "chats.jsonl"
    data.write_text(json.dumps({"prompt": "ab", "completion": "cdefghijklmnop"}) + "\n")
    return parse_config(SFTConfig, common(source, out, data={"path": str(data)}, batch_size=1) | changes)


def rl_config(source: Path, out: Path, **changes: Any) -> RLConfig:
    """Half of all answers are right."""
    rollout = {"problems_per_step": 2, "group_size": 4, "max_new_tokens": 8, "stop_ids": [*range(3, 262, 9)]}
    return parse_config(RLConfig, common(source, out, task="tests.toy_tasks:Parity", rollout=rollout) | changes)


def rows(run: Path, phase: str) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl of one phase."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["phase"] == phase]


def opened(config: RLConfig) -> Session:
    """The session of a run of one process."""
    return open_session(find_start(config), updates_per_step=config.updates_per_step, world=World())


def answers(session: Session, problems: int, group_size: int) -> list[Episode]:
    """Answers in groups, neighbours of one problem, with credits of both signs."""
    session.model.eval()
    engine, task = Engine(session.model, session.tokenizer, num_slots=8), Parity(num_train=problems)
    sampling = Sampling(temperature=1.0, max_new_tokens=8)
    asked = list(task.problems("train"))
    found = collect(engine, task, asked, sampling=sampling, group_size=group_size, seed=list(range(problems)))
    return [Episode(a.trajectory, 0.0, a.group, i, credit=(-1.0) ** i) for i, a in enumerate(found)]


def test_a_text_is_hidden_otherwise_in_every_step(model: Path, tmp_path: Path) -> None:
    """Catches noise that is drawn once for a run, or once for an epoch: the weights and the text stay the same here."""
    config = sft_config(model, tmp_path / "run", optimizer=STILL)
    losses = [row["nll"] for row in rows(sft.run(config), "sft")]
    assert len(losses) == len({round(loss, 6) for loss in losses}) == 4


def test_answers_are_hidden_otherwise_in_every_step(model: Path, tmp_path: Path) -> None:
    """Catches one pattern of noise for all steps of a run: the weights and the answers stay the same here."""
    config = rl_config(model, tmp_path / "run", optimizer=STILL)
    session, found = opened(config), []
    samples = answers(session, 2, 2)
    for session.step in (0, 1, 2, 1):
        found.append(learn(session, RandomMaskRL(behaviour="recomputed"), samples, config)["entropy"])
    assert len({round(entropy, 6) for entropy in found[:3]}) == 3
    assert found[3] == pytest.approx(found[1], rel=1e-6), "a step's noise is its own, whenever it is run"


def test_a_problem_is_answered_otherwise_in_every_step(model: Path, tmp_path: Path) -> None:
    """Catches answers that are drawn from the same noise whenever a problem is asked again, and unseeded ones."""
    told, task = rl_config(model, tmp_path / "run", value={"backbone": "shared"}), Parity(num_train=2)
    engine = Engine(load_model(model).eval(), load_tokenizer(model), num_slots=8)
    asker, found = Asker(Ask(task, task.problems("train")), TraceRL(), told, World()), []
    for drawn in (0, 2, 4, 0):
        answered = asker.draw(engine, step=0, drawn=drawn).answers
        found.append({(a.problem.id, tuple(a.trajectory.completion_ids.tolist())) for a in answered})
    assert found[0] == found[3]
    assert not found[0] & found[1] | found[1] & found[2] | found[0] & found[2]


@dataclass(frozen=True)
class Watched(TraceRL):
    """TraceRL that remembers of which answers the batches were made."""

    made: list[list[int]] = field(default_factory=list)

    def prepare(self, samples: Sequence[Episode], family: Any, seed: int) -> Batch:
        """The same rows."""
        self.made.append([sample.key for sample in samples])
        return super().prepare(samples, family, seed)


def test_updates_mix_the_problems_of_a_step(model: Path, tmp_path: Path) -> None:
    """Catches updates on neighbours, each on the answers to one problem, and one order for all steps."""
    config = rl_config(model, tmp_path / "run", updates_per_step=4, optimizer=STILL)
    session, objective = opened(config), Watched()
    samples = answers(session, 4, 4)
    for session.step in range(3):
        learn(session, objective, samples, config)
    groups = [{samples[key].group for key in keys} for keys in objective.made]
    assert [len(keys) for keys in objective.made] == [4] * 12
    assert np.mean([len(found) for found in groups]) > 2
    steps = [tuple(map(tuple, objective.made[i : i + 4])) for i in (0, 4, 8)]
    assert len(set(steps)) == 3
    assert all(sorted(key for keys in step for key in keys) == list(range(16)) for step in steps)


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_schedule_and_moments_span_the_run(model: Path, tmp_path: Path, verb: str) -> None:
    """Catches moments, masters or a schedule that begin anew in every step, and one that is as long as the steps of a
    run and not as its updates."""
    optimizer = {"learning_rate": 0.01, "schedule": "linear", "floor": 0.2, "warmup_steps": 2}
    train = {"steps": 5, "save_every": 5, "max_positions": 200}
    if verb == "sft":
        run, per_step = sft.run(sft_config(model, tmp_path / "run", optimizer=optimizer, train=train)), 1
    else:
        told = rl_config(model, tmp_path / "run", optimizer=optimizer, train=train, updates_per_step=2)
        run, per_step = rl.run(told), 2
    found = rows(run, verb)
    assert all("loss" in row for row in found), "a step without a signal has no update"
    total = 5 * per_step
    ways = [min(1.0, (i + 1) / 2) if i < 2 else 1.0 - 0.8 * (i - 2) / (total - 3) for i in range(total)]
    means = [0.01 * np.mean(ways[i : i + per_step]) for i in range(0, total, per_step)]
    assert [row["learning_rate"] for row in found] == pytest.approx(means)
    state = read_state(run / "checkpoint-5" / "trainer" / "optimizer")
    steps = {float(tensor) for name, tensor in state.items() if name.startswith("step.")}
    assert steps == {float(total)}


def test_small_steps_of_a_narrow_model_add_up_over_a_run(model: Path, tmp_path: Path) -> None:
    """Catches masters that are rounded to the model's dtype between the steps of a run: updates of 1e-5 of weights
    about 0.05 are lost in bfloat16, each of them, but not all of them together."""
    optimizer = {"learning_rate": 1e-5, "betas": [0.0, 0.999]}
    told = {"model": {"path": str(model), "dtype": "bfloat16"}, "optimizer": optimizer}
    run = sft.run(sft_config(model, tmp_path / "run", train={"steps": 8, "save_every": 8}, **told))
    state = read_state(run / "checkpoint-8" / "trainer" / "optimizer")
    start = load_file(model / "model.safetensors")
    masters = {name.removeprefix("master."): tensor for name, tensor in state.items() if name.startswith("master.")}
    assert len(masters) > 1
    assert all(tensor.dtype == torch.float32 for tensor in masters.values())
    moved = []
    for name in masters.keys() & start.keys():
        was = start[name].bfloat16().float()
        moved.append(float(((masters[name] - was).abs() * (was.abs() > 0.04)).max()))
    assert max(moved) > 3e-5


def test_an_evaluation_is_of_the_weights_of_its_step(model: Path, tmp_path: Path) -> None:
    """Catches evaluations of the weights before the first update, or of a copy that is never brought up to date; and
    problems of the training split."""
    spec = {"settings": {"plain": {"max_new_tokens": 8, "temperature": 1.0}}, "num_problems": 3}
    told = {"task": "tests.toy_tasks:Parity", "eval": spec, "eval_every": 1, "optimizer": {"learning_rate": 0.05}}
    train = {"steps": 2, "save_every": 1, "max_positions": 200}
    run = sft.run(sft_config(model, tmp_path / "run", train=train, **told))
    task, asked = Parity(), parse_config(EvaluationSpec, spec)
    shown = []
    for source, step in ((run / "checkpoint-1", 1), (run / "checkpoint-2", 2)):
        engine = Engine(load_model(source).eval(), load_tokenizer(source), num_slots=asked.num_slots)
        expected = evaluate(engine, task, select_problems(task, asked), asked)["answers"]["plain"]
        table = [json.loads(line) for line in (run / "samples" / f"step-{step}.jsonl").read_text().splitlines()]
        assert [row["answer"] for row in table] == [answer.completion.text for answer in expected]
        assert {row["problem"] for row in table} <= {problem.id for problem in task.problems("test")}
        shown.append([row["answer"] for row in table])
    assert shown[0] != shown[1]


def test_a_run_tells_how_it_learns_in_every_step(model: Path, tmp_path: Path) -> None:
    """Catches numbers that are written for the first steps only, or never: without them nobody sees a run fail."""
    config = rl_config(model, tmp_path / "run", train={"steps": 6, "max_positions": 200}, value={"clip": 0.3})
    needed = {"loss", "policy_loss", "kl", "ratio", "clip_fraction", "entropy", "grad_norm", "learning_rate", "skipped"}
    needed |= {"value_loss", "value_error", "value_clip_fraction", "value_grad_norm", "value_learning_rate"}
    needed |= {"reward", "accuracy", "length", "tokens_per_forward", "truncated", "advantage_variance"}
    found = rows(rl.run(config), "rl")
    assert [row["step"] for row in found] == list(range(1, 7))
    assert [needed - row.keys() for row in found] == [set()] * 6
    assert Counter("explained_variance" in row for row in found)[True] >= 5


def test_values_are_clipped_at_their_own_radius() -> None:
    """Catches a critic whose radius is the policy's, or always the same, whatever the recipe says."""
    found = []
    for clip in (1e-6, 0.05, 100.0, None):
        critic = critic_of({"learning_rate": 1e-2, "clip": clip, "epochs": 4})
        shares, _ = critic.assess([row_batches(block_episodes(), critic.model)], block_episodes(), objective=TraceRL())
        found.append(critic.update(shares)["value_clip_fraction"])
    assert found[0] > found[1] > found[2] == found[3] == 0.0


@dataclass(frozen=True)
class Second(World):
    """The second of two processes; nobody else has rows."""

    rank: int = 1
    size: int = 2

    def sum(self, value: float) -> float:
        """What it says itself."""
        return value


def test_a_process_makes_its_own_rows_alone(model: Path, tmp_path: Path) -> None:
    """Catches processes that each make the rows of all samples, to throw away most of them."""
    session, objective = opened(rl_config(model, tmp_path / "run")), Watched()
    samples = answers(session, 2, 4)
    batch = draw_batch(objective, samples, session.model.family, seed=0, world=Second())
    assert [len(keys) for keys in objective.made] == [4]
    assert {int(key) for key in batch.columns["episode"]} <= set(objective.made[0])


@dataclass(frozen=True)
class Vanishing(Parity):
    """A task that takes the model's file away when it scores the first answer."""

    file: str = ""

    def score(self, problem: Problem, completion: Completion) -> Score:
        """As ever."""
        Path(self.file).unlink(missing_ok=True)
        return super().score(problem, completion)


def test_weights_are_read_once(model: Path, tmp_path: Path) -> None:
    """Catches a run that loads its model again in a later step, for its answers, its updates or its evaluations."""
    source = tmp_path / "model"
    shutil.copytree(model, source)
    task = {"kind": f"{__name__}:Vanishing", "file": str(source / "model.safetensors")}
    evaluations = {"eval": {"num_problems": 1, "max_new_tokens": 4}, "eval_every": 1}
    train = {"steps": 2, "max_positions": 200}
    found = rows(rl.run(rl_config(source, tmp_path / "run", task=task, train=train, **evaluations)), "rl")
    assert not (source / "model.safetensors").exists()
    assert [row["step"] for row in found] == [1, 2]


@pytest.mark.parametrize("attention", ["block", "full"])
def test_what_is_left_out_takes_all_of_itself_along(attention: str) -> None:
    """Catches rewards, records or groups that go to another sample, where truncated ones and groups are left out."""
    samples = [replace(sample, score=1 - 0.01 * sample.key) for sample in graded(attention)]
    before = {sample.key: sample for sample in samples}
    shaped = Shaping(overlong="mask").apply(samples)
    groups = {sample.group for sample in shaped}
    means = [np.mean([sample.score for sample in shaped if sample.group == group]) for group in groups]
    kept = TraceRL(group_range=(-1.0, float(max(means)) - 0.01)).credit(shaped)
    assert 0 < len(kept) < len(shaped) < len(before)
    for sample in kept:
        its = vars(before[sample.key])
        assert [name for name, value in vars(sample).items() if value is not its[name] and name != "credit"] == []
