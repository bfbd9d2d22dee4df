"""Supervised fine-tuning of block models: hidden tokens from earlier clean blocks and the rest of their own.

The masked-diffusion bound on the likelihood, block by block (BD3LM, arXiv 2503.09573, eq. 8): each block draws ONE mask
rate t, hides each of its tokens with probability t, and pays -log p of what is hidden, weighted 1/t ("elbo") or
unweighted ("none"). One rate per token instead would make every block about half hidden and never rehearse the first
denoising step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from revelm.core.grid import block_of, padded_length
from revelm.core.types import Family
from revelm.noise.corrupt import corrupt
from revelm.objectives.batch import Batch, Loss, Scored, Text
from revelm.objectives.objective import Need
from revelm.objectives.rows import Row, block_row, collate
from revelm.trajectories.replay import Copies

MAX_DRAWS = 64


@dataclass(frozen=True)
class BlockSFT:
    """``low``, ``high``: range of the mask rate; ``num_masks``: noised copies of every block per sample and epoch.

    The terminal block is filled up with the pad token, which is supervised: the engine decodes that block too.
    """

    low: float = 0.1
    high: float = 1.0
    num_masks: int = 1
    weighting: Literal["elbo", "none"] = "elbo"

    def __post_init__(self) -> None:
        if not 0.0 < self.low <= self.high <= 1.0:
            raise ValueError(f"objective.low, high are {self.low}, {self.high}; need 0 < low <= high <= 1")
        if self.num_masks < 1:
            raise ValueError(f"objective.num_masks is {self.num_masks}, must be at least 1")

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing but the current policy."""
        return frozenset()

    def prepare(self, samples: Sequence[Text], family: Family, seed: int) -> Batch:
        """One row per sample: the clean text and ``num_masks`` hidden copies of every block of the response."""
        rows = drawn_rows(
            lambda attempt: [self._row(sample, family, (seed, sample.key, attempt)) for sample in samples]
        )
        return collate(rows, family)

    def _row(self, sample: Text, family: Family, seed: tuple[int, int, int]) -> Row | None:
        size = family.block_size
        assert size is not None, "block SFT is for block models"
        end = padded_length(len(sample.ids), size)
        if end > family.max_length:
            raise ValueError(f"a sample has {len(sample.ids)} tokens; the model has {family.max_length} positions")
        ids = np.pad(sample.ids.astype(np.int64), (0, end - len(sample.ids)), constant_values=family.pad_id)
        rng = np.random.default_rng(seed)
        seen, rate = random_copies((sample.prompt_length, end), size, rng, (self.low, self.high, self.num_masks))
        if not seen.target.any():
            return None
        labels, scored, targets = block_row(ids, seen, family)
        per_target = np.repeat(rate, seen.target.sum(axis=1))
        weight = 1.0 / per_target if self.weighting == "elbo" else np.ones(len(targets))
        count = self.num_masks * (end - sample.prompt_length) if self.weighting == "elbo" else len(targets)
        return Row(labels, scored, targets, {"weight": weight}, float(count))

    def judge(self, scored: Scored, batch: Batch) -> Loss:
        """Weighted negative log-likelihood of the hidden tokens; per response token with "elbo"."""
        losses = -scored.logprob * batch.columns["weight"].to(scored.logprob.dtype)
        size = float(len(losses))
        metrics = {
            "loss": (float(losses.detach().sum()), batch.count),
            "nll": (float(-scored.logprob.detach().sum()), size),
            "entropy": (float(scored.entropy.sum()), size),
        }
        return Loss(losses.sum(), batch.count, metrics)


def drawn_rows(draw: Callable[[int], Sequence[Row | None]]) -> list[Row]:
    """The rows of ``draw(0)`` that predict something. A batch in which nothing was hidden at all is drawn again.

    Few short answers at low rates do come out whole. Empty when ``MAX_DRAWS`` draws hide nothing: nothing can be.
    """
    for attempt in range(MAX_DRAWS):
        rows = [row for row in draw(attempt) if row is not None]
        if rows:
            return rows
    return []


def random_copies(
    span: tuple[int, int], size: int, rng: np.random.Generator, noise: tuple[float, float, int]
) -> tuple[Copies, np.ndarray]:
    """Randomly hidden copies of the blocks that hold positions ``span[0] <= i < span[1]``, and their mask rates [C].

    ``noise``: lowest rate, highest rate, copies per block. One rate per copy. Only positions of the span are hidden
    and predicted; later positions of the last block are hidden but not predicted. Copies that predict nothing are
    left out.
    """
    low, high, num_masks = noise
    first, last = block_of(span[0], size), block_of(span[1] - 1, size)
    blocks = np.tile(np.arange(first, last + 1), num_masks)
    order = np.repeat(np.arange(num_masks), last + 1 - first)
    position = blocks[:, None] * size + np.arange(size)
    target, rate = corrupt((position >= span[0]) & (position < span[1]), rng, low=low, high=high)
    hidden = target | (position >= span[1])
    keep = target.any(axis=1)
    return Copies(blocks[keep], order[keep], hidden[keep], target[keep]), rate[keep]
