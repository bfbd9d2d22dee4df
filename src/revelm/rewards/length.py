r"""Rewards for the length of an answer, counted in the tokens that were decoded (never tokenised again).

A budget, for n tokens, with ``free`` tokens F and ``limit`` tokens M:

    -min(1, max(0, (n - F) / (M - F)))

A cosine between two lengths (Yeo et al., arXiv 2502.03373, eq. 1), for right and wrong answers with values of their
own at length 0 (a) and at the limit (b):

    b + (a - b) (1 + cos(pi n / M)) / 2

so that right answers may be worth more when they are short, and wrong ones more when they are long.
"""

from dataclasses import dataclass
from math import cos, isfinite, pi

from revelm.rewards.reward import Judged


@dataclass(frozen=True)
class Length:
    """0 up to ``free`` tokens, then falling to -1 at ``limit`` tokens and beyond."""

    limit: int
    free: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for a limit that is not above the free tokens."""
        if not 0 <= self.free < self.limit:
            raise ValueError(f"free={self.free}, limit={self.limit}: expected 0 <= free < limit, in tokens")

    def rate(self, answer: Judged) -> float | None:
        """-1 to 0."""
        over = (answer.completion.num_tokens - self.free) / (self.limit - self.free)
        return -min(1.0, over) if over > 0 else 0.0


@dataclass(frozen=True)
class CosineLength:
    """From the first to the second value of ``correct``, or of ``wrong``, as the answer grows to ``limit`` tokens.

    ``exceeded``: the value of an answer that reached ``limit`` tokens without an end. The defaults are the paper's.
    """

    limit: int
    correct: tuple[float, float] = (2.0, 1.0)
    wrong: tuple[float, float] = (-10.0, 0.0)
    exceeded: float = -10.0

    def __post_init__(self) -> None:
        """Raises ValueError for values that are not finite, and a limit below 1."""
        if self.limit < 1:
            raise ValueError(f"limit={self.limit}: expected at least 1 token")
        if not all(isfinite(value) for value in (*self.correct, *self.wrong, self.exceeded)):
            raise ValueError("correct, wrong and exceeded: expected finite numbers")

    def rate(self, answer: Judged) -> float | None:
        """The reward, by what the task calls correct."""
        completion = answer.completion
        if completion.num_tokens >= self.limit and completion.finish_reason == "length":
            return self.exceeded
        first, last = self.correct if answer.is_correct else self.wrong
        share = min(1.0, completion.num_tokens / self.limit)
        return last + (first - last) * (1.0 + cos(pi * share)) / 2.0
