"""Routing against a per-token definition in words; the grouped experts against the loop, and against Qwen3-MoE."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers.models.qwen3_moe.configuration_qwen3_moe import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

from revelm.models.experts import (
    ExpertsConfig,
    Routing,
    SparseMLP,
    grouped_experts,
    is_groupable,
    reference_experts,
    route,
)

SMALL = ExpertsConfig(hidden_size=16, intermediate_size=8, num_experts=6, experts_per_token=2)
LLADA2 = replace(
    SMALL,
    num_experts=8,
    experts_per_token=3,
    scoring="sigmoid",
    num_groups=4,
    groups_per_token=2,
    scaling=2.5,
    has_bias=True,
    shared_intermediate_size=12,
    is_router_wide=True,
)


def layer(config: ExpertsConfig, seed: int = 0) -> SparseMLP:
    torch.manual_seed(seed)
    made = SparseMLP(config)
    if made.expert_bias is not None:
        made.expert_bias.copy_(torch.randn(config.num_experts))
    return made


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def routed_by_hand(logits: list[float], config: ExpertsConfig, bias: list[float] | None) -> dict[int, float]:
    """The definition for one token, without tensors: expert -> weight."""
    if config.scoring == "softmax":
        total = sum(math.exp(z) for z in logits)
        scores = [math.exp(z) / total for z in logits]
    else:
        scores = [1 / (1 + math.exp(-z)) for z in logits]
    ranked = scores if bias is None else [s + b for s, b in zip(scores, bias, strict=True)]
    size = config.num_experts // config.num_groups
    groups = [list(range(g * size, (g + 1) * size)) for g in range(config.num_groups)]
    if config.num_groups > 1:
        groups.sort(key=lambda group: -sum(sorted((ranked[e] for e in group), reverse=True)[:2]))
        groups = groups[: config.groups_per_token]
    allowed = sorted((e for group in groups for e in group), key=lambda e: -ranked[e])
    chosen = allowed[: config.experts_per_token]
    divisor = sum(scores[e] for e in chosen) if config.is_normalised else 1.0
    return {e: scores[e] / divisor * config.scaling for e in chosen}


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
@pytest.mark.parametrize("is_normalised", [True, False])
@pytest.mark.parametrize(("num_groups", "groups_per_token"), [(1, 1), (4, 2), (4, 4), (2, 1)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_routing_is_its_definition(scoring, is_normalised, num_groups, groups_per_token, has_bias):
    """Catches a bias or a scaling in the wrong place, groups ranked by one score or without the bias, wrong sums."""
    config = replace(
        LLADA2,
        scoring=scoring,
        is_normalised=is_normalised,
        num_groups=num_groups,
        groups_per_token=groups_per_token,
        has_bias=has_bias,
    )
    logits = 2 * normal(40, 8, dtype=torch.float64)
    bias = normal(8, seed=2) / 4 if has_bias else None
    found = route(logits, config, expert_bias=bias)
    for row, chosen, weights in zip(logits, found.chosen, found.weights, strict=True):
        expected = routed_by_hand(row.tolist(), config, None if bias is None else bias.tolist())
        assert chosen.tolist() == list(expected)
        assert weights.tolist() == pytest.approx(list(expected.values()), abs=1e-12)


def test_bias_chooses_and_does_not_weigh():
    """Catches weights gathered from the biased scores: with a bias that changes no choice, nothing may change."""
    config = replace(LLADA2, num_groups=1, groups_per_token=1, is_normalised=False)
    logits = normal(30, 8)
    plain = route(logits, config, expert_bias=torch.zeros(8))
    same = route(logits, config, expert_bias=torch.full((8,), 0.37))
    assert torch.equal(plain.chosen, same.chosen)
    assert torch.equal(plain.weights, same.weights)
    pushed = route(logits, config, expert_bias=torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 5]))
    assert (pushed.chosen[:, 0] == 7).all()
    torch.testing.assert_close(pushed.weights[:, 0], logits[:, 7].sigmoid() * config.scaling)
    assert not torch.equal(plain.chosen, pushed.chosen)


@pytest.mark.parametrize("is_router_wide", [True, False])
def test_layer_routes_with_its_own_bias(is_router_wide):
    """Catches a layer that loads its bias and then chooses without it."""
    sparse = layer(replace(LLADA2, is_router_wide=is_router_wide))
    x = normal(30, 16)
    logits = x @ sparse.router.weight.T
    found = sparse.routing(x)
    for row, chosen, weights in zip(logits, *found, strict=True):
        expected = routed_by_hand(row.tolist(), sparse.config, sparse.expert_bias.tolist())
        assert dict(zip(chosen.tolist(), weights.tolist(), strict=True)) == pytest.approx(expected, abs=1e-5)
    assert not torch.equal(found.chosen, route(logits, sparse.config).chosen)


def test_weights_of_vanishing_sigmoids_are_finite():
    """Catches 0 / 0 where every chosen sigmoid underflows."""
    assert route(torch.full((2, 8), -200.0), LLADA2).weights.isfinite().all()


def both_ways(config: ExpertsConfig, x: Tensor, routing: Routing) -> list[list[Tensor]]:
    """[output, gradients of x, weights and the three stacks] by the grouped computation and by the loop."""
    found = []
    for compute in (grouped_experts, reference_experts):
        experts = layer(config).experts.to(x.dtype)
        rows, weights = x.clone().requires_grad_(), routing.weights.clone().requires_grad_()
        out = compute(rows, Routing(routing.chosen, weights), experts)
        (out * normal(*out.shape, seed=5).to(out.dtype)).sum().backward()
        found.append([out.detach(), rows.grad, weights.grad, *(p.grad for p in experts.parameters())])
    return found


@pytest.mark.parametrize("num_rows", [1, 2, 37])
@pytest.mark.parametrize("num_chosen", [1, 2, 6])
def test_grouped_is_the_loop(num_rows, num_chosen):
    """Catches rows brought back to the wrong place, wrong group ends and lost gradients, up to every expert chosen."""
    config = replace(SMALL, experts_per_token=num_chosen)
    routing = route(normal(num_rows, 6, seed=3), config)
    for grouped, looped in zip(*both_ways(config, normal(num_rows, 16), routing), strict=True):
        torch.testing.assert_close(grouped, looped, rtol=0, atol=1e-5)


def test_experts_without_rows_get_zero_gradients():
    """Catches group ends shifted by an empty group, at the edges too, and garbage in an idle expert's gradient."""
    chosen = torch.tensor([[1, 4], [4, 1], [1, 2]])
    grouped, looped = both_ways(SMALL, normal(3, 16), Routing(chosen, normal(3, 2, seed=4)))
    for ours, theirs in zip(grouped, looped, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    for gradients in (grouped[3:], looped[3:]):
        for gradient in gradients:
            assert gradient[[0, 3, 5]].abs().max() == 0
            assert gradient[[1, 2, 4]].flatten(1).abs().amax(1).min() > 0


def test_loop_is_its_definition():
    """Catches an error that both computations share: token by token, expert by expert, in fp64."""
    experts = layer(SMALL).experts.double()
    x, routing = normal(5, 16, dtype=torch.float64), route(normal(5, 6, dtype=torch.float64), SMALL)
    found = reference_experts(x, routing, experts)
    for row, out, chosen, weights in zip(x, found, *routing, strict=True):
        expected = torch.zeros(16, dtype=torch.float64)
        for e, weight in zip(chosen.tolist(), weights, strict=True):
            gate, up = experts.gate_proj[e] @ row, experts.up_proj[e] @ row
            expected += weight * (experts.down_proj[e] @ (gate * gate.sigmoid() * up))
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("is_normalised", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_equals_qwen3_moe(is_normalised, dtype, tolerance):
    """Catches any departure from the published layer: output and gradients under transformers' own weights."""
    official = Qwen3MoeSparseMoeBlock(
        Qwen3MoeConfig(
            hidden_size=16,
            moe_intermediate_size=8,
            num_experts=6,
            num_experts_per_tok=2,
            norm_topk_prob=is_normalised,
            experts_implementation="eager",
        )
    ).to(dtype)
    ours = layer(replace(SMALL, is_normalised=is_normalised)).to(dtype)
    with torch.no_grad():
        official.gate.weight.copy_(ours.router.weight)
        official.experts.gate_up_proj.copy_(torch.cat((ours.experts.gate_proj, ours.experts.up_proj), dim=1))
        official.experts.down_proj.copy_(ours.experts.down_proj)
    x = normal(3, 7, 16).to(dtype)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = ours(mine), official(theirs)
    assert is_groupable(x.flatten(0, 1), ours.experts)
    torch.testing.assert_close(out, expected, rtol=0, atol=tolerance)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=tolerance)
    torch.testing.assert_close(ours.router.weight.grad, official.gate.weight.grad, rtol=0, atol=4 * tolerance)
    stacked = torch.cat((ours.experts.gate_proj.grad, ours.experts.up_proj.grad), dim=1)
    torch.testing.assert_close(stacked, official.experts.gate_up_proj.grad, rtol=0, atol=4 * tolerance)


@pytest.mark.parametrize("config", [SMALL, LLADA2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_every_dtype_trains(config, dtype):
    """Catches a dtype mismatch on either path, and gradients that arrive expanded (grouped_mm refuses those)."""
    sparse = layer(config).to(dtype)
    x = normal(2, 5, 16).to(dtype).requires_grad_()
    out = sparse(x)
    assert out.dtype == dtype
    assert out.shape == x.shape
    out.sum().backward()
    for tensor in (out, x.grad, *(p.grad for p in sparse.parameters())):
        assert tensor.isfinite().all()


def test_expanded_and_transposed_rows():
    """Catches a view of input or gradient that is not contiguous: the output may not depend on the memory layout."""
    sparse = layer(LLADA2)
    x = normal(16, 5, 2).permute(2, 1, 0).requires_grad_()
    out = sparse(x)
    torch.testing.assert_close(out, sparse(x.detach().contiguous()), rtol=0, atol=1e-6)
    out.backward(normal(16).expand(out.shape))
    assert x.grad.abs().min() > 0


def test_shared_expert_sees_every_row_unweighted():
    """Catches a shared expert that is scaled, routed or forgotten."""
    sparse = layer(LLADA2)
    x = normal(4, 16)
    routed = sparse.experts(x, sparse.routing(x))
    torch.testing.assert_close(sparse(x), routed + sparse.shared(x), rtol=0, atol=1e-6)
    assert sparse.shared(x).abs().max() > 1e-3


@pytest.mark.parametrize("config", [SMALL, LLADA2])
def test_a_row_does_not_depend_on_its_neighbours(config):
    """Catches capacity limits, sums in another order and any leak between rows."""
    sparse = layer(config).double()
    x = normal(24, 16, dtype=torch.float64)
    together = sparse(x)
    alone = torch.cat([sparse(row[None]) for row in x])
    backwards = sparse(x.flip(0)).flip(0)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)
    torch.testing.assert_close(together, backwards, rtol=0, atol=1e-10)


def test_wide_router_tells_what_half_precision_cannot():
    """Catches a LLaDA2 router in bf16: logits 4.0 and 4.0078125 are one number there, and the choice turns."""
    config = replace(SMALL, hidden_size=8, num_experts=2, experts_per_token=1, is_router_wide=True)
    sparse = layer(config)
    with torch.no_grad():
        sparse.router.weight.zero_()
        sparse.router.weight[:, :2] = torch.tensor([[4.0, 0.0], [4.0, 2**-7]])
    row = torch.ones(1, 8, dtype=torch.bfloat16)
    routing = sparse.bfloat16().routing(row)
    assert routing.chosen.tolist() == [[1]]
    assert routing.weights.dtype == torch.float32
    assert layer(SMALL).bfloat16().routing(normal(1, 16).bfloat16()).weights.dtype == torch.bfloat16


def test_expert_bias_is_a_saved_fp32_buffer():
    """Catches a bias that gradients train, that is not saved, or that a cast of the model rounds for good."""
    sparse = layer(LLADA2)
    exact = sparse.expert_bias.clone()
    assert "expert_bias" not in dict(sparse.named_parameters())
    assert "expert_bias" not in layer(SMALL).state_dict()
    for dtype in (torch.bfloat16, torch.float64, torch.float16):
        assert sparse.to(dtype).router.weight.dtype == dtype
        assert sparse.state_dict()["expert_bias"].dtype == torch.float32
        assert torch.equal(sparse.expert_bias, exact)
    sparse.float()(normal(3, 16)).sum().backward()
    assert not sparse.expert_bias.requires_grad
    loaded = layer(LLADA2, seed=9)
    loaded.load_state_dict(sparse.state_dict())
    assert torch.equal(loaded.expert_bias, exact)
    with torch.device("meta"):
        empty = SparseMLP(LLADA2)
    assert empty.bfloat16().to_empty(device="cpu").expert_bias.dtype == torch.float32
    half = {name: tensor.bfloat16() for name, tensor in sparse.state_dict().items()}
    empty.load_state_dict(half, assign=True)
    assert torch.equal(empty.bfloat16().expert_bias, exact.bfloat16().float())


@pytest.mark.parametrize(
    ("config", "shape", "expected"),
    [
        (SMALL, (3, 16), True),
        (SMALL, (0, 16), False),
        (replace(SMALL, hidden_size=18), (3, 18), False),
        (replace(SMALL, intermediate_size=6), (3, 16), False),
    ],
)
def test_sizes_that_the_grouped_product_refuses_take_the_loop(config, shape, expected):
    """Catches a crash on no rows and on widths that are no multiple of 16 bytes."""
    sparse = layer(config)
    x = torch.ones(shape, requires_grad=True)
    assert is_groupable(x, sparse.experts) is expected
    out = sparse(x)
    out.sum().backward()
    assert out.shape == x.shape


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"scoring": "tanh"}, "scoring"),
        ({"experts_per_token": 7}, "experts_per_token"),
        ({"experts_per_token": 0}, "experts_per_token"),
        ({"num_groups": 4}, "num_groups"),
        ({"num_groups": 6}, "num_groups"),
        ({"num_groups": 2, "groups_per_token": 3}, "groups_per_token"),
        ({"num_groups": 3, "groups_per_token": 1, "experts_per_token": 3}, "experts_per_token"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(change, named):
    """Catches a config.json whose routing cannot work and would fail deep inside topk or view."""
    with pytest.raises(ValueError, match=f"^{named} is"):
        replace(SMALL, **change)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_is_cpu():
    """Catches garbage gradients of idle experts, and any step that waits for the device."""
    sparse = layer(replace(LLADA2, hidden_size=64, intermediate_size=32)).bfloat16()
    x, chosen = normal(200, 64).bfloat16(), torch.tensor([1, 4, 6]).expand(200, 3)
    weights = normal(200, 3, seed=4).abs()
    grads = []
    for device in ("cpu", "cuda"):
        experts = layer(sparse.config).bfloat16().to(device).experts
        rows, routing = x.to(device), Routing(chosen.to(device), weights.to(device))
        experts(rows, routing).sum().backward()
        experts.zero_grad()
        if device == "cuda" and torch.cuda.get_device_capability() == (9, 0):  # elsewhere torch itself may wait
            torch.cuda.set_sync_debug_mode("error")
        try:
            experts(rows, routing).square().sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        grads.append([p.grad.float().cpu() for p in experts.parameters()])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=0.05, atol=0.02 * float(ours.abs().max()))
        assert theirs[[0, 2, 3, 5, 7]].abs().max() == 0
