"""What a decode rule is: propose a token for every position, then select the positions to reveal.

A rule is a frozen dataclass whose fields are its settings. Its methods are pure and vectorised over [S, B]: S
sequences, B positions of each sequence's current block or window. The engine intersects the selection with what is
still hidden, reveals the most confident position where a selection is empty, and never lets the mask id be proposed.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from revelm.decoding.propose import Proposal, SamplingRows, draw


class Rule(ABC):
    """Base of all rules; subclasses say which positions to reveal."""

    def propose(self, logits: Tensor, uniform: Tensor, sampling: SamplingRows) -> Proposal:
        """A token for every position by inverse CDF of ``logits`` [S, B, V] at ``uniform`` [S, B]."""
        return draw(logits, uniform, sampling)

    @abstractmethod
    def select(self, confidence: Tensor, hidden: Tensor, step: Tensor) -> Tensor:
        """Positions to reveal now, bool [S, B].

        ``confidence`` [S, B] ranks the proposals (0 where decided), ``hidden`` [S, B] marks what is still undecided,
        ``step`` int64 [S] counts the denoising steps of the response from 1. B is the widest window of the batch: a
        row may end in positions that are not its own, never hidden, so B itself must not matter.
        """


def most_confident(confidence: Tensor, hidden: Tensor, count: int) -> Tensor:
    """The ``count`` most confident hidden positions of every row (all of them if fewer); ties go left. bool [S, B]"""
    ranked = confidence.masked_fill(~hidden, -float("inf")).argsort(dim=-1, descending=True, stable=True)
    place = ranked.argsort(dim=-1)
    return (place < count) & hidden
