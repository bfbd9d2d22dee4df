"""A sparse feed-forward: a router sends each row to a few of many experts (Shazeer et al. 2017, arXiv 1701.06538).

    y = sum over the chosen experts e of w_e * down_e(silu(gate_e(x)) * up_e(x)), plus shared(x) where there is one

The weights w are the chosen ones of softmax or sigmoid scores. A bias may take part in the choice, and in the choice
only (Wang et al. 2024, arXiv 2408.15664); the choice may be limited to a few groups of experts (DeepSeek-V3,
arXiv 2412.19437, section 2.1.2). Nothing here trains the bias or balances the load.

Two computations give the same numbers: a grouped one, in one matrix product per projection and without waiting for
the device, and a plain loop over experts. Each row is computed by itself and its experts are summed in an order that
depends on this row alone, so a row's output does not depend on its neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from revelm.models.feed_forward import SwiGLU
from revelm.models.fields import check_integer, check_number

GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GROUPED_TORCH = (2, 11)  # the first whose CPU kernel takes weights at any address, as in memory-mapped files
GROUPED_STRIDE = 16  # bytes of which a row of either operand must be a multiple
GROUPED_CUDA = (8, 0)  # the lowest compute capability
UNSAFE_CUDA = (10, 0)  # from here on experts without rows get garbage gradients (pytorch issue 172439)
TINY = 1e-20  # keeps 0 / 0 out when every chosen sigmoid underflows; changes no other sum


@dataclass(frozen=True)
class ExpertsConfig:
    """Settings of one sparse layer.

    ``intermediate_size``: of one expert. ``is_normalised``: the chosen weights are divided by their sum.
    ``num_groups``, ``groups_per_token``: experts are chosen from the best groups only; a group is worth the sum of its
    two best (biased) scores. ``scaling`` multiplies the weights last. ``has_bias``: ``expert_bias`` takes part in the
    choice. ``shared_intermediate_size``: of the expert that sees every row; 0: there is none. ``is_router_wide``:
    logits, weights and the weighted sum are in max(fp32, dtype) (LLaDA2); else they are in the model's dtype, and
    only softmax or sigmoid and normalisation are wide (Qwen3-MoE, SDAR-MoE, LLaDA-MoE).
    ValueError for settings that exclude each other.
    """

    hidden_size: int
    intermediate_size: int
    num_experts: int
    experts_per_token: int
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    is_normalised: bool = True
    num_groups: int = 1
    groups_per_token: int = 1
    scaling: float = 1.0
    has_bias: bool = False
    shared_intermediate_size: int = 0
    is_router_wide: bool = False

    def __post_init__(self) -> None:
        if self.scoring not in ("softmax", "sigmoid"):
            raise ValueError(f"scoring is {self.scoring!r}, allowed: softmax, sigmoid")
        for name in ("hidden_size", "intermediate_size", "num_experts", "num_groups", "groups_per_token"):
            check_integer(name, vars(self)[name])
        check_integer("shared_intermediate_size", self.shared_intermediate_size, least=0)
        check_number("scaling", self.scaling)
        if self.num_groups < 1 or self.num_experts % self.num_groups:
            raise ValueError(f"num_groups is {self.num_groups}, must divide num_experts, which is {self.num_experts}")
        size = self.num_experts // self.num_groups
        if self.num_groups > 1 and size < 2:
            raise ValueError(f"num_groups is {self.num_groups}, must leave at least 2 of {self.num_experts} in a group")
        if not 1 <= self.groups_per_token <= self.num_groups:
            raise ValueError(f"groups_per_token is {self.groups_per_token}, must be from 1 to {self.num_groups}")
        if not 1 <= self.experts_per_token <= size * self.groups_per_token:
            allowed = size * self.groups_per_token
            raise ValueError(f"experts_per_token is {self.experts_per_token}, must be from 1 to {allowed}")


class Routing(NamedTuple):
    """Where T rows go: K different experts each, best first, and with what weight."""

    chosen: Tensor  # [T, K] int64
    weights: Tensor  # [T, K]


def route(logits: Tensor, config: ExpertsConfig, *, expert_bias: Tensor | None = None) -> Routing:
    """Choose experts by router ``logits`` [T, E]; weights in max(fp32, dtype). Gradients reach the weights only."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    scores = wide.softmax(-1) if config.scoring == "softmax" else wide.sigmoid()
    ranked = scores.detach() if expert_bias is None else scores.detach() + expert_bias
    if config.num_groups > 1:
        ranked = _within_best_groups(ranked, config)
    chosen = ranked.topk(config.experts_per_token).indices
    weights = scores.gather(-1, chosen)
    if config.is_normalised:
        weights = weights / (weights.sum(-1, keepdim=True) + TINY)
    return Routing(chosen, weights * config.scaling)


def _within_best_groups(ranked: Tensor, config: ExpertsConfig) -> Tensor:
    """``ranked`` [T, E] with -inf outside each row's best groups."""
    groups = ranked.unflatten(-1, (config.num_groups, -1))
    best = groups.topk(2).values.sum(-1).topk(config.groups_per_token).indices
    is_open = torch.zeros(groups.shape[:-1], dtype=torch.bool, device=ranked.device).scatter(-1, best, True)
    return groups.masked_fill(~is_open[..., None], -torch.inf).flatten(-2)


