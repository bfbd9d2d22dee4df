"""A reward for speed: tokens that an answer reveals per forward of the network.

Unlike ``shaping.speed_weight`` (``revelm.objectives.shaping``), which ranks the right answers of one problem among
themselves and leaves their mean as it is, this is a number of its own scale, part of the score that credit is taken
from. Use one of the two.
"""

from dataclasses import dataclass

from revelm.rewards.reward import Judged


@dataclass(frozen=True)
class TokensPerForward:
    """Tokens per forward / ``target``, at most 1. ``only_correct``: wrong answers get 0, or fast nonsense would pay."""

    target: float = 4.0
    only_correct: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError for a target that is not positive."""
        if not 0.0 < self.target < float("inf"):
            raise ValueError(f"target={self.target}: expected tokens per forward, above 0")

    def rate(self, answer: Judged) -> float | None:
        """0 to 1."""
        completion = answer.completion
        if not completion.num_forwards or (self.only_correct and not answer.is_correct):
            return 0.0
        return min(1.0, completion.num_tokens / completion.num_forwards / self.target)
