"""The critic under two processes: whole or in shards, own or shared backbone, the numbers are those of one process."""

from typing import Any

import numpy as np
import pytest
import torch

from revelm.core.config import parse_config
from revelm.decoding.dynamic import Dynamic
from revelm.decoding.sampling import Sampling
from revelm.engine.reference import decode_naively
from revelm.models.load import new_model
from revelm.objectives.batch import Batch, Episode
from revelm.objectives.trace_rl import TraceRL
from revelm.parallel.placement import Strategy, place
from revelm.parallel.world import World
from revelm.trainers.config import OptimizerSpec
from revelm.trainers.critic import Critic, open_critic, open_value_model, place_value_model
from revelm.trainers.optimizer import Optimizer
from revelm.trainers.update import update
from revelm.trainers.value_spec import ValueSpec
from tests.models import prompt_of, sharpened, tiny_config
from tests.processes import Processes

OBJECTIVE = TraceRL()
SHARES = ((0, 1, 2), (3, 4))
OWNER = (0, 1, 1, 0, 0)  # of every answer among two processes: the second has none of the second share


def trained(world: World, backbone: str, strategy: Strategy) -> list[dict[str, float]]:
    """Metrics of three steps of two updates each."""
    policy = sharpened(new_model(tiny_config(), seed=0), 3.0).double()
    answers = [Sampling(temperature=1.0, rule=Dynamic(0.3), max_new_tokens=4 + i, seed=i) for i in range(5)]
    records = [decode_naively(policy, prompt_of(3, i), settings) for i, settings in enumerate(answers)]
    episodes = [Episode(t, float(i % 2), 0, i) for i, t in enumerate(records)]
    rate = {"learning_rate": 1e-2} if backbone == "own" else {"warmup_steps": 1}
    spec = parse_config(ValueSpec, {"backbone": backbone, "whiten": True, "gamma": 0.9, **rate})
    model = open_value_model(spec, policy)
    with torch.no_grad():
        model.value_head.weight.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(1))
    settings = OptimizerSpec(learning_rate=1e-2)
    if backbone == "own":
        placement = place_value_model(model, strategy=strategy, world=world)
    else:
        layers = policy.decoder.layers
        placement = place(model, layers, strategy=strategy, world=world, methods=("body",), root=policy)
    critic = open_critic(spec, model, optimizer=settings, total_updates=9, placement=placement)
    both = Optimizer(model, settings, total_updates=9, placement=placement) if backbone == "shared" else None
    own = [[episodes[i] for i in share if OWNER[i] % world.size == world.rank] for share in SHARES]
    shares = [OBJECTIVE.prepare(part, policy.family, 0).split(40) for part in own]
    return [_step(critic, both, (shares, episodes), step) for step in range(3)]


def _step(
    critic: Critic, optimizer: Optimizer | None, data: tuple[list[list[Batch]], list[Episode]], step: int
) -> dict[str, float]:
    shares, metrics = critic.assess(*data, objective=OBJECTIVE)
    if optimizer is None:
        return metrics | critic.update(shares)
    judge, scoring = critic.joint(OBJECTIVE, step=step)
    policy: Any = critic.model.backbone
    parts = [update(policy, optimizer, judge, share, scoring=scoring) for share in shares]
    return metrics | {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}


@pytest.mark.parametrize("backbone", ["own", "shared"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_are_one(pair: Processes, backbone: str, strategy: Strategy) -> None:
    """Catches a process without rows of an update that leaves the other waiting, advantages whitened apart, a head that
    each process trains on its own, and shards that are stale after an update."""
    alone = trained(World(), backbone, "ddp")
    assert len({metrics["value_loss"] for metrics in alone}) == 3
    for found in pair.run(trained, backbone, strategy):
        for metrics, expected in zip(found, alone, strict=True):
            assert metrics == pytest.approx(expected, rel=1e-8, abs=1e-10)
