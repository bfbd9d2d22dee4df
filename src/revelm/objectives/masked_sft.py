"""What supervised fine-tuning by random hiding shares: settings, rows and denominators.

The response is hidden at random, the hidden tokens are predicted, the prompt stays visible. The masked-diffusion bound
on the likelihood (MDLM, arXiv 2406.07524; LLaDA, arXiv 2502.09992, eq. 5; BD3LM, arXiv 2503.09573, eq. 8): every unit
of noise draws ONE mask rate t, hides each of its tokens with probability t, and pays

    - w(t)  sum over hidden i of  log p(x_i | what is shown),      w(t) = 1/t for the linear schedule

A unit is a block of a block model, a slice, or the whole response under full attention. One rate per token instead
would leave every unit about half hidden: training would never rehearse the first denoising step.

The bound is the integral of that over t from 0 to 1. With rates from [low, high) its mean is the integral over that
range, divided by high - low (``revelm.noise.schedule``): the bound only for high = 1 and low towards 0. The default low
of 0.1 keeps weights below 10 and leaves out the rates at which nearly all is shown. A unit of which nothing was hidden
pays 0 and counts in full; otherwise the mean would be over those units that happened to hide something.

Complementary masks (Fast-dLLM v2, arXiv 2509.26328): a copy and the copy that hides just what the first one
shows. Together they predict every response token exactly once; the second one has the mask rate 1 - t.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from revelm.core.types import Attention, Family
from revelm.noise.schedule import Noise, ScheduleName, elbo_weights
from revelm.objectives.batch import Batch, Text
from revelm.objectives.rows import Row, collate, cut_columns, sample_rows
from revelm.objectives.supervised import SupervisedObjective, padded_ids, require_pads
from revelm.trajectories.replay import Copies

Weighting = Literal["elbo", "none"]


@dataclass(frozen=True)
class MaskedSFT(SupervisedObjective):
    """``low``, ``high``: range of the mask rate; ``num_masks``: hidden copies of every unit per sample and epoch.

    ``weighting``: "elbo" weighs hidden tokens w(t), per response token, hidden or not; "none" averages the hidden ones.
    ``schedule``: how often which rates are drawn; it changes the variance of "elbo", not its mean.
    ``is_complementary``: every copy comes with its complement. Rates are then drawn where 1 - t is in [low, high) as
    well: with the defaults from [0.1, 0.9).
    """

    low: float = 0.1
    high: float = 1.0
    num_masks: int = 1
    weighting: Weighting = "elbo"
    schedule: ScheduleName = "linear"
    is_complementary: bool = False

    def __post_init__(self) -> None:
        self.noise.check()

    @property
    def noise(self) -> Noise:
        """The five fields about noise as one."""
        return Noise(self.low, self.high, self.num_masks, self.schedule, self.is_complementary)

    @abstractmethod
    def num_learnt(self, num_tokens: int, family: Family) -> int:
        """How many first positions are prompt or may be hidden and predicted; others, up to the end, are pads."""

    @abstractmethod
    def hide(self, sample: Text, family: Family, rng: np.random.Generator) -> tuple[Copies, np.ndarray]:
        """The sample's hidden copies, and their mask rates [C]; copies that predict nothing are left out."""

    def prepare(self, samples: Sequence[Text], family: Family, seed: int) -> Batch:
        """Rows in which the responses are hidden at random. A sample of which nothing was hidden has no row; with
        "elbo" its tokens stay in the denominator."""
        self.check_family(family)
        rows = [row for s in samples for row in self._rows(s, family, (seed, s.key))]
        spare = 0.0
        if self.weighting == "elbo":
            spare = float(round(sum(self._num_targets(s, family) for s in samples) - sum(row.count for row in rows)))
        return collate(rows, family, names=("weight",), spare=spare)

    def _num_targets(self, sample: Text, family: Family) -> int:
        """Response tokens that may be hidden, learnt pads included, over all copies: the sample's count for "elbo"."""
        return self.noise.num_copies * (self.num_learnt(len(sample.ids), family) - sample.prompt_length)

    def _rows(self, sample: Text, family: Family, seed: tuple[int, int]) -> list[Row]:
        ids = padded_ids(sample, self.num_positions(len(sample.ids), family), family)
        seen, rate = self.hide(sample, family, np.random.default_rng(seed))
        if not len(rate):
            return []
        pieces = sample_rows(ids, seen, family)
        is_elbo = self.weighting == "elbo"
        weight = elbo_weights(rate, self.noise) if is_elbo else np.ones(len(rate))
        columns = {"weight": np.repeat(weight, seen.target.sum(axis=1))}
        share = self._num_targets(sample, family) / len(pieces)
        return [
            Row(*piece, part, share if is_elbo else float(len(piece[1])))
            for piece, part in zip(pieces, cut_columns(columns, pieces), strict=True)
        ]


@dataclass(frozen=True)
class CanvasSFT(MaskedSFT):
    """``num_pad``: pad tokens behind the stop that are hidden and predicted like the response.

    A full-attention model decodes a canvas of fixed length, so it must learn what stands behind an answer; without
    pads it also learns that the last position of a canvas is always the stop.
    """

    attention: ClassVar[Attention | None] = "full"

    num_pad: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_pads(self.num_pad)

    def num_positions(self, num_tokens: int, family: Family) -> int:
        """The tokens and the pads behind them."""
        del family
        return num_tokens + self.num_pad

    def num_learnt(self, num_tokens: int, family: Family) -> int:
        """All of them."""
        return self.num_positions(num_tokens, family)
