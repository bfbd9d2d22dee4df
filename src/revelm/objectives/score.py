"""What the model says at the scored positions: the one function that turns a batch into log-probabilities.

The head runs only on scored rows, in chunks whose logits are recomputed in the backward pass, so full-vocabulary
logits never exist for more than one chunk. The distribution is that of the engine: banned ids at -inf, divided by the
temperature the sample was drawn at.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from revelm.decoding.propose import log_probabilities
from revelm.objectives.batch import Batch, Scored

CHUNK_LOGITS = 1 << 24


def score(model: Any, batch: Batch) -> Scored:
    """Log-probability of the target and entropy at every scored position of ``batch``; differentiable.

    ``model`` has ``body``, ``head`` and ``family`` (``revelm.models.language_model.LanguageModel``).
    """
    features = model.body(batch.tokens, batch.positions, batch.pattern).flatten(0, 1)[batch.scored]
    temperature = batch.columns.get("temperature")
    chunk = max(1, CHUNK_LOGITS // model.family.vocab_size)
    logprobs, entropies = [], []
    for first in range(0, len(features), chunk):
        part = slice(first, first + chunk)
        heat = None if temperature is None else temperature[part, None]
        inputs = (model, features[part], batch.targets[part], heat)
        needs_recompute = len(features) > chunk and torch.is_grad_enabled()
        both = checkpoint(_score_rows, *inputs, use_reentrant=False) if needs_recompute else _score_rows(*inputs)
        logprobs.append(both[0])
        entropies.append(both[1])
    return Scored(logprob=torch.cat(logprobs), entropy=torch.cat(entropies))


def _score_rows(model: Any, features: Tensor, targets: Tensor, temperature: Tensor | None) -> tuple[Tensor, Tensor]:
    """Log-probability [n] of targets [n] and entropy [n] (without gradient) from features [n, D]."""
    log_probability = log_probabilities(model.head(features), model.family.banned_ids, temperature=temperature)
    chosen = log_probability.gather(-1, targets[:, None])[:, 0]
    with torch.no_grad():
        entropy = -(log_probability.exp() * log_probability.clamp(min=torch.finfo(log_probability.dtype).min)).sum(-1)
    return chosen, entropy
