"""The critic of a run: values before an update, advantages from them, and the value's own update.

Order within one step of training: ``assess`` puts the columns "value", "return" and "credit" on the rows of ALL updates
of the step, from the value model as it is; only then is anything trained. An own backbone learns in ``update``, a
shared one within the policy's updates, whose loss and scoring ``joint`` gives.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from revelm.core.types import Family
from revelm.models.language_model import LanguageModel
from revelm.models.load import read_family
from revelm.models.value import (
    ValueModel,
    copied_value_model,
    load_value_head,
    load_value_model,
    save_value_head,
    save_value_model,
)
from revelm.objectives.batch import Batch, Episode
from revelm.objectives.gae import advantages
from revelm.objectives.loss_in_chunks import Scoring
from revelm.objectives.objective import Judge
from revelm.objectives.returns import entry_rewards
from revelm.objectives.score import score
from revelm.objectives.trace_rl import TraceRL
from revelm.objectives.value_loss import (
    PolicyAndValue,
    ValueLoss,
    credit_moments,
    score_values,
    values,
    with_explained_variance,
    with_variance_reduction,
)
from revelm.parallel.placement import Placement, Strategy, place
from revelm.parallel.world import World
from revelm.trainers.checkpoint import restore_optimizer, save_trained, write_model
from revelm.trainers.config import OptimizerSpec
from revelm.trainers.optimizer import Optimizer
from revelm.trainers.update import columns, update
from revelm.trainers.value_spec import ValueSpec

FOLDER = "critic"
ENTRY_COLUMNS = ("episode", "place", "moment")
OWN_NAMES = ("grad_norm", "learning_rate", "skipped")
Shares = Sequence[Sequence[Batch]]


class Critic:
    """A value model in training. ``model`` is what an optimiser trains: with a shared backbone policy and head.

    ``optimizer``: of an own backbone; None for a shared one, which the policy's optimiser trains. ``placement``: of the
    model's weights.
    """

    def __init__(
        self, spec: ValueSpec, model: ValueModel, *, optimizer: Optimizer | None, placement: Placement
    ) -> None:
        self.spec, self.model, self.optimizer, self.placement = spec, model, optimizer, placement
        self.loss = ValueLoss(spec.clip)

    def is_warming_up(self, step: int) -> bool:
        """Whether only the value is trained in training step ``step``, from 0."""
        return step < self.spec.warmup_steps

    def assess(
        self, shares: Shares, episodes: Sequence[Episode], *, objective: TraceRL
    ) -> tuple[list[list[Batch]], dict[str, float]]:
        """The batches of all ``shares`` with columns "value", "return" and "credit" [N]; and metrics of the credit.

        ``shares``: this process's rows of every update of a training step, made by ``objective``: whole answers, whose
        rows may be in any batches. ``episodes``: at least theirs. Collective.
        """
        batches = [batch for share in shares for batch in share]
        valued = columns(self.model, batches, value_columns, placement=self.placement)
        entries = {name: _joined(valued, name) for name in (*ENTRY_COLUMNS, "value")}
        family = self.model.family
        size = family.block_size if family.attention == "block" else None
        reward = entry_rewards(episodes, entries, shrinkage=objective.shrinkage, block_size=size)
        credit, target = advantages(
            entries["episode"], entries["moment"], reward, entries["value"], gamma=self.spec.gamma, lam=self.spec.lam
        )
        means = self._means(credit_moments(torch.from_numpy(credit), torch.from_numpy(target)))
        if self.spec.whiten and means:
            deviation = max(means["advantage_square"] - means["advantage"] ** 2, 0.0) ** 0.5
            credit = (credit - means["advantage"]) / (deviation + 1e-8)
        ends = np.cumsum([len(batch.scored) for batch in valued], dtype=np.int64)[:-1]
        cut = zip(valued, np.split(credit, ends), np.split(target, ends), strict=False)
        found = iter([_with_credit(batch, *numbers) for batch, *numbers in cut])
        return [[next(found) for _ in share] for share in shares], with_variance_reduction(means)

    def _means(self, moments: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Means over all processes; nothing where there are no entries at all."""
        totals = self.placement.world.add(np.array(list(moments.values())))
        return {name: float(s / n) for name, (s, n) in zip(moments, totals, strict=True) if n}

    def update(self, shares: Shares) -> dict[str, float]:
        """Train an own backbone on assessed ``shares``, one update each, ``epochs`` times; means over the updates."""
        assert self.optimizer is not None, "a shared backbone is trained in the policy's updates (joint)"
        passes = [share for _ in range(self.spec.epochs) for share in shares]
        given = {"scoring": score_values, "makes_logits": False}
        parts = [update(self.model, self.optimizer, self.loss, share, **given) for share in passes]
        means = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
        found = with_explained_variance(means)
        return {f"value_{name}" if name in OWN_NAMES else name: mean for name, mean in found.items()}

    def joint(self, objective: Judge, *, step: int, scoring: Scoring = score) -> tuple[Judge, Scoring]:
        """Loss and scoring with which the policy's updates train a shared head too; what is given, for an own backbone.

        ``scoring``: how the policy is asked (``score``, with the options that the objective needs).
        While the value warms up the loss is the value's alone and reaches nothing but the head.
        """
        if self.optimizer is not None:
            return objective, scoring
        if self.is_warming_up(step):
            head = self.model
            return self.loss, lambda model, batch: score_values(head, batch, is_detached=True)
        judge = PolicyAndValue(objective, self.loss, self.spec.weight)
        return judge, partial(scoring, value_head=self.model.value_head)

    def save(self, folder: Path) -> None:
        """Write an own backbone and its optimiser's state below the checkpoint ``folder``. Collective.

        A shared one is written with the policy, by ``write_shared``.
        """
        if self.optimizer is not None:
            save_trained(self.model, folder / FOLDER, self.optimizer, write=save_value_model)


