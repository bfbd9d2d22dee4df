"""The dynamic rule of LLaDA's samplers: tokens are drawn at the temperature, positions ranked at temperature 1.

At a small temperature every probability is near 1 and passes any threshold; that of temperature 1 still tells what the
model is sure of (Fast-dLLM, arXiv 2505.22618, and LLaDA, arXiv 2502.09992, as their code has it).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from revelm.decoding.propose import Confidence, Proposal, SamplingRows
from revelm.decoding.rule import Rule, above_or_best, check_probability


@dataclass(frozen=True)
class Untempered(Rule):
    """Reveal every position whose token has a probability above ``threshold`` at temperature 1, or else the best one.

    With a ``threshold`` of 1, one token per step.
    """

    is_thresholded: ClassVar[bool] = True
    ranks_by: ClassVar[Confidence | None] = "token"
    threshold: float = 0.95

    def __post_init__(self) -> None:
        check_probability("threshold", self.threshold)

    def propose(
        self,
        logits: Tensor,
        uniform: Tensor,
        sampling: SamplingRows,
        memory: Tensor | None = None,
        *,
        against: Tensor | None = None,
    ) -> Proposal:
        """As every rule, with the token's probability at temperature 1 as confidence; guidance does not change it."""
        found = super().propose(logits, uniform, sampling, memory, against=against)
        return replace(found, confidence=found.logprob_t1.exp())

    def select(self, confidence: Tensor, hidden: Tensor, step: Tensor) -> Tensor:
        """Hidden positions above the threshold, else the most confident hidden one. bool [S, B]"""
        del step
        return above_or_best(confidence, hidden, self.threshold)
