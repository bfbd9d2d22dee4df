"""Shifted networks made aligned: which row of a forward speaks about which token.

A shifted network, descended from an autoregressive one, says at row i what token i + 1 is (Dream, arXiv 2508.15487,
section 3; Fast-dLLM v2, arXiv 2509.26328). Features are moved to the token they are about before the head runs, so
that everywhere else ``logits[i]`` is about token i.
"""

import torch
from torch import Tensor

from revelm.masks.visibility import CLEAN, Pattern


def predecessors(positions: Tensor, pattern: Pattern) -> Tensor:
    """For every row, the place in its line of the row that speaks about it, int64 [R, L].

    That is the row one position before, of the same sequence, in the own stream and block; for the first position of a
    hidden block it is the clean row there, and for a clean row the clean row there. A row without one (position 0, or
    a clean predecessor that was left out) keeps its own.
    """
    stream, sequence = pattern.stream, pattern.sequence
    place = torch.arange(positions.shape[1], device=positions.device).expand_as(positions)
    before = (place - 1).clamp(min=0)
    labels = (stream, sequence, pattern.block)
    is_same = [label.gather(1, before) == label for label in labels]
    is_next = (positions.gather(1, before) == positions - 1) & (place > 0)
    own = is_same[0] & is_same[1] & is_next & (is_same[2] | (stream == CLEAN))
    return torch.where(own, before, _clean_before(positions, pattern, place))


def _clean_before(positions: Tensor, pattern: Pattern, place: Tensor) -> Tensor:
    """The place of the clean row at position - 1 of the same sequence; the own place where there is none."""
    sequence = pattern.sequence - pattern.sequence.min()
    width = int(positions.max()) + 2
    table = torch.full((len(positions), (int(sequence.max()) + 1) * width), -1, device=positions.device)
    key = sequence * width + positions + 1
    is_clean = pattern.stream == CLEAN
    target = torch.where(is_clean, key, sequence * width)
    table.scatter_(1, target, torch.where(is_clean, place, -1))
    found = table.gather(1, key - 1)
    return torch.where(found >= 0, found, place)
