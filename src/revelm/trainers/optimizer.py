"""AdamW on master weights, with clipping and a schedule; and the update that any split of a batch leaves unchanged:
into micro-batches, and over processes, however many of either a process has.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from revelm.parallel.placement import Placement
from revelm.parallel.reduce import sum_gradients
from revelm.parallel.shard import is_shard, whole
from revelm.trainers.config import OptimizerSpec
from revelm.trainers.schedule import learning_rate

MASTER, AVERAGE, COUNTS = "master", "ema", "counts"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # AdamW's names


class Optimizer:
    """AdamW whose weights are fp32 copies wherever the model computes in less; norms and biases are not decayed.

    The model's parameters keep their storage: updates are copied into them in place. What ``placement`` has put in
    shards has masters, moments and averages in shards; what beside it is whole in every process, such as the head of a
    critic, stays so. ``updates`` counts steps taken, ``skipped`` those that were not, as loss or gradient were not
    finite; the schedule begins at update ``schedule_from``. ``averages``: with ``ema_decay``, the moving averages of
    the masters, average <- decay x average + (1 - decay) x master after every update, beginning at the first weights.
    ``own_rates``: by name, of parameters that are whole everywhere and have a peak rate of their own, with the same
    schedule. Each is clipped on its own, and is no part of ``grad_norm``.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: OptimizerSpec,
        *,
        total_updates: int,
        placement: Placement | None = None,
        own_rates: Mapping[str, float] | None = None,
    ) -> None:
        self.spec, self.total_updates, self.placement = spec, total_updates, placement or Placement()
        self.own_rates = dict(own_rates or {})
        self.updates = self.skipped = self.skipped_in_a_row = self.schedule_from = 0
        self._trouble = ""
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names, self.parameters = [name for name, _ in named], [p for _, p in named]
        self.masters = [p if p.dtype in (torch.float32, torch.float64) else p.detach().float() for p in self.parameters]
        self.averages = [m.detach().clone() for m in self.masters] if spec.ema_decay else []
        self._is_shard = [self.placement.is_sharded and is_shard(m) for m in self.masters]
        groups = []
        for part in self._parts(self.masters):
            groups.append({"params": [m for m in part if m.ndim > 1], "weight_decay": spec.weight_decay})
            groups.append({"params": [m for m in part if m.ndim <= 1], "weight_decay": 0.0})
        for name, master in self._apart():
            share = {"share": self.own_rates[name] / spec.learning_rate}
            groups.append({"params": [master], "weight_decay": spec.weight_decay if master.ndim > 1 else 0.0, **share})
        self.adam = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=spec.learning_rate, betas=spec.betas, eps=spec.eps
        )

    def step(self, losses: Sequence[Callable[[], Tensor]], count: float) -> dict[str, float]:
        """One update with the gradient of sum(losses) / ``count``, both over all processes.

        ``losses`` are called one after the other, each a micro-batch; with whole weights a process may have none.
        Returns grad_norm (before clipping), learning_rate, and skipped: 1 when loss or gradient were not finite, and
        weights, moments and schedule were left as they are.
        """
        self._forget_gradients()
        total = self._accumulate(losses)
        norm = self._norm(count)
        rate = learning_rate(self.spec, self.updates - self.schedule_from, self.total_updates)
        found, apart = {"grad_norm": float(norm), "learning_rate": rate}, self._apart_norms(count)
        if not all(map(math.isfinite, (found["grad_norm"], total, *map(float, apart)))):
            self._skip(total / count, found["grad_norm"])
            return found | {"skipped": 1.0}
        for part in self._parts(self.masters):
            nn.utils.clip_grads_with_norm_(part, self.spec.max_grad_norm, norm)
        for (_, master), own in zip(self._apart(), apart, strict=True):
            nn.utils.clip_grads_with_norm_([master], self.spec.max_grad_norm, own)
        for group in self.adam.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        self.adam.step()
        self.updates += 1
        self.skipped_in_a_row = 0
        self._forget_gradients()
        self._follow()
        return found | {"skipped": 0.0}

    def _accumulate(self, losses: Sequence[Callable[[], Tensor]]) -> float:
        """Run all micro-batches; the masters get the gradients of all processes. Returns the sum of the losses."""
        total: Tensor | float = 0.0
        for loss in losses:
            value = loss()
            value.backward()
            total = total + value.detach().double()
            self._widen_gradients()
        sum_gradients([*self._parts(self.masters)[0], *(m for _, m in self._apart())], self.placement.world)
        return self.placement.world.sum(float(total))

    def _norm(self, count: float) -> Tensor:
        """Divide all gradients by ``count``; their norm, of all processes' shards together."""
        norms = []
        for part in self._parts(self.masters):
            gradients = [m.grad for m in part if m.grad is not None]
            for gradient in gradients:
                gradient.div_(count)
            norms.append(nn.utils.get_total_norm(gradients))
        if not self.placement.is_sharded:
            return norms[0]
        device = self.placement.world.device  # of nothing, the norm is a zero on the host
        return torch.stack([whole(norm).to(device) for norm in norms]).norm()

    def _apart_norms(self, count: float) -> list[Tensor]:
        """Divide the gradients of the parameters with their own rates by ``count``; the norm of each."""
        gradients = [master.grad for _, master in self._apart()]
        return [torch.zeros(()) if g is None else nn.utils.get_total_norm([g.div_(count)]) for g in gradients]

    def _parts(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """``tensors``, one for each parameter without its own rate: whole ones, and shards; no operation takes both at
        once."""
        triples = list(zip(self.names, tensors, self._is_shard, strict=True))
        parts = [
            [t for n, t, is_one in triples if is_one == kind and n not in self.own_rates] for kind in (False, True)
        ]
        return parts if self.placement.is_sharded else parts[:1]

    def _apart(self) -> list[tuple[str, Tensor]]:
        """Names and masters of the parameters with their own rates."""
        return [(n, m) for n, m in zip(self.names, self.masters, strict=True) if n in self.own_rates]

    def _skip(self, loss: float, norm: float) -> None:
        """Count a step that is not taken. All processes know the same numbers, so all skip, and give up, together."""
        self._forget_gradients()
        self.skipped += 1
        self.skipped_in_a_row += 1
        self._trouble = f"loss {loss}, gradient norm {norm} at update {self.updates + 1}"

    def check_finite(self) -> None:
        """FloatingPointError when the last ``max_skipped`` updates, or more, were left out."""
        if self.skipped_in_a_row >= self.spec.max_skipped:
            raise FloatingPointError(
                f"{self._trouble}, {self.skipped_in_a_row} times in a row (optimizer.max_skipped); weights unchanged "
                f"since update {self.updates}; look at the data, or begin a run with a lower optimizer.learning_rate "
                "at this one's last checkpoint (model.path)"
            )

    def _forget_gradients(self) -> None:
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.grad = master.grad = None

    def _widen_gradients(self) -> None:
        """Add a micro-batch's gradients to the masters' in fp32: sums in less lose the small ones."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if master is parameter or parameter.grad is None:
                continue
            wide = parameter.grad.to(master.dtype)
            master.grad = wide if master.grad is None else master.grad.add_(wide)
            parameter.grad = None

    @torch.no_grad()
    def _follow(self) -> None:
        """Weights and averages after the masters have moved."""
        self._copy_masters()
        for average, master in zip(self.averages, self.masters, strict=bool(self.averages)):
            average.lerp_(master, 1 - self.spec.ema_decay)

    @torch.no_grad()
    def _copy_masters(self) -> None:
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if master is not parameter:
                parameter.copy_(master)

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, by name and not by place: "master.<parameter>", "exp_avg.<parameter>", ...

        The tensors are the optimiser's own, shards where the weights are.
        """
        found = {COUNTS: torch.tensor([self.updates, self.skipped, self.skipped_in_a_row])}
        for name, master in zip(self.names, self.masters, strict=True):
            moments = self.adam.state.get(master, {})
            found |= {f"{MASTER}.{name}": master.detach()} | {f"{key}.{name}": moments[key] for key in moments}
        found |= {f"{AVERAGE}.{name}": a for name, a in zip(self.names, self.averages, strict=bool(self.averages))}
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue, bit for bit, from another optimiser's ``state``, in the same placement."""

        def read(mine: dict[str, Tensor]) -> None:
            for name, tensor in mine.items():
                tensor.copy_(state[name])

        self.resume(state, read)

    def resume(self, saved: Iterable[str], read: Callable[[dict[str, Tensor]], None]) -> None:
        """Continue, bit for bit, from a state with the names ``saved``; ``read`` fills the tensors it is given.

        So a state is never in memory twice. It may come from any number of processes and any placement.
        """
        known = set(saved)
        self.adam.state.clear()
        for name, master in zip(self.names, self.masters, strict=True):
            if f"{MOMENTS[0]}.{name}" in known:
                first, second, step = MOMENTS
                zeros = {key: torch.zeros_like(master.detach()) for key in (first, second)}
                self.adam.state[master] = {step: torch.tensor(0.0, dtype=torch.float32), **zeros}
        state = self.state()
        read(state)
        self.updates, self.skipped, self.skipped_in_a_row = state[COUNTS].tolist()
        if self.skipped_in_a_row >= self.spec.max_skipped:  # where a run gave up, another look begins anew
            self.skipped_in_a_row = 0
        self._copy_masters()
