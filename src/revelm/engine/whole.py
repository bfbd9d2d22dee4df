"""Forwards without a cache: every step recomputes whole canvases.

The only exact way for full attention, where one revealed token changes every key and value; for block models, the
canvas up to the end of the current block, the plain form of what the cache gives.
"""

from time import perf_counter

import torch
from torch import Tensor

from revelm.engine.slots import Slots, Undecided
from revelm.engine.stats import EngineStats
from revelm.masks.visibility import PADDING, Pattern, pattern_for
from revelm.models.language_model import LanguageModel


class WholeCanvases:
    """All running canvases in one forward, padded to the longest of them; padding sees and is seen by padding alone."""

    def __init__(self, model: LanguageModel, slots: Slots, stats: EngineStats) -> None:
        self.model, self.slots, self.stats = model, slots, stats

    def features(self, undecided: Undecided) -> Tensor:
        """Features [N, D] of the undecided positions."""
        began = perf_counter()
        tokens, positions, pattern = self._canvases()
        features = self.model.body(tokens, positions, pattern)
        self.stats.count_forward(tokens.numel(), perf_counter() - began)
        return features[undecided.slot, undecided.position]

    def move(self, source: int, target: int) -> None:
        """Nothing is kept between forwards."""

    def _canvases(self) -> tuple[Tensor, Tensor, Pattern]:
        """Tokens and positions int64 [n, L] and who sees whom. What is hidden, and padding, shows the mask."""
        slots, family = self.slots, self.slots.family
        n, ends = slots.count, slots.ends()
        length = int(ends.max())
        positions = torch.arange(length, device=slots.device).expand(n, length)
        is_padding = positions >= ends[:, None]
        is_masked = slots.position["hidden"][:n, :length] | is_padding
        tokens = torch.where(is_masked, family.mask_id, slots.position["canvas"][:n, :length])
        seen = pattern_for(family, positions)
        return tokens, positions, Pattern(seen.stream, seen.block, seen.sequence.masked_fill(is_padding, PADDING))
