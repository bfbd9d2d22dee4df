"""The clipped loss of the value model, and what its numbers are worth as a baseline.

Per entry, with return R, old value V_old (before any update of this step) and a radius of its own (TraceRL, arXiv
2509.06949, eq. 7; PPO, arXiv 1707.06347):

    loss = 1/2 max( (V - R)^2, (V_clip - R)^2 ),   V_clip = V_old + clip(V - V_old, -clip, clip)

weighted and divided as the policy's loss is. An update that would carry V further than ``clip`` from V_old has no
gradient, unless it is away from R. Everything here adds up over micro-batches and processes: ratios of sums, such as
the explained variance, are taken after adding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from revelm.objectives.batch import Batch, Loss, Scored
from revelm.objectives.objective import Judge


def values(model: Any, batch: Batch, *, is_detached: bool = False) -> Tensor:
    """Values [N], in max(fp32, dtype), at the scored positions of ``batch`` and nowhere else; differentiable.

    ``model`` has ``body`` and ``value_head`` (``revelm.models.value.ValueModel``). ``is_detached``: in the head alone.
    """
    features = model.body(batch.tokens, batch.positions, batch.pattern, rows=batch.scored)
    found: Tensor = model.value_head(features.detach() if is_detached else features)
    return found


def score_values(model: Any, batch: Batch, *, is_detached: bool = False) -> Scored:
    """``values`` as a ``Scored`` in which no token was asked for: its log-probabilities are empty."""
    nothing = torch.zeros(0, device=batch.tokens.device)
    return Scored(logprob=nothing, entropy=nothing, value=values(model, batch, is_detached=is_detached))


@dataclass(frozen=True)
class ValueLoss:
    """The loss above on the columns "weight", "value" (old) and "return". ``clip``: the radius; None: no clipping."""

    clip: float | None = 0.2

    def __post_init__(self) -> None:
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"value.clip is {self.clip}, must be above 0, or null for no clipping")

    def judge(self, scored: Scored, batch: Batch) -> Loss:
        """Metrics: value_loss, value_clip_fraction, value_error (mean square), and the moments of the returns that
        ``with_explained_variance`` needs."""
        assert scored.value is not None, "the value head was not asked"
        value = scored.value
        old, target, weight = (batch.columns[name].to(value.dtype) for name in ("value", "return", "weight"))
        error = (value - target).square()
        limit = torch.inf if self.clip is None else self.clip
        clipped = (old + (value - old).clamp(-limit, limit) - target).square()
        total = (0.5 * torch.maximum(error, clipped) * weight).sum()
        with torch.no_grad():
            size = float(len(value))
            metrics = {
                "value_loss": (float(total), batch.count),
                "value_clip_fraction": (float((clipped > error).sum()), size),
                "value_error": (float(error.double().sum()), size),
                "return": (float(target.double().sum()), size),
                "return_square": (float(target.double().square().sum()), size),
            }
        return Loss(total, batch.count, metrics)


@dataclass(frozen=True)
class PolicyAndValue:
    """One loss for a policy and a value head on its features: policy loss + ``weight`` x value loss."""

    policy: Judge
    value: ValueLoss
    weight: float

    def judge(self, scored: Scored, batch: Batch) -> Loss:
        """Metrics of both."""
        policy, value = self.policy.judge(scored, batch), self.value.judge(scored, batch)
        return Loss(policy.sum + self.weight * value.sum, policy.count, {**policy.metrics, **value.metrics})


def with_explained_variance(means: Mapping[str, float]) -> dict[str, float]:
    """``means`` of added value metrics with "explained_variance" = 1 - mean (R - V)^2 / Var(R) for "return_square".

    1: every return is foreseen; 0: no better than their mean; below: worse. Left out where all returns are equal, and
    where there are none.
    """
    found = {name: mean for name, mean in means.items() if name != "return_square"}
    spread = _variance(means, "return")
    return found | {"explained_variance": 1.0 - means["value_error"] / spread} if spread else found


def credit_moments(advantage: Tensor, target: Tensor) -> dict[str, tuple[float, float]]:
    """Additive moments of advantages [n] and returns [n] of one process."""
    size = float(len(advantage))
    pairs = {"advantage": advantage.double(), "return": target.double()}
    first = {name: (float(x.sum()), size) for name, x in pairs.items()}
    return first | {f"{name}_square": (float(x.square().sum()), size) for name, x in pairs.items()}


def with_variance_reduction(means: Mapping[str, float]) -> dict[str, float]:
    """From means of ``credit_moments``: the variance of the credit with the baseline ("advantage_variance") and without
    it ("return_variance"), and the share of the latter that the baseline took away ("variance_reduction")."""
    if not means:
        return {}
    with_it, without = _variance(means, "advantage"), _variance(means, "return")
    found = {"advantage": means["advantage"], "advantage_variance": with_it, "return_variance": without}
    return found | {"variance_reduction": 1.0 - with_it / without} if without else found


def _variance(means: Mapping[str, float], name: str) -> float:
    """Of ``name``, from its mean and mean square; 0.0 where it is no more than rounding, or nothing was counted."""
    if name not in means:
        return 0.0
    square = means[f"{name}_square"]
    found = square - means[name] ** 2
    return found if found > 1e-12 * square else 0.0
