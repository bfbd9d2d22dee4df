"""How one request wants to be decoded."""

import math
from dataclasses import dataclass, field
from typing import Literal

from revelm.decoding.dynamic import Dynamic
from revelm.decoding.rule import Rule

Confidence = Literal["token", "max"]
MIN_TEMPERATURE = 1e-3
"""Log-probabilities are divided by the temperature. Below this the rounding of fp32, 1e-6 for the likeliest token of a
large vocabulary, would grow to more than 1e-3 in what is recorded, and in the end nothing would be finite."""
TEMPERATURES = f"0 (greedy) or a finite number of at least {MIN_TEMPERATURE}"


@dataclass(frozen=True)
class Sampling:
    """Settings of one request.

    ``temperature`` 0 is greedy; any other is at least ``MIN_TEMPERATURE``. ``top_k`` 0 and ``top_p`` 1 are off.
    ``confidence``: what the rule ranks by, the probability of the sampled "token" or the "max"imum probability, both of
    the unfiltered distribution at the request's temperature. ``stop_ids`` are in addition to the family's unless
    ``ignore_eos``; ``stop_strings`` need a tokenizer. ``max_new_tokens`` None: 256, or as many as the model has room
    for behind the prompt.
    ``block_size``: full-attention models decode windows of so many positions one after another, or the whole answer as
    one (None); block models have their own size, and nothing else is allowed. ``seed``, 64 bits, fixes every draw of
    the request, whatever else runs beside it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    rule: Rule = field(default_factory=Dynamic)
    confidence: Confidence = "token"
    max_new_tokens: int | None = None
    block_size: int | None = None
    stop_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    ignore_eos: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """ValueError names the first field that is out of range."""
        checks = (
            ("temperature", self.temperature, _is_temperature(self.temperature), TEMPERATURES),
            ("top_k", self.top_k, self.top_k >= 0, "at least 0 (0: off)"),
            ("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "in (0, 1] (1: off)"),
            ("max_new_tokens", self.max_new_tokens, _is_count(self.max_new_tokens), "an integer of at least 1"),
            ("block_size", self.block_size, _is_count(self.block_size), "an integer of at least 1, or None"),
            ("rule", self.rule, isinstance(self.rule, Rule), "a rule, such as Dynamic() or Static()"),
            (
                "stop_strings",
                self.stop_strings,
                _are_texts(self.stop_strings),
                "a tuple of strings, none of them empty",
            ),
            ("seed", self.seed, -(2**63) <= self.seed < 2**63, "an integer of 64 bits"),
            ("confidence", self.confidence, self.confidence in ("token", "max"), "'token' or 'max'"),
        )
        for name, value, is_valid, allowed in checks:
            if not is_valid:
                raise ValueError(f"sampling.{name} is {value!r}, must be {allowed}")

    @property
    def is_filtered(self) -> bool:
        """Whether tokens are drawn from a truncated distribution."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1.0)


def _is_temperature(value: float) -> bool:
    return value == 0.0 or MIN_TEMPERATURE <= value < math.inf


def _is_count(value: int | None) -> bool:
    return value is None or (isinstance(value, int) and value >= 1)


def _are_texts(values: tuple[str, ...]) -> bool:
    return not isinstance(values, str) and all(isinstance(value, str) and value for value in values)
