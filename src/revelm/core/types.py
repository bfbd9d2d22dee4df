"""The nouns that two or more folders exchange. Plain frozen data, no torch.

Vocabulary: a Problem is asked, a Completion answers it, a Score judges the answer. A Family holds the static
facts of a model kind, read from its checkpoint and declared in ``revelm.models``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Attention = Literal["full", "block", "causal"]
ABSENT = -1
COLUMNS = "columns"
"""In ``Problem.info``: the fields of the row that the problem was made of, by their own names, for reward functions."""


@dataclass(frozen=True)
class Family:
    """Static facts of one loaded model kind.

    ``attention``: "block" (block-causal, ``block_size`` set), "full" (bidirectional) or "causal" (autoregressive: a
    source for conversion). ``is_shifted``: the network's row i predicts token i + 1; the model maps this away,
    ``logits[i]`` is for token i. ``mask_id`` is ``ABSENT`` for autoregressive models that have no mask token.
    ``max_length``: the largest number of positions one sequence may have.
    """

    name: str
    attention: Attention
    is_shifted: bool
    block_size: int | None
    mask_id: int
    pad_id: int
    stop_ids: tuple[int, ...]
    vocab_size: int
    max_length: int

    @property
    def banned_ids(self) -> tuple[int, ...]:
        """Ids that are never a valid prediction; their logits count as -inf in engine and trainer alike."""
        return () if self.mask_id == ABSENT else (self.mask_id,)


def require_diffusion(family: Family) -> None:
    """ValueError for a family that cannot fill in hidden tokens, because it only ever sees what lies to the left."""
    if family.attention == "causal":
        raise ValueError(f"{family.name} is autoregressive; turn it into a diffusion model with `revelm convert`")


@dataclass(frozen=True)
class Problem:
    """One question with its reference answer; ``info`` holds whatever the task needs for judging and grouping."""

    id: str
    question: str
    reference: str
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Completion:
    """An answer as text. ``offsets[i]`` is the character at which token i ends in ``text`` (empty if not known)."""

    text: str
    num_tokens: int
    num_forwards: int
    finish_reason: str
    offsets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Score:
    """A verdict. ``breakdown`` always has "correct" in {0.0, 1.0}; ``scope`` says what ``value`` is about.

    ``reason``: why, in one short line for people. A verdict that could not be reached (a judge that hung, a sandbox
    that broke) has value 0.0, ``breakdown["error"] = 1.0`` and a reason that begins with "error".
    """

    value: float
    breakdown: Mapping[str, float]
    scope: Literal["outcome", "step", "token"] = "outcome"
    reason: str = ""


@dataclass(frozen=True)
class Demonstration:
    """A chat that ends with an assistant turn, and how it came about (e.g. "worked" or "habit")."""

    messages: tuple[Mapping[str, str], ...]
    kind: str
