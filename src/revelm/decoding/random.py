"""Random rule: positions in random order, the order in which random masking trains (LLaDA, arXiv 2502.09992)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from revelm.decoding.propose import Proposal, SamplingRows
from revelm.decoding.rule import Rule, check_count, most_confident
from revelm.decoding.uniform import remixed


@dataclass(frozen=True)
class Random(Rule):
    """Reveal ``tokens_per_step`` random hidden positions each step (fewer when fewer are hidden).

    Ranks by a random number per (seed, position, step) instead of a confidence; that number is what is recorded.
    """

    is_random: ClassVar[bool] = True
    tokens_per_step: int = 1

    def __post_init__(self) -> None:
        check_count("tokens_per_step", self.tokens_per_step)

    def propose(
        self,
        logits: Tensor,
        uniform: Tensor,
        sampling: SamplingRows,
        memory: Tensor | None = None,
        *,
        against: Tensor | None = None,
    ) -> Proposal:
        """As every rule, but with a second uniform number, mixed from the first, as confidence."""
        found = super().propose(logits, uniform, sampling, memory, against=against)
        return replace(found, confidence=remixed(uniform).to(found.confidence.dtype))

    def select(self, confidence: Tensor, hidden: Tensor, step: Tensor) -> Tensor:
        """The ``tokens_per_step`` hidden positions with the largest numbers. bool [S, B]"""
        del step
        return most_confident(confidence, hidden, self.tokens_per_step)
