"""What the model says at the scored positions: the one function that turns a batch into log-probabilities.

The head runs only on scored rows, in chunks whose logits are recomputed in the backward pass, so full-vocabulary
logits never exist for more than one chunk. The distribution is that of the engine: banned ids at -inf, divided by the
temperature the sample was drawn at.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from revelm.decoding.propose import SamplingRows, kept_mass, log_probabilities
from revelm.decoding.sampling import sampling_rows
from revelm.objectives.batch import Batch, Scored
from revelm.objectives.token_scores import token_scores

CHUNK_LOGITS = 1 << 24
KEPT_LOGITS = 1 << 23
CACHED_LOGITS = 1 << 21
CHUNK_ROWS = 256


def score(
    model: Any,
    batch: Batch,
    *,
    features: Tensor | None = None,
    value_head: nn.Module | None = None,
    entropy_gradient: bool = False,
    measures_kept: bool = False,
) -> Scored:
    """Log-probability of the target and entropy at every scored position of ``batch``; differentiable.

    ``model`` has ``body``, ``head`` and ``family`` (``revelm.models.language_model.LanguageModel``). With a
    ``value_head`` (``revelm.models.value.ValueHead``) the same features also give ``Scored.value``.
    ``entropy_gradient``: the entropy is differentiable too. ``measures_kept``: also, without gradient, the share of the
    distribution that each sample's filters leave to draw from (``Batch.samplings``). ``features`` [N, D]: if known.
    """
    features = scored_features(model, batch) if features is None else features
    temperature = _temperature(batch)
    filters = _filters(model, batch) if measures_kept else None
    chunk = chunk_rows(model.family.vocab_size)
    is_remade = torch.is_grad_enabled() and recomputes_logits(len(features), model.family.vocab_size)
    run = partial(checkpoint, _score_rows, use_reentrant=False) if is_remade else _score_rows
    logprobs, entropies, kept = [], [], []
    for first in range(0, max(len(features), 1), chunk):
        part = slice(first, first + chunk)
        heat = None if temperature is None else temperature[part, None]
        inputs = (model, features[part], batch.targets[part], heat)
        both = run(*inputs, entropy_gradient=entropy_gradient)
        logprobs.append(both[0])
        entropies.append(both[1])
        if filters is not None:
            which = batch.columns["sampling"][part].long()
            kept.append(_kept(model, features[part], filters.at(which)))
    return Scored(
        logprob=torch.cat(logprobs),
        entropy=torch.cat(entropies),
        value=None if value_head is None else value_head(features),
        kept=torch.cat(kept) if filters is not None else None,
    )


def scored_features(model: Any, batch: Batch) -> Tensor:
    """What the body says at the scored positions of ``batch`` [N, D]."""
    features: Tensor = model.body(batch.tokens, batch.positions, batch.pattern, rows=batch.scored)
    return features


def chunk_rows(vocab_size: int) -> int:
    """Rows of the head that are in memory at once: as few as stay in a processor's cache, where that is faster.

    Yet at least ``CHUNK_ROWS``, as every chunk reads the head's weights and adds to their gradient; above all no more
    than ``CHUNK_LOGITS`` logits.
    """
    return max(1, min(CHUNK_LOGITS // vocab_size, max(CHUNK_ROWS, CACHED_LOGITS // vocab_size)))


def recomputes_logits(rows: int, vocab_size: int) -> bool:
    """Whether log-probabilities of ``rows`` rows are made again in the backward pass, as they are too many to keep."""
    return rows > chunk_rows(vocab_size) and rows * vocab_size > KEPT_LOGITS


def _temperature(batch: Batch) -> Tensor | None:
    """Temperatures [N]; None where all are 1, or 0, which counts as 1: dividing all logits takes its time."""
    found = batch.columns.get("temperature")
    return None if found is None or bool(((found == 1) | (found == 0)).all()) else found


def _score_rows(
    model: Any, features: Tensor, targets: Tensor, temperature: Tensor | None, *, entropy_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Log-probability [n] of targets [n] and entropy [n] from features [n, D]."""
    banned_ids = model.family.banned_ids  # logits have no name here, so that they go as soon as they are read
    if not entropy_gradient:
        return token_scores(model.head(features), targets, banned_ids, temperature=temperature)
    log_probability = log_probabilities(model.head(features), banned_ids, temperature=temperature)
    finite = log_probability.clamp(min=torch.finfo(log_probability.dtype).min)  # banned ids: 0 x -inf
    return log_probability.gather(-1, targets[:, None])[:, 0], -(log_probability.exp() * finite).sum(-1)


def _filters(model: Any, batch: Batch) -> SamplingRows:
    family = model.family
    return sampling_rows(batch.samplings, family.banned_ids, batch.tokens.device, vocab_size=family.vocab_size)


@torch.no_grad()
def _kept(model: Any, features: Tensor, filters: SamplingRows) -> Tensor:
    """Share that filters leave of each row's distribution [n], from features [n, D]."""
    return kept_mass(model.head(features)[:, None], filters)[:, 0]
