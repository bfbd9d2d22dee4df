"""Log-probability and entropy of single tokens, against softmax and automatic differentiation."""

import pytest
import torch

from revelm.decoding.propose import log_probabilities
from revelm.objectives.token_scores import token_scores

BANNED = (3, 7)


@pytest.mark.parametrize("banned", [(), BANNED])
@pytest.mark.parametrize("heats", [None, (1.0, 0.0, 0.3, 2.5, 1.0)])
@pytest.mark.parametrize("shift", [0.0, 300.0, -2000.0])
def test_as_a_softmax(banned: tuple[int, ...], heats: tuple[float, ...] | None, shift: float) -> None:
    """Catches banned ids that take part, a temperature left out of the gradient, logits whose exponential overflows,
    and an entropy of nothing times minus infinity."""
    torch.manual_seed(0)
    logits = (4 * torch.randn(5, 11, dtype=torch.float64) + shift).requires_grad_()
    targets, weights = torch.tensor([0, 1, 2, 10, 4]), torch.randn(5, dtype=torch.float64)
    heat = None if heats is None else torch.tensor(heats, dtype=torch.float64)[:, None]
    both = log_probabilities(logits, banned, temperature=heat)
    expected = both.gather(-1, targets[:, None])[:, 0]
    (gradient,) = torch.autograd.grad((expected * weights).sum(), logits)
    before = logits.detach().clone()
    found, entropy = token_scores(logits, targets, banned, temperature=heat)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    probability = both.detach().exp()
    torch.testing.assert_close(entropy, -torch.special.xlogy(probability, probability).sum(-1), rtol=1e-9, atol=1e-12)
    assert not entropy.requires_grad
    (mine,) = torch.autograd.grad((found * weights).sum(), logits)
    torch.testing.assert_close(mine, gradient, rtol=0, atol=1e-12)
    assert torch.equal(logits, before)
    assert not banned or (mine[:, list(banned)] == 0).all()


def test_narrow_logits_are_widened() -> None:
    """Catches sums over a vocabulary in bfloat16, and a gradient of another dtype than the logits'."""
    torch.manual_seed(0)
    logits = torch.randn(3, 4000).bfloat16().requires_grad_()
    targets = torch.tensor([0, 5, 3999])
    found, entropy = token_scores(logits, targets, BANNED)
    assert found.dtype == entropy.dtype == torch.float32
    exact = log_probabilities(logits.detach().double(), BANNED).gather(-1, targets[:, None])[:, 0]
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-6)
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16


def test_a_second_backward_pass_is_refused() -> None:
    """Catches gradients of a tensor that the first pass has written over."""
    logits = torch.randn(2, 5, requires_grad=True)
    found, _ = token_scores(logits, torch.tensor([0, 1]), ())
    found.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.sum().backward()


def test_one_id_that_is_allowed() -> None:
    """Catches entropies below zero or not a number where nothing is left to choose."""
    logits = torch.randn(1, 3, requires_grad=True)
    found, entropy = token_scores(logits, torch.tensor([1]), (0, 2))
    assert (found.item(), entropy.item()) == (0.0, 0.0)
    found.sum().backward()
    assert logits.grad is not None
    assert (logits.grad == 0).all()
