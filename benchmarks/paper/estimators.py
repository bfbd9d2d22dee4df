"""Experiment (9): where the gradients of the objectives point, how much they vary, and what a step along them is worth.

At the start of a base, or at TraceRL's policy later on, independent steps of rollouts are drawn, and on the same
answers, with the same credit, the gradient of every objective of (2) is taken. Reported of each objective, beside noise
and signal as in (3):

cosine       of its mean gradient with that of TraceRL
step cosine  of the gradient of a single step with the mean gradient of TraceRL: noise and direction together
gain         what the accuracy rises by when the weights move along its mean gradient, all objectives equally far

Inner products of means are sums over pairs of different draws, so that noise adds nothing to them.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from benchmarks.paper.arms import POLICIES, RL_ARMS
from benchmarks.paper.gradients import MAX_POSITIONS, episodes_of, gradient, later_policy
from benchmarks.paper.place import Place
from benchmarks.paper.protocol import PRIMARY, REFERENCE_ARM, settings
from benchmarks.paper.statistics import gradient_noise, inner_of_means
from benchmarks.paper.training import task_of, tuned_start
from revelm.core.registry import build
from revelm.engine.engine import Engine
from revelm.eval.config import EvaluationSpec
from revelm.eval.run import evaluate, select_problems
from revelm.models.load import load_model, load_tokenizer
from revelm.objectives.packing import micro_batches

TRUE = "trace"
SLOTS = 128
METHODS = (TRUE, "coupled", REFERENCE_ARM)


class Gradients:
    """Gradients of several objectives on the same draws, added up: sums, squares, and products with TraceRL's."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.count = tuple(names), 0
        self.totals: dict[str, Tensor] = {}
        self.squares = dict.fromkeys(names, 0.0)
        self.products = dict.fromkeys(names, 0.0)

    def add(self, found: Mapping[str, Tensor]) -> None:
        """The gradients float64 [P] of one draw, of every objective."""
        self.count += 1
        for name in self.names:
            one = found[name]
            self.totals[name] = self.totals[name] + one if name in self.totals else one.clone()
            self.squares[name] += float(one @ one)
            self.products[name] += float(one @ found[TRUE])

    def result(self) -> dict[str, dict[str, float | None]]:
        """{objective: {"noise", "signal", "ratio", "cosine", "step_cosine"}}; None where a signal drowns."""
        if not self.count:
            return {name: gradient_noise(0.0, 0.0, 0) | {"cosine": None, "step_cosine": None} for name in self.names}
        found, true = {}, self.totals[TRUE]
        noises = {
            name: gradient_noise(self.squares[name], float(self.totals[name] @ self.totals[name]), self.count)
            for name in self.names
        }
        length = noises[TRUE]["signal"]
        for name, noise in noises.items():
            own, both = noise["signal"], None
            if self.count > 1:
                both = inner_of_means(float(self.totals[name] @ true), self.products[name], self.count)
            is_known = both is not None and length is not None and length > 0
            mean_square = self.squares[name] / self.count
            found[name] = noise | {
                "cosine": both / (own * length) ** 0.5 if is_known and own is not None and own > 0 else None,
                "step_cosine": both / (mean_square * length) ** 0.5 if is_known else None,
            }
        return found


def compared(arm: str, seed: int, place: Place) -> dict[str, Any]:
    """{"objectives": {name: what ``Gradients`` says, "positions" per step, "gains"}, "accuracy", "lengths"}."""
    base, is_later = POLICIES[arm]
    start = later_policy(base, seed, place) if is_later else tuned_start(base, seed, place)
    draws = place.scale.estimator_draws
    model = load_model(start)
    chosen = {name: RL_ARMS[f"{base}-{name}"].stages[0][1]["objective"] for name in METHODS}
    ways = {name: build("objectives", dict(one), field="objective") for name, one in chosen.items()}
    sums, positions = Gradients(METHODS), dict.fromkeys(METHODS, 0)
    for draw, episodes in enumerate(episodes_of(model, start, base=base, seed=seed, place=place, draws=draws)):
        credited = ways[TRUE].credit(episodes)
        if not credited:
            continue
        batches = {name: way.prepare(credited, model.family, draw) for name, way in ways.items()}
        for name, batch in batches.items():
            positions[name] += int(batch.lengths.sum())
        sums.add({
            name: gradient(model, micro_batches(batch, MAX_POSITIONS, packing="rows"), ways[name])
            for name, batch in batches.items()
        })  # fmt: skip
    found: dict[str, Any] = {"draws": sums.count, "lengths": list(place.scale.lengths), "objectives": sums.result()}
    found["accuracy"] = _accuracy(model, start, base, seed, place)
    for name in METHODS:
        found["objectives"][name]["positions"] = positions[name] / max(sums.count, 1)
        gains = _gains(model, start, sums.totals.get(name), base=base, seed=seed, place=place)
        found["objectives"][name]["gains"] = [one - found["accuracy"] for one in gains]
    return found


def _gains(model: Any, start: Any, direction: Tensor | None, *, base: str, seed: int, place: Place) -> list[float]:
    """Accuracies when the weights moved ``lengths`` far against ``direction`` [P]; the model comes back as it was."""
    if direction is None:
        return []
    before = [p.detach().clone() for p in model.parameters()]
    step, found = direction / direction.norm(), []
    for near, far in pairwise((0.0, *place.scale.lengths)):
        _move(model, step, near - far)
        found.append(_accuracy(model, start, base, seed, place))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), before, strict=True):
            parameter.copy_(value)
    return found


@torch.no_grad()
def _move(model: Any, step: Tensor, by: float) -> None:
    place = 0
    for parameter in model.parameters():
        size = parameter.numel()
        parameter.add_(by * step[place : place + size].view_as(parameter).to(parameter))
        place += size


def _accuracy(model: Any, start: Any, base: str, seed: int, place: Place) -> float:
    """Of the model as it stands, at temperature 1 with the dynamic rule."""
    scale, task = place.scale, build("tasks", task_of(base, seed), field="task")
    values = {"num_problems": scale.problems, "samples_per_problem": scale.gain_samples, "seed": seed,
              "settings": {PRIMARY: settings(base)[PRIMARY]}}  # fmt: skip
    spec = EvaluationSpec.model_validate(values)
    engine = Engine(model, load_tokenizer(start), num_slots=SLOTS)
    return float(evaluate(engine, task, select_problems(task, spec), spec)["settings"][PRIMARY]["accuracy"]["mean"])
