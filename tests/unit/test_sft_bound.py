"""Supervised fine-tuning pays the bound on the likelihood, per token: against the exact bound of both kinds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from revelm.objectives.batch import Batch, Episode, Text
from revelm.objectives.block_sft import BlockSFT
from revelm.objectives.likelihood import loglikelihood
from revelm.objectives.masked_sft import MaskedSFT
from revelm.objectives.random_mask_sft import RandomMaskSFT
from revelm.objectives.rejection_sft import RejectionSFT
from revelm.objectives.score import score
from tests.full_attention import full_model, records
from tests.models import prompt_of, sharp_model

MODELS = {"block": sharp_model, "full": full_model}
KINDS: dict[str, type[MaskedSFT]] = {"block": BlockSFT, "full": RandomMaskSFT}
COPIES = 64


def text(start: int, key: int = 0) -> Text:
    """12 tokens, three whole blocks: no pads that training would learn and the likelihood would not count."""
    return Text(np.array(prompt_of(12, 3)), start, key)


def loss_per_token(objective: MaskedSFT, batch: Batch, attention: str) -> float:
    model = MODELS[attention]()
    with torch.no_grad():
        loss = objective.judge(score(model, batch), batch)
    return float(loss.sum) / loss.count


@pytest.mark.parametrize("starts", [(11,), (5,), (11, 10, 9, 5)], ids=str)
@pytest.mark.parametrize("attention", MODELS)
def test_the_elbo_loss_is_the_bound_per_token(attention: str, starts: tuple[int, ...]) -> None:
    """Catches a denominator that depends on the noise: without the samples of which nothing was hidden, a response of
    one token cost 6.8 instead of 3.8, one of seven 29.8 instead of 28.2 in all."""
    model, objective = MODELS[attention](), KINDS[attention](low=1e-3)
    bounds = loglikelihood(model, [text(s) for s in starts], estimator="exact")
    assert all(bound.is_exact for bound in bounds)
    num_tokens = sum(bound.num_tokens for bound in bounds)
    samples = [text(s, key) for key in range(COPIES) for s in starts]
    samples = [replace(sample, key=key) for key, sample in enumerate(samples)]
    losses, is_missing = [], False
    for seed in range(40):
        batch = objective.prepare(samples, model.family, seed)
        assert batch.count == pytest.approx(COPIES * num_tokens, rel=1e-12)
        is_missing |= len(batch.tokens) < len(samples)
        losses.append(loss_per_token(objective, batch, attention))
    assert is_missing, "every sample hid something: this test shows nothing"
    error = np.std(losses, ddof=1) / np.sqrt(len(losses))
    exact = -sum(bound.value for bound in bounds) / num_tokens
    assert abs(np.mean(losses) - exact) < 4 * error
    assert error < 0.04 * exact


@pytest.mark.parametrize("num_masks", [1, 3])
@pytest.mark.parametrize("attention", MODELS)
def test_the_denominator_is_the_same_for_any_noise_and_any_split(attention: str, num_masks: int) -> None:
    """Catches counts lost with samples or copies that hid nothing, or lost or doubled in micro-batches."""
    family = MODELS[attention]().family
    samples = [text(start, key) for key, start in enumerate((11, 10, 5, 11, 3, 12, 11))]
    expected = num_masks * sum(12 - sample.prompt_length for sample in samples)
    num_rows = set()
    for seed in range(30):
        batch = KINDS[attention](low=0.05, high=0.3, num_masks=num_masks).prepare(samples, family, seed)
        num_rows.add(len(batch.tokens))
        assert batch.count == pytest.approx(expected, rel=1e-12)
        assert (batch.counts > 0).all()
        for size in (1, 30, 1000):
            assert sum(piece.count for piece in batch.split(size)) == pytest.approx(expected, rel=1e-12)
        hidden = KINDS[attention](low=0.05, high=0.3, num_masks=num_masks, weighting="none")
        only = hidden.prepare(samples, family, seed)
        assert only.count == len(only.scored) == len(batch.scored)
    assert len(num_rows) > 1


def test_rejection_counts_answers_of_which_nothing_was_hidden() -> None:
    """Catches the same among the model's own answers."""
    good = [replace(r, finish_reason="stop") for r in records() if r.stop_length]
    samples = [Episode(record, 1.0, 0, key) for key, record in enumerate(good)]
    objective = RejectionSFT(low=0.05, high=0.2)
    batches = [objective.prepare(objective.credit(samples), full_model().family, seed) for seed in range(10)]
    assert len({len(batch.tokens) for batch in batches}) > 1
    total = sum(record.stop_length for record in good)
    assert [batch.count for batch in batches] == pytest.approx([total] * 10)
