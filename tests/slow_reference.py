"""What training objectives compute, the slow way: one plain forward per hidden block, no packing, no padding.

The reference sees a sequence up to the end of one block, with the model's own visibility, and knows nothing of
streams, rows, scored places or columns.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from revelm.models.language_model import LanguageModel
from revelm.trajectories.record import NEVER, Trajectory


@dataclass
class View:
    """One hidden block: ids [end] of which ``masked`` positions are hidden, and what is predicted: position -> id."""

    ids: list[int]
    masked: list[int]
    targets: dict[int, int]


def logprobs(model: LanguageModel, view: View, temperature: float = 1.0) -> dict[int, Tensor]:
    """Log-probability of every target of ``view``, by position."""
    shown = list(view.ids)
    for position in view.masked:
        shown[position] = model.family.mask_id
    logits = model(torch.tensor([shown]))[0]
    logits[:, model.family.mask_id] = -float("inf")
    found = (logits / temperature).log_softmax(-1)
    return {position: found[position, token] for position, token in view.targets.items()}


def trace_views(trajectory: Trajectory, shrinkage: int) -> list[View]:
    """One view per block and round, block by block, rounds in order; positions after the stop are not predicted."""
    ids = [*trajectory.prompt_ids.tolist(), *trajectory.completion_ids.tolist()]
    start, size = len(trajectory.prompt_ids), trajectory.block_size
    step = {start + i: int(s) for i, s in enumerate(trajectory.step)}
    views = []
    for first in range(start // size * size, len(ids), size):
        block = [p for p in range(first, first + size) if p >= start]
        steps = sorted({step[p] for p in block} - {NEVER})
        for begin in range(0, len(steps), shrinkage):
            mine = steps[begin : begin + shrinkage]
            masked = [p for p in block if step[p] == NEVER or step[p] >= mine[0]]
            targets = {p: ids[p] for p in block if step[p] in mine and p < start + trajectory.stop_length}
            if targets:
                views.append(View(ids[: first + size], masked, targets))
    return views


def canvas_views(trajectory: Trajectory, shrinkage: int) -> list[View]:
    """The same for full attention: one view of the whole canvas per window and round."""
    ids = [*trajectory.prompt_ids.tolist(), *trajectory.completion_ids.tolist()]
    start, size, step = len(trajectory.prompt_ids), trajectory.block_size, trajectory.step.tolist()
    views = []
    for first in range(0, len(step), size):
        window = range(first, min(first + size, len(step)))
        steps = sorted({step[i] for i in window} - {NEVER})
        for begin in range(0, len(steps), shrinkage):
            mine = steps[begin : begin + shrinkage]
            shown = {i for i in range(window.stop) if step[i] != NEVER and (i < first or step[i] < mine[0])}
            targets = {start + i: ids[start + i] for i in window if step[i] in mine and i < trajectory.stop_length}
            if targets:
                views.append(View(ids, [start + i for i in range(len(step)) if i not in shown], targets))
    return views


@dataclass
class Total:
    """A loss as sum and count, and the log-probability of every target in the order of the views."""

    sum: Tensor
    count: float
    logprobs: list[float] = field(default_factory=list)


def policy_loss(
    model: LanguageModel, episodes: "list[tuple[Trajectory, float, list[View]]]", settings: dict[str, object]
) -> Total:
    """The clipped policy loss with k3, token by token, of (trajectory, credit, views) with recorded log-probs."""
    total = Total(torch.zeros((), dtype=torch.float64), 0.0)
    for trajectory, credit, views in episodes:
        size = sum(len(v.targets) for v in views)
        for view in views:
            heat = float(trajectory.sampling["temperature"]) or 1.0
            for position, logprob in logprobs(model, view, heat).items():
                old = float(trajectory.logprob[position - len(trajectory.prompt_ids)])
                ratio = torch.exp(logprob - old)
                low, high = 1 - float(settings["clip_low"]), 1 + float(settings["clip_high"])
                clipped = torch.clamp(ratio, low, high)
                loss = -torch.minimum(ratio * credit, clipped * credit)
                loss = loss + float(settings["kl_weight"]) * (1 / ratio - 1 + torch.log(ratio))
                weight = {"trace_step": 1 / len(view.targets), "token": 1.0, "sequence": 1 / size}
                share = weight[str(settings["normalisation"])]
                total.sum = total.sum + share * loss
                total.count += share
                total.logprobs.append(float(logprob.detach()))
    return total


def gradients(model: LanguageModel) -> np.ndarray:
    """All gradients as one vector."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double().numpy()
