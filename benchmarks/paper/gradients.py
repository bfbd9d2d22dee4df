"""Experiment (3): how much the policy gradient of one step varies, under several ways to give credit.

At a policy that stands still, ``draws`` independent steps of rollouts are drawn (problems and answers anew), and the
gradient of each is taken once per credit, on the same answers:

zscore      score minus the group's mean, divided by its deviation
mean        score minus the group's mean
value       advantages from a trained critic, whitened, as in the RL arms with a value
none        the score itself: what a baseline is to improve on

Reported: trace of the covariance over draws, squared norm of the mean gradient (freed of what noise adds to it), and
their ratio, which does not depend on the scale of credit. It is the number of steps to average until noise is as large
as the signal.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.paper.arms import TRACE
from benchmarks.paper.place import Place, locked
from benchmarks.paper.protocol import CRITIC, SHARED_VALUE
from benchmarks.paper.statistics import gradient_noise
from benchmarks.paper.training import is_finished, recipe, trained, tuned_start
from revelm.core.config import merge, parse_config
from revelm.core.registry import build
from revelm.core.seeds import derive_seed
from revelm.core.types import Problem
from revelm.data.stream import stream
from revelm.engine.engine import Engine
from revelm.models.load import load_model, load_tokenizer
from revelm.models.value import load_value_model
from revelm.objectives.batch import Batch, Episode
from revelm.objectives.packing import micro_batches
from revelm.objectives.score import score
from revelm.objectives.trace_rl import TraceRL
from revelm.parallel.placement import Placement
from revelm.rollout.collect import collect
from revelm.trainers import rl
from revelm.trainers.config import RLConfig
from revelm.trainers.critic import FOLDER, Critic
from revelm.trainers.rollouts import to_episodes
from revelm.trainers.value_spec import ValueSpec

BASE = "b4"
MAX_POSITIONS = 8192
Batches = Callable[[Sequence[Episode]], list[Batch]]


def policy_at(arm: str, seed: int, place: Place) -> Path:
    """The checkpoint at which gradients are taken: the start, or TraceRL's after ``value_after`` steps."""
    return tuned_start(BASE, seed, place) if arm == "at-start" else later_policy(BASE, seed, place)


def later_policy(base: str, seed: int, place: Place) -> Path:
    """TraceRL's checkpoint after ``value_after`` steps."""
    return trained(f"{base}-trace", seed, place)[0] / f"checkpoint-{place.scale.value_after}"


def critic_config(arm: str, seed: int, place: Place, policy: Path) -> RLConfig:
    """A run in which only the critic learns, but for its last update, after which no answer is drawn any more."""
    scale = place.scale
    config = recipe(BASE, seed, scale)
    values = {
        "model": {"path": str(policy)},
        "task": config.task,
        "out": str(place.run(f"critic-{arm}", seed)),
        "resume": True,
        "objective": TRACE,
        "value": {**CRITIC, "warmup_steps": scale.critic_steps - 1},
        "train": {"steps": scale.critic_steps, "seed": derive_seed(seed, "critic") % 2**31},
    }
    return parse_config(RLConfig, merge(config.rl, values))


def critic_of(arm: str, seed: int, place: Place, policy: Path) -> Critic:
    """A critic that was trained on answers of ``policy``."""
    config = critic_config(arm, seed, place, policy)
    with locked(Path(config.out)):
        if not is_finished(config):
            rl.run(config)
    folder = Path(config.out) / f"checkpoint-{config.train.steps}" / FOLDER
    spec = ValueSpec.model_validate({**CRITIC, "whiten": SHARED_VALUE["whiten"]})
    value = load_value_model(folder, dtype=torch.float32, device="cpu")
    return Critic(spec, value, optimizer=None, placement=Placement())


