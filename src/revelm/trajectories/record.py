"""The record of one decoded response: ids, and when and how likely each token was revealed.

A trajectory is written once, as arrays, never through text. It holds enough to rebuild the exact model input of
every denoising step (``revelm.trajectories.replay``): the complete terminal block is kept, positions that were
never revealed included.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

SCHEMA_VERSION = 1
NEVER = -1
FinishReason = Literal["stop", "stop_string", "length"]


@dataclass(frozen=True)
class Event:
    """One reveal or edit: at ``step``, ``position`` (within the completion) became ``token``."""

    step: int
    position: int
    token: int
    logprob: float
    kind: Literal["reveal", "edit"] = "reveal"


@dataclass(frozen=True)
class Trajectory:
    """One response and the order it was revealed in. P prompt tokens, R completion tokens.

    ``completion_ids`` reaches the end of the terminal block; tokens up to and including the stop are the first
    ``stop_length``. ``step`` counts denoising steps over the response from 1, ``forward`` model calls since the
    request was admitted from 1; both are -1 where a position was never revealed (its id is then the mask id).
    ``logprob`` is log-softmax of (logits with banned ids at -inf) / temperature, before top-k and top-p; at
    temperature 0 it equals ``logprob_t1``, the same at temperature 1. ``is_filtered``: top-k or top-p was on.
    Full attention: the completion is the whole canvas, ``block_size`` the window it was decoded in, and windows are
    counted from the end of the prompt, which is ``grid_offset``.
    """

    prompt_ids: np.ndarray  # int32 [P]
    completion_ids: np.ndarray  # int32 [R]
    step: np.ndarray  # int32 [R]
    forward: np.ndarray  # int32 [R]
    logprob: np.ndarray  # float64 [R]
    logprob_t1: np.ndarray  # float64 [R]
    confidence: np.ndarray  # float64 [R]
    num_steps: int
    block_size: int
    grid_offset: int
    stop_length: int
    finish_reason: FinishReason
    rule: Mapping[str, Any]
    sampling: Mapping[str, Any]
    is_filtered: bool = False
    approximate_cache: bool = False
    weights_version: int = 0
    edits: tuple[Event, ...] = ()
    schema_version: int = SCHEMA_VERSION
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError when the arrays do not fit each other: such a record cannot be replayed."""
        size = len(self.completion_ids)
        for name, array in self.token_arrays().items():
            if array.shape != (size,):
                raise ValueError(f"trajectory.{name} has shape {array.shape}, completion_ids has ({size},)")
        if not 0 <= self.stop_length <= size:
            raise ValueError(f"trajectory.stop_length is {self.stop_length}, allowed 0..{size}")
        if self.block_size < 1:
            raise ValueError(f"trajectory.block_size is {self.block_size}, must be at least 1")

    def token_arrays(self) -> dict[str, np.ndarray]:
        """The arrays that have one entry per completion token, by field name."""
        return {
            "completion_ids": self.completion_ids,
            "step": self.step,
            "forward": self.forward,
            "logprob": self.logprob,
            "logprob_t1": self.logprob_t1,
            "confidence": self.confidence,
        }

    @property
    def num_forwards(self) -> int:
        """Model calls this request took part in that could reveal tokens."""
        return int(self.forward.max(initial=0))

    @property
    def num_tokens(self) -> int:
        """Response tokens up to and including the stop."""
        return self.stop_length

    @property
    def tokens_per_forward(self) -> float:
        """TPF of this response (0 when nothing was decoded)."""
        return self.num_tokens / self.num_forwards if self.num_forwards else 0.0

    @property
    def response_ids(self) -> np.ndarray:
        """Completion ids up to and including the stop. int32 [stop_length]"""
        return self.completion_ids[: self.stop_length]

    @property
    def events(self) -> tuple[Event, ...]:
        """Reveals and edits in order of step, then position; derived from the arrays when there were no edits."""
        reveals = [
            Event(int(s), i, int(t), float(p))
            for i, (s, t, p) in enumerate(zip(self.step, self.completion_ids, self.logprob, strict=True))
            if s != NEVER
        ]
        return tuple(sorted((*reveals, *self.edits), key=lambda e: (e.step, e.position)))
