"""Semi-autoregressive fine-tuning of full-attention models: slice by slice, as they decode window by window.

The response is cut into slices of ``block_size`` positions. Slice k has a row of its own: earlier slices are shown,
later ones are hidden, its own tokens are hidden at ONE rate t and predicted where they are hidden. That is the bound

    log p(y | x)  >=  sum over slices k of  E_t [ w(t) sum over hidden i of slice k of log p(y_i | x, y_<k, shown) ]

of a model that decodes windows of that size (``revelm.objectives.masked_sft`` with one unit per slice; the "sliced"
semi-autoregression of arXiv 2509.06949, whose rate per token would leave every slice about half hidden). Block models
learn the same from ``block_sft``, in one row per text.
"""

from dataclasses import dataclass

import numpy as np

from revelm.core.types import Family
from revelm.objectives.batch import Text
from revelm.objectives.masked_sft import CanvasSFT
from revelm.objectives.random_copies import slice_copies
from revelm.objectives.supervised import check_step, require_attention
from revelm.trajectories.replay import Copies


@dataclass(frozen=True)
class SemiARSFT(CanvasSFT):
    """``block_size``: positions of a slice, the last one often shorter. ``num_pad``: see ``CanvasSFT``.

    ``follows_trace``: slices are cut in the order of the sample's ``step`` where it has one (positions of one step
    from left to right, pads last), else from left to right.
    """

    block_size: int = 32
    follows_trace: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_size < 1:
            raise ValueError(f"objective.block_size is {self.block_size}, must be at least 1")

    def check_family(self, family: Family) -> None:
        """ValueError for models that decode block by block: their blocks are their slices."""
        require_attention(family, "full", "semi_ar_sft")

    def max_copies(self, num_tokens: int, family: Family) -> int:
        """One per slice and draw, if all of it is response."""
        return -(-self.num_positions(num_tokens, family) // self.block_size) * self.noise.num_copies

    def hide(self, sample: Text, family: Family, rng: np.random.Generator) -> tuple[Copies, np.ndarray]:
        """One copy of the whole canvas per slice and draw."""
        del family
        slices = np.full(len(sample.ids) + self.num_pad, -1, dtype=np.int64)
        slices[sample.prompt_length :] = self._rank(sample) // self.block_size
        return slice_copies(slices, rng, self.noise)

    def _rank(self, sample: Text) -> np.ndarray:
        """Place of every response position in the order that is cut into slices, pads last, int64 [R + num_pad]."""
        size = len(sample.ids) - sample.prompt_length
        order = np.arange(size + self.num_pad)
        if self.follows_trace and sample.step is not None:
            check_step(sample)
            order[:size] = np.argsort(sample.step, kind="stable")
        return np.argsort(order)
