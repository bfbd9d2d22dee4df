"""The optimiser: schedule, exact accumulation, clipping, fp32 masters, and gradients that are not finite."""

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from revelm.trainers.config import OptimizerSpec
from revelm.trainers.optimizer import Optimizer
from revelm.trainers.schedule import learning_rate


class Weights(nn.Module):
    """A matrix and a bias, all ``value``."""

    def __init__(self, value: float = 1.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.full((2, 3), value, dtype=dtype))
        self.bias = nn.Parameter(torch.full((3,), value, dtype=dtype))


def spec(**changes: Any) -> OptimizerSpec:
    """Settings that make numbers easy."""
    return OptimizerSpec(**{"learning_rate": 0.01, "max_grad_norm": 1e9, **changes})


def linear(model: Weights, scale: float) -> Callable[[], Tensor]:
    """A loss with gradient ``scale`` everywhere."""
    return lambda: scale * (model.matrix.sum() + model.bias.sum())


def rates(total: int, **changes: Any) -> list[float]:
    return [learning_rate(spec(learning_rate=1.0, **changes), i, total) for i in range(total)]


def test_schedule_by_hand() -> None:
    """Catches a first update at rate 0, a floor that is never reached or undercut, and a warm-up off by one."""
    assert rates(5, schedule="linear", floor=0.2) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert rates(5, schedule="cosine") == pytest.approx([1.0, 0.853553, 0.5, 0.146447, 0.0], abs=1e-6)
    assert rates(5, schedule="linear", warmup_steps=2, floor=0.5) == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5])
    assert rates(4, floor=0.1, warmup_steps=4) == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates(3, floor=0.1) == [1.0, 1.0, 1.0]


def test_warm_up_stable_decay_by_hand() -> None:
    """Catches a way down that starts an update late, ends above its floor, or eats into the warm-up."""
    found = rates(7, schedule="wsd", decay_steps=2, warmup_steps=2, floor=0.2)
    assert found == pytest.approx([0.5, 1.0, 1.0, 1.0, 1.0, 0.6, 0.2])
    assert rates(3, schedule="wsd", decay_steps=9, warmup_steps=1) == pytest.approx([1.0, 0.5, 0.0])
    with pytest.raises(ValueError, match=r"decay_steps is 0 with schedule 'wsd'"):
        spec(schedule="wsd")
    with pytest.raises(ValueError, match=r"decay_steps is 3 with schedule 'linear'"):
        spec(schedule="linear", decay_steps=3)


@pytest.mark.parametrize("changes", [{"schedule": "linear"}, {"schedule": "cosine"}, {"schedule": "wsd"}])
@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (2, 1), (7, 3), (100, 10)])
def test_the_last_update_is_exactly_at_the_floor(changes: dict[str, Any], total: int, warmup: int) -> None:
    """Catches a floor that is missed by a step, or only nearly reached."""
    if total == 1 and changes["schedule"] != "wsd":
        assert rates(1, floor=0.3, **changes) == [1.0], "a run of one update is at its peak"
        return
    more = {"decay_steps": 4} if changes["schedule"] == "wsd" else {}
    if total > warmup + 1 or more:
        assert rates(total, floor=0.3, warmup_steps=warmup, **changes, **more)[-1] == 0.3


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedule_stays_at_the_floor(schedule: str) -> None:
    """Catches a rate that rises again or turns negative when a run is prolonged, and runs shorter than the warm-up."""
    settings = spec(learning_rate=2.0, schedule=schedule, floor=0.25, warmup_steps=3)
    found = [learning_rate(settings, i, 20) for i in range(60)]
    assert found[19:] == pytest.approx([0.5] * 41)
    assert all(a >= b for a, b in pairwise(found[3:]))
    assert learning_rate(settings, 0, 1) == pytest.approx(2.0 / 3)
    assert learning_rate(spec(schedule=schedule), 0, 1) == 0.01


def test_the_rate_is_used() -> None:
    """Catches a schedule that is reported but not applied: AdamW's first steps have the size of the rate."""
    model = Weights()
    optimizer = Optimizer(model, spec(schedule="linear", floor=0.0), total_updates=3)
    sizes, reported = [], []
    for _ in range(3):
        before = model.matrix.detach().clone()
        reported.append(optimizer.step([linear(model, 1.0)], 1.0)["learning_rate"])
        sizes.append(float((before - model.matrix.detach()).mean()))
    assert reported == pytest.approx([0.01, 0.005, 0.0])
    assert sizes == pytest.approx(reported, rel=1e-3, abs=1e-9)


