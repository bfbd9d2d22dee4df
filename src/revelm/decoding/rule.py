"""What a decode rule is: propose a token for every position, then select the positions to reveal.

A rule is a frozen dataclass whose fields are its settings. Its methods are pure and vectorised over [S, B]: S
sequences, B positions of each sequence's current block or window. The engine intersects the selection with what is
still hidden, reveals the most confident position where a selection is empty, and never lets the mask id be proposed.
"""

import re
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from revelm.decoding.propose import Confidence, Proposal, SamplingRows, draw, guided


class Rule(ABC):
    """Base of all rules; subclasses say which positions to reveal.

    ``is_editing``: ``revise`` may change decided tokens, for at most ``max_post_steps`` steps after a window's last
    reveal. ``ranks_by``: the one kind of confidence the rule makes sense with; it overrides the request's.
    ``is_thresholded``: confidences are compared with a probability, so they must be one themselves. ``is_reshaping``:
    tokens are drawn from another distribution than the recorded one. ``is_random``: what is proposed depends on
    ``uniform`` at temperature 0 as well.
    """

    is_editing: ClassVar[bool] = False
    ranks_by: ClassVar[Confidence | None] = None
    is_thresholded: ClassVar[bool] = False
    is_reshaping: ClassVar[bool] = False
    is_random: ClassVar[bool] = False
    max_post_steps: int = 0

    @property
    def kind(self) -> str:
        """The name of the class as recipes and records write it: ``EntropyBounded`` is ``entropy_bounded``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def propose(
        self,
        logits: Tensor,
        uniform: Tensor,
        sampling: SamplingRows,
        memory: Tensor | None = None,
        *,
        against: Tensor | None = None,
    ) -> Proposal:
        """A token for every position by inverse CDF of ``logits`` [S, B, V] at ``uniform`` [S, B].

        ``memory`` float32 [S, B, M]: what the rule kept at the last step of this window, zeros at its first; None for
        rules without. ``against`` [S, B, V]: logits without the prompt, for classifier-free guidance; None: off.
        """
        del memory
        return draw(logits, uniform, sampling, ranked=None if against is None else guided(logits, against, sampling))

    @abstractmethod
    def select(self, confidence: Tensor, hidden: Tensor, step: Tensor) -> Tensor:
        """Positions to reveal now, bool [S, B].

        ``confidence`` [S, B] ranks the proposals (0 where decided), ``hidden`` [S, B] marks what is still undecided,
        ``step`` int64 [S] counts the denoising steps of the response from 1. B is the widest window of the batch: a
        row may end in positions that are not its own, never hidden, so B itself must not matter.
        """

    def revise(self, confidence: Tensor, differs: Tensor, step: Tensor) -> Tensor:
        """Decided positions that take their proposal instead of the token they have, bool [S, B]; none by default.

        ``differs`` bool [S, B]: an editable position whose proposal is another token; False at hidden, prompt and given
        positions and at those that are not the row's own. ``confidence`` [S, B] and ``step`` [S] as in ``select``.
        """
        del confidence, step
        return torch.zeros_like(differs)

    def memory_size(self, vocab_size: int) -> int:
        """Numbers that the rule keeps per position between the steps of a window; 0: none."""
        del vocab_size
        return 0


def places(confidence: Tensor, hidden: Tensor) -> Tensor:
    """The place of each position, from 0, when hidden ones stand first by falling confidence, ties from left to right.

    int64 [S, B]
    """
    ranked = confidence.masked_fill(~hidden, -float("inf")).argsort(dim=-1, descending=True, stable=True)
    return ranked.argsort(dim=-1)


def most_confident(confidence: Tensor, hidden: Tensor, count: int) -> Tensor:
    """The ``count`` most confident hidden positions of every row (all of them if fewer); ties go left. bool [S, B]"""
    return (places(confidence, hidden) < count) & hidden


def above_or_best(confidence: Tensor, hidden: Tensor, threshold: float) -> Tensor:
    """Hidden positions of confidence above ``threshold``; the most confident hidden one when there is none. [S, B]"""
    passing = (confidence > threshold) & hidden
    return passing | (most_confident(confidence, hidden, 1) & ~passing.any(dim=-1, keepdim=True))


def check_probability(name: str, value: float) -> None:
    """ValueError unless the rule's field ``name`` is in 0..1."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"rule.{name} is {value}, allowed 0..1")


def check_count(name: str, value: int, *, least: int = 1) -> None:
    """ValueError unless the rule's field ``name`` is at least ``least``."""
    if value < least:
        raise ValueError(f"rule.{name} is {value}, must be at least {least}")
