"""How one request wants to be decoded."""

from dataclasses import dataclass, field
from typing import Literal

from revelm.decoding.dynamic import Dynamic
from revelm.decoding.rule import Rule

Confidence = Literal["token", "max"]


@dataclass(frozen=True)
class Sampling:
    """Settings of one request.

    ``temperature`` 0 is greedy. ``top_k`` 0 and ``top_p`` 1 are off. ``confidence``: what the rule ranks by, the
    probability of the sampled "token" or the "max"imum probability, both of the unfiltered distribution at the
    request's temperature. ``stop_ids`` are in addition to the family's unless ``ignore_eos``; ``stop_strings`` need a
    tokenizer. ``seed`` fixes every draw of the request, whatever else runs beside it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    rule: Rule = field(default_factory=Dynamic)
    confidence: Confidence = "token"
    max_new_tokens: int = 256
    stop_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    ignore_eos: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """ValueError names the first field that is out of range."""
        checks = (
            ("temperature", self.temperature, self.temperature >= 0.0, "at least 0"),
            ("top_k", self.top_k, self.top_k >= 0, "at least 0 (0: off)"),
            ("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "in (0, 1] (1: off)"),
            ("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "at least 1"),
            ("confidence", self.confidence, self.confidence in ("token", "max"), "'token' or 'max'"),
        )
        for name, value, is_valid, allowed in checks:
            if not is_valid:
                raise ValueError(f"sampling.{name} is {value!r}, must be {allowed}")

    @property
    def is_filtered(self) -> bool:
        """Whether tokens are drawn from a truncated distribution."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1.0)