def test_accumulation_is_one_batch() -> None:
    """Catches a mean of means: micro-batches of unequal size must give the update of the whole batch."""
    parts = [(3.0, 1.0), (-1.0, 5.0), (10.0, 2.0)]  # (sum of gradients, count)
    one, many = Weights(dtype=torch.float64), Weights(dtype=torch.float64)
    settings = spec(max_grad_norm=0.5)
    whole = Optimizer(one, settings, total_updates=2)
    split = Optimizer(many, settings, total_updates=2)
    for _ in range(2):
        a = whole.step([linear(one, sum(s for s, _ in parts))], 8.0)
        b = split.step([linear(many, s) for s, _ in parts], 8.0)
        assert a == pytest.approx(b, rel=1e-12)
        assert a["grad_norm"] == pytest.approx(12 / 8 * 3, rel=1e-9)  # 9 weights, gradient 1.5 each
    assert torch.allclose(one.matrix, many.matrix, rtol=1e-12)


@pytest.mark.parametrize(("limit", "expected"), [(1.0, 1 / 3), (2.9, 2.9 / 3), (3.1, 1.0), (100.0, 1.0)])
def test_clipping_scales_the_whole_gradient(limit: float, expected: float) -> None:
    """Catches clipping per tensor, before the division by the count, or reported after it was done."""
    model = Weights()
    optimizer = Optimizer(model, spec(max_grad_norm=limit, betas=(0.9, 0.999)), total_updates=1)
    assert optimizer.step([linear(model, 4.0)], 4.0)["grad_norm"] == pytest.approx(3.0)  # 9 weights, gradient 1
    for parameter in (model.matrix, model.bias):
        moment = optimizer.adam.state[parameter]["exp_avg"]
        assert moment.flatten().tolist() == pytest.approx([0.1 * expected] * moment.numel(), rel=1e-5)


def test_only_matrices_decay() -> None:
    """Catches weight decay on norms and biases."""
    model = Weights()
    optimizer = Optimizer(model, spec(weight_decay=0.5), total_updates=1)
    optimizer.step([linear(model, 0.0)], 1.0)
    assert model.bias.tolist() == [1.0] * 3
    assert model.matrix.flatten().tolist() == pytest.approx([1 - 0.01 * 0.5] * 6)


def test_tiny_updates_of_a_bf16_model_are_not_lost() -> None:
    """Catches updates in bf16: 1 - 0.001 rounds to 1 there, and a thousand such steps go nowhere."""
    model = Weights(dtype=torch.bfloat16)
    storage = model.matrix.data_ptr()
    optimizer = Optimizer(model, spec(learning_rate=1e-3), total_updates=100)
    for _ in range(100):
        optimizer.step([linear(model, 1.0)], 1.0)
    assert model.matrix.dtype == torch.bfloat16
    assert model.matrix.data_ptr() == storage, "the engine decodes with the same tensor"
    assert model.matrix.float().flatten().tolist() == pytest.approx([0.9] * 6, abs=0.004)
    assert optimizer.masters[0].flatten().tolist() == pytest.approx([0.9] * 6, abs=1e-4)


def test_small_gradients_of_a_bf16_model_add_up() -> None:
    """Catches micro-batches accumulated in bf16: 1 + 0.001 is 1 there, however often."""
    model = Weights(dtype=torch.bfloat16)
    optimizer = Optimizer(model, spec(), total_updates=1)
    norm = optimizer.step([linear(model, 1.0), *[linear(model, 2.0**-10)] * 1024], 1.0)["grad_norm"]
    assert norm == pytest.approx(6.0, rel=1e-3)  # 9 weights, gradient 2 each


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_skipped_and_counted(bad: float, dtype: torch.dtype) -> None:
    """Catches weights, moments, averages or the schedule being touched, a bad gradient that lives on into the next
    update, and a count of failures in a row that a good update does not end."""
    model = Weights(dtype=dtype)
    optimizer = Optimizer(model, spec(schedule="linear", max_skipped=3, ema_decay=0.5), total_updates=4)
    optimizer.step([linear(model, 1.0)], 1.0)
    before, state = deepcopy(model.state_dict()), deepcopy(optimizer.state())
    rates = [optimizer.step([linear(model, 1.0), linear(model, bad)], 1.0) for _ in range(2)]
    assert [(r["skipped"], r["learning_rate"]) for r in rates] == [(1.0, pytest.approx(0.01 * 2 / 3))] * 2
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert state.pop("counts").tolist() == [1, 0, 0]
    assert optimizer.state()["counts"].tolist() == [1, 2, 2]
    assert all(torch.equal(v, optimizer.state()[k]) for k, v in state.items())
    assert optimizer.step([lambda: model.matrix.sum()], 1.0)["skipped"] == 0.0
    assert all(torch.isfinite(v).all() for v in model.state_dict().values())
    assert (optimizer.updates, optimizer.skipped) == (2, 2)
    for _ in range(2):
        optimizer.step([linear(model, bad)], 1.0)
    optimizer.check_finite()
    optimizer.step([linear(model, bad)], 1.0)
    with pytest.raises(FloatingPointError, match=r"at update 3, 3 times in a row .*unchanged since update 2"):
        optimizer.check_finite()
    again = Optimizer(model, optimizer.spec, total_updates=4)
    again.load_state(optimizer.state())
    assert (again.updates, again.skipped, again.skipped_in_a_row) == (2, 5, 0)
    again.check_finite()


