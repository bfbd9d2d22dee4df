"""Dynamic rule: reveal whatever is confident enough, at least one token (Fast-dLLM, arXiv 2505.22618, section 3.3)."""

from dataclasses import dataclass

from torch import Tensor

from revelm.decoding.rule import Rule, most_confident


@dataclass(frozen=True)
class Dynamic(Rule):
    """Reveal every position with confidence above ``threshold``; the most confident one when none passes."""

    threshold: float = 0.9

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"rule.threshold is {self.threshold}, allowed 0..1")

    def select(self, confidence: Tensor, hidden: Tensor, step: Tensor) -> Tensor:
        """Hidden positions above the threshold, else the most confident hidden one. bool [S, B]"""
        del step
        passing = (confidence > self.threshold) & hidden
        return passing | (most_confident(confidence, hidden, 1) & ~passing.any(dim=-1, keepdim=True))