def measured(arm: str, seed: int, place: Place) -> dict[str, Any]:
    """{credit: {"noise", "signal", "ratio"}} and the mean score of the answers."""
    policy = policy_at(arm, seed, place)
    critic = critic_of(arm, seed, place, policy)
    model = load_model(policy)
    ways = _credits(model, critic)
    sums = {name: _Sum() for name in ways}
    scores = []
    for episodes in episodes_of(model, policy, base=BASE, seed=seed, place=place, draws=place.scale.draws):
        scores += [float(e.trajectory.info["score"]) for e in episodes]
        for name, batches_of in ways.items():
            if batches := batches_of(episodes):
                sums[name].add(gradient(model, batches, TraceRL()))
    found = {name: one.result() for name, one in sums.items()}
    return {"credits": found, "accuracy": sum(scores) / len(scores), "draws": place.scale.draws}


class _Sum:
    """Gradients of several draws, added up."""

    def __init__(self) -> None:
        self.count, self.squares = 0, 0.0
        self.total: Tensor | None = None

    def add(self, gradient: Tensor) -> None:
        self.count += 1
        self.squares += float(gradient.square().sum())
        self.total = gradient if self.total is None else self.total + gradient

    def result(self) -> dict[str, float | None]:
        length = 0.0 if self.total is None else float(self.total.square().sum())
        return gradient_noise(self.squares, length, self.count)


def _credits(model: Any, critic: Critic) -> Mapping[str, Batches]:
    """How each credit makes batches of a step's answers; none where nothing carries a signal."""

    def grouped(estimator: Any) -> Batches:
        objective = TraceRL(advantage=estimator)
        return lambda episodes: _batches(objective, objective.credit(episodes), model)

    def valued(episodes: Sequence[Episode]) -> list[Batch]:
        objective = TraceRL()
        shares, _ = critic.assess([_batches(objective, episodes, model)], episodes, objective=objective)
        return shares[0]

    def plain(episodes: Sequence[Episode]) -> list[Batch]:
        return _batches(TraceRL(), [replace(e, credit=e.score) for e in episodes], model)

    return {"zscore": grouped("zscore"), "mean": grouped("mean"), "value": valued, "none": plain}


def _batches(objective: TraceRL, episodes: Sequence[Episode], model: Any) -> list[Batch]:
    if not episodes:
        return []
    return micro_batches(objective.prepare(episodes, model.family, 0), MAX_POSITIONS, packing="rows")


def gradient(model: Any, batches: Sequence[Batch], objective: Any) -> Tensor:
    """The gradient of the loss of ``objective`` over ``batches`` at the policy that answered, all parameters one after
    another, float64 [P]."""
    count = sum(batch.count for batch in batches)
    model.zero_grad(set_to_none=True)
    for batch in batches:
        scored = score(model, batch)
        scored = replace(scored, behaviour=scored.logprob.detach())
        (objective.judge(scored, batch).sum / count).backward()
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([part.flatten() for part in parts]).double()


def episodes_of(model: Any, policy: Path, *, base: str, seed: int, place: Place, draws: int) -> Iterator[list[Episode]]:
    """Answers of ``draws`` independent training steps; ``policy``: where the tokenizer of ``model`` is."""
    shared = recipe(base, seed, place.scale)
    values = {"model": {"path": str(policy)}, "task": shared.task, "out": "unused"}
    config = parse_config(RLConfig, merge(shared.rl, values))
    spec, task = config.rollout, build("tasks", config.task, field="task")
    problems: Sequence[Problem] = task.problems("train")
    engine = Engine(model, load_tokenizer(policy), num_slots=spec.num_slots)
    root = derive_seed(seed, "gradients") % 2**31
    for draw in range(draws):
        first = draw * spec.problems_per_step
        chosen = [problems[i] for i in stream(root, range(first, first + spec.problems_per_step), len(problems))]
        sampling, number = spec.sampling(), derive_seed(root, "draw", draw)
        answers = collect(engine, task, chosen, sampling=sampling, group_size=spec.group_size, seed=number)
        yield config.shaping.shaping().apply(to_episodes(answers, config, (draw, 0)))
