"""AdamW on master weights, with clipping and a schedule; and the update that any split of a batch leaves unchanged."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from revelm.trainers.config import OptimizerSpec


def learning_rate(spec: OptimizerSpec, update: int, total: int) -> float:
    """The rate of update number ``update`` (from 0) of ``total``: warm-up, then the schedule down to floor x peak."""
    if update < spec.warmup_steps:
        return spec.learning_rate * (update + 1) / spec.warmup_steps
    if spec.schedule == "constant":
        return spec.learning_rate
    span = max(1, total - spec.warmup_steps - 1)
    progress = min(1.0, (update - spec.warmup_steps) / span)
    shape = 0.5 * (1 + math.cos(math.pi * progress)) if spec.schedule == "cosine" else 1 - progress
    return spec.learning_rate * (spec.floor + (1 - spec.floor) * shape)


class Optimizer:
    """AdamW whose weights are fp32 copies wherever the model computes in less; norms and biases are not decayed.

    The model's parameters keep their storage: updates are copied into them in place. ``updates`` counts steps taken.
    """

    def __init__(self, model: nn.Module, spec: OptimizerSpec, *, total_updates: int) -> None:
        self.spec, self.total_updates, self.updates = spec, total_updates, 0
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.masters = [p if p.dtype in (torch.float32, torch.float64) else p.detach().float() for p in self.parameters]
        decayed = [m for m, p in zip(self.masters, self.parameters, strict=True) if p.ndim > 1]
        plain = [m for m, p in zip(self.masters, self.parameters, strict=True) if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=spec.learning_rate, betas=spec.betas, eps=spec.eps
        )

    def step(self, losses: Sequence[Callable[[], Tensor]], count: float) -> dict[str, float]:
        """One update with the gradient of sum(losses) / ``count``.

        ``losses`` are called one after the other, each a micro-batch. Returns grad_norm (before clipping) and
        learning_rate. Raises FloatingPointError, weights untouched, when the gradient is not finite.
        """
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.grad = master.grad = None
        for loss in losses:
            loss().backward()
            self._widen_gradients()
        for master in self.masters:
            if master.grad is not None:
                master.grad.div_(count)
        norm = nn.utils.clip_grad_norm_(self.masters, self.spec.max_grad_norm)
        if not bool(torch.isfinite(norm)):
            raise FloatingPointError(f"gradient norm is {float(norm)} at update {self.updates + 1}; weights unchanged")
        rate = learning_rate(self.spec, self.updates, self.total_updates)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.updates += 1
        with torch.no_grad():
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                parameter.grad = None
                master.grad = None
                if master is not parameter:
                    parameter.copy_(master)
        return {"grad_norm": float(norm), "learning_rate": rate}

    def _widen_gradients(self) -> None:
        """Add a micro-batch's gradients to the masters' in fp32: sums in less lose the small ones."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if master is parameter or parameter.grad is None:
                continue
            wide = parameter.grad.to(master.dtype)
            master.grad = wide if master.grad is None else master.grad.add_(wide)
            parameter.grad = None

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs; loads with ``torch.load(weights_only=True)``."""
        return {"adam": self.adam.state_dict(), "masters": list(self.masters), "updates": self.updates}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, bit for bit."""
        self.adam.load_state_dict(state["adam"])
        self.updates = state["updates"]
        with torch.no_grad():
            for parameter, master, saved in zip(self.parameters, self.masters, state["masters"], strict=True):
                master.copy_(saved)
                if master is not parameter:
                    parameter.copy_(master)
