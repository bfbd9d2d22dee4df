"""One step's learning: samples in; rows, numbers under the policies before the update, advantages; updates out.

All rows of a step and every number that belongs to them are made before its first update, so that each update's ratios
and advantages are against the same policy and the same critic.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from revelm.core.seeds import derive_seed
from revelm.objectives.batch import Batch, Episode
from revelm.objectives.importance import behaviour_columns
from revelm.objectives.loss_in_chunks import Scoring
from revelm.objectives.objective import Judge, RLObjective
from revelm.objectives.packing import micro_batches, padding_share
from revelm.objectives.score import score
from revelm.objectives.trace_rl import TraceRL
from revelm.objectives.value_loss import with_explained_variance
from revelm.trainers.batches import draw_batch
from revelm.trainers.config import RLConfig
from revelm.trainers.session import Session
from revelm.trainers.update import columns, update

Shares = list[list[Batch]]
# In a run's cursor: updates in which a head on the policy's features warmed up alone. The policy's schedule, its own
# warm-up above all, begins behind them, as it does where the critic has an optimiser of its own.
HEAD_UPDATES = "head_updates"


def learn(session: Session, objective: RLObjective, episodes: Sequence[Episode], config: RLConfig) -> dict[str, float]:
    """``updates_per_step`` updates, each on its share of the samples; metrics averaged over the updates.

    ``episodes``: of all processes, the same everywhere. While a critic warms up, only it is trained, and no policy is
    asked what it thinks.
    """
    session.model.train()
    shares = _shares(session, objective, episodes, config)
    is_value_alone = session.critic is not None and session.critic.is_warming_up(session.step)
    if not is_value_alone:
        shares = [_with_policies(session, objective, share) for share in shares]
    metrics = _sizes(session, shares)
    scoring: Scoring = partial(score, entropy_gradient="entropy" in objective.needs)
    judge: Judge = objective
    critic = session.critic
    if critic is not None:
        assert isinstance(objective, TraceRL), "checked with the recipe"
        shares, found = critic.assess(shares, episodes, objective=objective)
        judge, scoring = critic.joint(objective, step=session.step, scoring=scoring)
        metrics |= found
        if critic.optimizer is not None:
            metrics |= critic.update(shares)
            if is_value_alone:
                return metrics
    asked = {"scoring": scoring, "makes_logits": not is_value_alone}
    session.optimizer.schedule_from = 0 if is_value_alone else session.cursor.get(HEAD_UPDATES, 0)
    parts = [update(session.model, session.optimizer, judge, share, **asked) for share in shares]
    if is_value_alone:
        session.cursor[HEAD_UPDATES] = session.optimizer.updates
    means = {name: float(np.mean([part[name] for part in parts if name in part])) for part in parts for name in part}
    return metrics | with_explained_variance(means)


def _shares(session: Session, objective: RLObjective, episodes: Sequence[Episode], config: RLConfig) -> Shares:
    """Rows of every update, in micro-batches: those of this process."""
    seed = derive_seed(session.train.seed, "noise", session.step)
    order = np.random.default_rng(seed).permutation(len(episodes))
    found = []
    for part in np.array_split(order, config.updates_per_step):
        if not len(part):
            continue
        samples = [episodes[i] for i in part]
        batch = draw_batch(objective, samples, session.model.family, seed=seed, world=session.world)
        found.append(micro_batches(batch, session.train.max_positions, packing=session.train.packing) or [batch])
    return found


def _with_policies(session: Session, objective: RLObjective, share: list[Batch]) -> list[Batch]:
    """The rows with what the policy before the update, and the one the run began with, say about their tokens."""
    if "behaviour" in objective.needs:
        share = columns(session.model, share, behaviour_columns, placement=session.placement)
    if session.reference is not None:
        share = columns(session.reference, share, reference_columns)
    return share


def reference_columns(model: Any, batch: Batch) -> Mapping[str, Any]:
    """The column "reference" [N]: log-probabilities under ``model``."""
    return {"reference": score(model, batch).logprob}


def _sizes(session: Session, shares: Shares) -> dict[str, float]:
    """How much is forwarded and scored in a pass over the step's rows, of all processes; and how much is padding."""
    world, batches = session.world, [batch for share in shares for batch in share]
    return {
        "positions": world.sum(float(sum(int(batch.lengths.sum()) for batch in batches))),
        "num_scored": world.sum(float(sum(len(batch.scored) for batch in batches))),
        "padding": padding_share(batches),
    }