def test_a_loss_that_is_not_finite_is_skipped_with_a_finite_gradient() -> None:
    """Catches a guard that looks at the gradient alone: a loss of inf + x has the gradient of x."""
    model = Weights()
    optimizer = Optimizer(model, spec(), total_updates=4)
    assert optimizer.step([lambda: model.matrix.sum() + float("inf")], 1.0)["skipped"] == 1.0
    assert model.matrix.tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_averages_by_hand(dtype: torch.dtype) -> None:
    """Catches averages of rounded weights, from before the update, or with decay and weight exchanged."""
    model = Weights(dtype=dtype)
    optimizer = Optimizer(model, spec(ema_decay=0.75), total_updates=3)
    expected = torch.full((2, 3), 1.0)
    for _ in range(3):
        optimizer.step([linear(model, 1.0)], 1.0)
        expected = 0.75 * expected + 0.25 * optimizer.masters[0].detach()
    assert optimizer.averages[0].dtype == torch.float32
    assert torch.allclose(optimizer.averages[0], expected, rtol=1e-6)
    assert float(expected[0, 0]) > float(optimizer.masters[0].detach()[0, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_goes_on_bit_for_bit(dtype: torch.dtype) -> None:
    """Catches masters rebuilt from rounded weights, a schedule that starts anew, and averages that do."""

    def losses(model: Weights, step: int) -> list[Callable[[], Tensor]]:
        return [lambda: ((model.matrix * step).sin().sum() + (model.bias * step).cos().sum()).float()]

    settings = spec(schedule="cosine", warmup_steps=2, ema_decay=0.9)
    straight = Weights(0.7, dtype)
    optimizer = Optimizer(straight, settings, total_updates=8)
    for step in range(4):
        optimizer.step(losses(straight, step), 1.0)
    resumed = Weights(0.0, dtype)
    again = Optimizer(resumed, settings, total_updates=8)
    again.load_state(deepcopy(optimizer.state()))
    assert torch.equal(straight.matrix, resumed.matrix)
    for step in range(4, 8):
        assert optimizer.step(losses(straight, step), 1.0) == again.step(losses(resumed, step), 1.0)
    assert again.updates == 8
    one, other = optimizer.state(), again.state()
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_rate_of_its_own_by_hand() -> None:
    """Catches a parameter that keeps the common rate or schedule, and a gradient that is clipped with the others', or
    they with it: Adam does not see the scale of a single gradient, so their second update tells."""
    changes = {"schedule": "linear", "betas": (0.0, 0.0), "weight_decay": 0.0, "eps": 1.0}

    def steps(own: float | None, scale: float) -> tuple[float, float, list[float]]:
        model = Weights(0.0)
        made = OptimizerSpec(**{"learning_rate": 0.01, "max_grad_norm": 1.0, **changes})
        rates = None if own is None else {"bias": own}
        optimizer = Optimizer(model, made, total_updates=3, own_rates=rates)
        norms = []
        for _ in range(2):
            found = optimizer.step([lambda: 0.1 * model.matrix.sum() + scale * model.bias.sum()], 1.0)
            norms.append(found["grad_norm"])
        return float(model.matrix.detach()[0, 0]), float(model.bias.detach()[0]), norms

    # without momentum and with eps = 1 an update is rate x g / (|g| + 1); rates 1 and 1/2 of the peak
    matrix, bias, norms = steps(0.5, 100.0)
    clipped = 1 / 3**0.5
    assert matrix == pytest.approx(-0.015 * 0.1 / 1.1, rel=1e-4)
    assert bias == pytest.approx(-0.75 * clipped / (clipped + 1), rel=1e-4)
    assert norms == pytest.approx([0.1 * 6**0.5] * 2, rel=1e-6)
    assert steps(None, 100.0)[0] > -1e-4, "clipped with a gradient that is a thousand times as large"
    assert steps(0.01, 0.1)[:2] == pytest.approx(steps(None, 0.1)[:2], rel=1e-6)


def test_a_bad_gradient_at_its_own_rate_is_skipped() -> None:
    """Catches a guard that looks at the other parameters alone."""
    model = Weights()
    optimizer = Optimizer(model, spec(), total_updates=4, own_rates={"bias": 1.0})
    assert optimizer.step([lambda: model.matrix.sum() + model.bias.prod().sqrt() * 0.0], 1.0)["skipped"] == 0.0
    with torch.no_grad():
        model.bias.zero_()
    assert optimizer.step([lambda: model.matrix.sum() + model.bias.sqrt().sum()], 1.0)["skipped"] == 1.0
    assert model.bias.tolist() == [0.0] * 3