def value_columns(model: ValueModel, batch: Batch) -> dict[str, Tensor]:
    """The column "value" [N]: what ``model`` expects at the scored positions."""
    return {"value": values(model, batch)}


def write_shared(model: ValueModel, folder: Path) -> None:
    """Write a policy into ``folder`` and the head on its features below it: ``write`` of ``save_trained``."""
    write_model(model.backbone, folder)
    save_value_head(model, folder / FOLDER)


def open_value_model(spec: ValueSpec, policy: LanguageModel, *, latest: Path | None = None) -> ValueModel:
    """The value model of ``policy`` as the run begins, or as saved below the checkpoint ``latest``.

    Call it before any weights are trained or sharded. ValueError for a backbone that does not fit.
    """
    folder = None if latest is None else latest / FOLDER
    if spec.backbone == "shared":
        shared = ValueModel(policy)
        if folder is not None:
            load_value_head(shared.value_head, folder)
        return shared
    source = spec.path if folder is None else folder
    if source is None:
        return copied_value_model(policy).train()
    model = load_value_model(source, dtype=policy.dtype, device=policy.device)
    _check_fits(model.family, policy.family, source)
    model.backbone.decoder.recomputes_layers = policy.decoder.recomputes_layers
    return model.train()


def place_value_model(model: ValueModel, *, strategy: Strategy, world: World) -> Placement:
    """Distribute a value model with a backbone of its own; the head stays whole."""
    root = model.backbone
    return place(model, root.decoder.layers, strategy=strategy, world=world, methods=("body",), root=root)


def open_critic(
    spec: ValueSpec,
    model: ValueModel,
    *,
    optimizer: OptimizerSpec,
    total_updates: int,
    placement: Placement | None = None,
    latest: Path | None = None,
) -> Critic:
    """The critic with ``model``, and for an own backbone its optimiser as it begins, or as saved below ``latest``.

    ``optimizer``: the policy's settings. ``total_updates``: of an own backbone's schedule. ``placement``: that of
    ``model``'s weights; with a shared backbone the policy's. ValueError for a checkpoint that is damaged. Collective.
    """
    where = placement or Placement()
    if spec.backbone == "shared":
        return Critic(spec, model, optimizer=None, placement=where)
    settings = optimizer.model_copy(update={"learning_rate": spec.learning_rate, "ema_decay": 0.0})
    own = Optimizer(model, settings, total_updates=total_updates, placement=where, own_rates=spec.own_rates)
    if latest is not None:
        restore_optimizer(latest / FOLDER, own)
    return Critic(spec, model, optimizer=own, placement=where)


def check_critic(objective: Any) -> None:
    """ValueError for an objective whose rows are not the steps of decoding, as time has no meaning in them, and for one
    with an estimator of group-relative credit, which the critic takes the place of."""
    if not isinstance(objective, TraceRL):
        name = type(objective).__name__
        raise ValueError(f"value: {name} does not follow the steps of decoding; use objective.kind=trace_rl")
    if objective.advantage != TraceRL.advantage:
        raise ValueError(
            f"value: a critic takes the place of objective.advantage, which is {objective.advantage!r}; leave one of "
            "the two out"
        )


def check_value_path(spec: ValueSpec, family: Family) -> None:
    """ValueError for a ``path`` without a checkpoint that fits a policy of ``family``. Needs no weights."""
    if spec.path is None:
        return
    try:
        own = read_family(spec.path)
    except ValueError as error:
        raise ValueError(f"value.path: {error}") from error
    _check_fits(own, family, spec.path)


def _check_fits(own: Family, its: Family, source: str | Path) -> None:
    for name in ("attention", "is_shifted", "block_size", "mask_id", "vocab_size"):
        found, wanted = vars(own)[name], vars(its)[name]
        if found != wanted:
            raise ValueError(f"value.path: {source} has {name} {found}, the policy has {wanted}; give one that agrees")


def _joined(batches: Sequence[Batch], name: str) -> np.ndarray:
    """A column of all batches one after another, float64 [n]."""
    filled = [batch for batch in batches if len(batch.scored)]
    return np.concatenate([np.zeros(0), *(batch.columns[name].double().numpy() for batch in filled)])


def _with_credit(batch: Batch, credit: np.ndarray, target: np.ndarray) -> Batch:
    return batch.with_columns(**{"credit": torch.from_numpy(credit), "return": torch.from_numpy(target)})