class Experts(nn.Module):
    """The routed experts' weights, stacked: ``gate_proj`` and ``up_proj`` [E, I, D], ``down_proj`` [E, D, I]."""

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        count, hidden, inner = config.num_experts, config.hidden_size, config.intermediate_size
        self.gate_proj = _stack(count, inner, hidden)
        self.up_proj = _stack(count, inner, hidden)
        self.down_proj = _stack(count, hidden, inner)

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """Rows [T, D] -> [T, D]: the weighted sum of each row's experts."""
        compute = grouped_experts if is_groupable(x, self) else reference_experts
        return compute(x, routing, self)


def _stack(count: int, rows: int, columns: int) -> nn.Parameter:
    """``count`` matrices drawn as nn.Linear draws its own."""
    bound = columns**-0.5
    return nn.Parameter(torch.empty(count, rows, columns).uniform_(-bound, bound))


def is_groupable(x: Tensor, experts: Experts) -> bool:
    """Whether torch's grouped matrix product takes these rows [T, D] and weights, and gives exact gradients."""
    inner, hidden = experts.gate_proj.shape[-2:]
    if torch.__version__ < GROUPED_TORCH or x.dtype not in GROUPED_DTYPES or x.shape[0] == 0:
        return False
    if hidden * x.itemsize % GROUPED_STRIDE or inner * x.itemsize % GROUPED_STRIDE:
        return False
    if not x.is_cuda:
        return x.device.type == "cpu"
    capability = torch.cuda.get_device_capability(x.device)
    return capability >= GROUPED_CUDA and (capability < UNSAFE_CUDA or not torch.is_grad_enabled())


def grouped_experts(x: Tensor, routing: Routing, experts: Experts) -> Tensor:
    """Rows [T, D] -> [T, D]: rows sorted by expert, one grouped product per projection, rows brought back.

    No step waits for the device, and no backward adds two values to one place in an order of its own: rows are
    repeated before they are sorted, so sorting has a permutation for its gradient, and sums run over an axis.
    """
    num_slots = routing.chosen.shape[1]
    chosen, order = routing.chosen.flatten().sort(stable=True)
    every = torch.arange(experts.gate_proj.shape[0], device=x.device)
    ends = torch.searchsorted(chosen, every, right=True, out_int32=True)  # bincount would wait for the device
    rows = x[:, None].expand(-1, num_slots, -1).reshape(-1, x.shape[1]).index_select(0, order)

    def product(rows: Tensor, weights: Tensor) -> Tensor:
        return torch.nn.functional.grouped_mm(rows, weights.transpose(1, 2), offs=ends)

    inner = silu(product(rows, experts.gate_proj)) * product(rows, experts.up_proj)
    out = product(inner, experts.down_proj).index_select(0, order.argsort())
    return (out.view(*routing.chosen.shape, -1) * routing.weights[..., None]).sum(1).to(x.dtype)


def reference_experts(x: Tensor, routing: Routing, experts: Experts) -> Tensor:
    """What ``grouped_experts`` computes, expert by expert, for any dtype, size and device."""
    out = x.new_zeros(x.shape, dtype=torch.promote_types(x.dtype, routing.weights.dtype))
    # unbind, as indexing one expert at a time would make a gradient of the whole stack's size for each
    stacks = zip(experts.gate_proj.unbind(), experts.up_proj.unbind(), experts.down_proj.unbind(), strict=True)
    for expert, (gate, up, down) in enumerate(stacks):
        rows, slots = torch.where(routing.chosen == expert)
        mine = x[rows]
        mine = linear(silu(linear(mine, gate)) * linear(mine, up), down)
        out.index_add_(0, rows, mine * routing.weights[rows, slots, None])
    return out.to(x.dtype)


class SparseMLP(nn.Module):
    """Router, experts and, where the settings say so, ``expert_bias`` [E] and a shared expert.

    ``expert_bias`` is a buffer: saved, never trained by gradients, and fp32 whatever the model is cast to, for its
    differences decide between scores that lie closer together than half precision can tell.
    """

    expert_bias: Tensor | None

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        self.router = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = Experts(config)
        bias = torch.zeros(config.num_experts, dtype=torch.float32) if config.has_bias else None
        self.register_buffer("expert_bias", bias)
        inner = config.shared_intermediate_size
        self.shared = SwiGLU(config.hidden_size, inner) if inner else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden_size] -> [..., hidden_size]."""
        rows = x.reshape(-1, x.shape[-1])
        out = self.experts(rows, self.routing(rows)).view(x.shape)
        return out if self.shared is None else out + self.shared(x)

    def routing(self, rows: Tensor) -> Routing:
        """The experts of ``rows`` [T, hidden_size], weights in the dtype that the sum over experts is to have."""
        if self.config.is_router_wide:
            wide = torch.promote_types(rows.dtype, torch.float32)
            return route(linear(rows.to(wide), self.router.weight.to(wide)), self.config, expert_bias=self.expert_bias)
        logits = self.router(rows.to(self.router.weight.dtype))  # routers may be stored in fp32 beside bf16 weights
        routing = route(logits, self.config, expert_bias=self.expert_bias)
        return Routing(routing.chosen, routing.weights.to(rows.dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SparseMLP":
        """Every cast and move of a module comes through here: the bias follows the moves, not the casts."""
        before: Any = self.expert_bias
        super()._apply(fn, recurse)
        if self.expert_bias is not None and self.expert_bias.dtype != torch.float32:
            self.expert_bias = before.to(device=self.expert_bias.device, dtype=torch.float32)
        return self
