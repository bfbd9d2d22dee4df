"""What supervised fine-tuning of diffusion models shares: settings, rows and loss.

The response is hidden at random, the hidden tokens are predicted, the prompt stays visible. The masked-diffusion bound
on the likelihood (MDLM, arXiv 2406.07524; LLaDA, arXiv 2502.09992, eq. 5; BD3LM, arXiv 2503.09573, eq. 8): every unit
of noise draws ONE mask rate t, hides each of its tokens with probability t, and pays

    - 1/t  sum over hidden i of  log p(x_i | what is shown)

A unit is a block of a block model, or the whole response under full attention. One rate per token instead would leave
every unit about half hidden: training would never rehearse the first denoising step.

The bound is the integral of that over t from 0 to 1. With t uniform in [low, high) its mean is the integral over that
range, divided by high - low: the bound only for high = 1 and low towards 0. The default low of 0.1 keeps weights below
10 and leaves out the rates at which nearly all is shown. A unit of which nothing was hidden pays 0 and counts in full;
otherwise the mean would be over those units that happened to hide something.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from revelm.core.types import Attention, Family, require_diffusion
from revelm.objectives.batch import Batch, Loss, Scored, Text
from revelm.objectives.objective import Need
from revelm.objectives.random_copies import drawn_rows, random_copies
from revelm.objectives.rows import Row, collate, cut_columns, sample_rows

SFT_KINDS: dict[Attention, str] = {"block": "block_sft", "full": "random_mask_sft"}
Weighting = Literal["elbo", "none"]


@dataclass(frozen=True)
class MaskedSFT(ABC):
    """``low``, ``high``: range of the mask rate; ``num_masks``: hidden copies of every unit per sample and epoch.

    ``weighting``: "elbo" weighs hidden tokens 1/t, per response token, hidden or not; "none" averages the hidden ones.
    """

    attention: ClassVar[Attention]

    low: float = 0.1
    high: float = 1.0
    num_masks: int = 1
    weighting: Weighting = "elbo"

    def __post_init__(self) -> None:
        if not 0.0 < self.low <= self.high <= 1.0:
            raise ValueError(f"objective.low, high are {self.low}, {self.high}; need 0 < low <= high <= 1")
        if self.num_masks < 1:
            raise ValueError(f"objective.num_masks is {self.num_masks}, must be at least 1")

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing but the current policy."""
        return frozenset()

    @abstractmethod
    def num_positions(self, num_tokens: int, family: Family) -> int:
        """Positions that a sample of ``num_tokens`` tokens takes, with the pad tokens that are learnt behind it."""

    def check_family(self, family: Family) -> None:
        """ValueError for a family that cannot be trained this way; it names the objective that can."""
        require_diffusion(family)
        if family.attention != self.attention:
            raise ValueError(
                f"objective.kind: {SFT_KINDS[self.attention]!r} is for models with {self.attention} attention, and "
                f"{family.name} has {family.attention} attention; use {SFT_KINDS[family.attention]!r}"
            )

    def prepare(self, samples: Sequence[Text], family: Family, seed: int) -> Batch:
        """Rows in which the responses are hidden at random. A sample of which nothing was hidden has no row; with
        "elbo" its tokens stay in the denominator, in equal parts with every row. See ``drawn_rows`` for a batch in
        which nothing at all was hidden."""
        self.check_family(family)
        rows = drawn_rows(
            lambda attempt: [row for s in samples for row in self._rows(s, family, (seed, s.key, attempt))]
        )
        batch = collate(rows, family)
        if self.weighting == "none":
            return batch
        missing = round(sum(self._num_targets(s, family) for s in samples) - batch.count)
        return replace(batch, counts=batch.counts + missing / len(rows))

    def judge(self, scored: Scored, batch: Batch) -> Loss:
        """See ``masked_loss``."""
        return masked_loss(scored, batch)

    def _num_targets(self, sample: Text, family: Family) -> int:
        """Response tokens that may be hidden, learnt pads included, over all copies: the sample's count for "elbo"."""
        return self.num_masks * (self.num_positions(len(sample.ids), family) - sample.prompt_length)

    def _rows(self, sample: Text, family: Family, seed: tuple[int, int, int]) -> list[Row]:
        num_tokens = len(sample.ids)
        end = self.num_positions(num_tokens, family)
        if end > family.max_length:
            raise ValueError(
                f"a sample has {num_tokens} tokens and takes {end} positions; the model has {family.max_length}"
            )
        ids = np.pad(sample.ids.astype(np.int64), (0, end - num_tokens), constant_values=family.pad_id)
        rng = np.random.default_rng(seed)
        noise = (self.low, self.high, self.num_masks)
        unit = end if family.block_size is None else family.block_size
        seen, rate = random_copies((sample.prompt_length, end), unit, rng, noise)
        if not seen.target.any():
            return []
        pieces = sample_rows(ids, seen, family)
        per_target = np.repeat(rate, seen.target.sum(axis=1))
        weight = 1.0 / per_target if self.weighting == "elbo" else np.ones(len(per_target))
        share = self._num_targets(sample, family) / len(pieces)
        return [
            Row(*piece, columns, share if self.weighting == "elbo" else float(len(piece[1])))
            for piece, columns in zip(pieces, cut_columns({"weight": weight}, pieces), strict=True)
        ]


def masked_loss(scored: Scored, batch: Batch) -> Loss:
    """Weighted negative log-likelihood of the hidden tokens; metrics: loss, nll (unweighted), entropy."""
    losses = -scored.logprob * batch.columns["weight"].to(scored.logprob.dtype)
    size = float(len(losses))
    metrics = {
        "loss": (float(losses.detach().sum()), batch.count),
        "nll": (float(-scored.logprob.detach().sum()), size),
        "entropy": (float(scored.entropy.sum()), size),
    }
    return Loss(losses.sum(), batch.count, metrics)
