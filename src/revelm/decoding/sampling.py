"""How one request wants to be decoded."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from numbers import Real
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor

from revelm.core.validation import rename_aliases, unknown_field
from revelm.decoding.dynamic import Dynamic
from revelm.decoding.propose import CONFIDENCES, Confidence, SamplingRows
from revelm.decoding.rule import Rule

MIN_TEMPERATURE = 1e-3
"""Log-probabilities are divided by the temperature. Below this the rounding of fp32, 1e-6 for the likeliest token of a
large vocabulary, would grow to more than 1e-3 in what is recorded, and in the end nothing would be finite."""
TEMPERATURES = f"0 (greedy) or a finite number of at least {MIN_TEMPERATURE}"


@dataclass(frozen=True)
class Sampling:
    """Settings of one request.

    ``temperature`` 0 is greedy; any other is at least ``MIN_TEMPERATURE``. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 are
    off. ``min_p`` drops ids less likely than so many times the most likely one. ``repetition_penalty`` (1: off): the
    logits of ids in the prompt or the decided response are divided by it if positive, else multiplied. ``banned_ids``
    are never drawn, beside the family's. ``guidance`` w (0: off): classifier-free, logits c + w (c - u) with u those
    without the prompt. All of these change what is drawn, never the log-probability that is recorded.
    ``confidence``: what the rule ranks by (``ranked_by`` where the rule has its own), of the unfiltered distribution at
    the request's temperature: the probability of the sampled "token", the "max"imum probability, its "margin" over the
    second, or minus the entropy, "neg_entropy".
    ``stop_ids`` are in addition to the family's unless ``ignore_eos``; ``stop_strings`` need a tokenizer.
    ``max_new_tokens`` None: 256, or as many as the model has room for behind the prompt.
    ``block_size``: full-attention models decode windows of so many positions one after another, or the whole answer as
    one (None); block models have their own size, and nothing else is allowed. ``seed``, 64 bits, fixes every draw of
    the request, whatever else runs beside it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    banned_ids: tuple[int, ...] = ()
    guidance: float = 0.0
    rule: Rule = field(default_factory=Dynamic)
    confidence: Confidence = "token"
    max_new_tokens: int | None = None
    block_size: int | None = None
    stop_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    ignore_eos: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Numbers of numpy or torch become Python's and lists tuples, as records are written from the fields.

        ValueError names the first field that is of another kind or out of range.
        """
        for name, (convert, is_allowed, allowed) in _FIELDS.items():
            value = vars(self)[name]
            try:
                converted = convert(value)
            except (TypeError, OverflowError):
                raise ValueError(f"sampling.{name} is {value!r}, must be {allowed}") from None
            if not is_allowed(converted):
                raise ValueError(f"sampling.{name} is {value!r}, must be {allowed}")
            if converted is not value:
                object.__setattr__(self, name, converted)
        if self.rule.is_thresholded and self.ranked_by == "neg_entropy":
            raise ValueError(
                f"sampling.confidence is 'neg_entropy', but sampling.rule {self.rule.kind!r} compares it with a "
                "probability; must be 'token', 'max' or 'margin', or another rule"
            )

    @classmethod
    def of(cls, **words: Any) -> "Sampling":
        """Settings in the field's words: ``max_tokens``, ``stop``, ``cfg_scale`` and whatever else recipes understand.

        ValueError for a word that nobody knows, with the nearest known one.
        """
        known = [f.name for f in fields(cls)]
        values = rename_aliases(words, known, "sampling")
        for name in values:
            if name not in known:
                raise ValueError(unknown_field(f"sampling.{name}", known))
        return cls(**values)

    @property
    def ranked_by(self) -> Confidence:
        """The kind of confidence in use: the rule's own if it has one, else ``confidence``."""
        return self.rule.ranks_by or self.confidence

    @property
    def is_filtered(self) -> bool:
        """Whether tokens are drawn from another distribution than the one whose log-probabilities are recorded."""
        is_cut = self.temperature > 0 and (self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0)
        is_moved = self.repetition_penalty != 1.0 or len(self.banned_ids) > 0 or self.guidance > 0.0
        return is_cut or is_moved or self.rule.is_reshaping

    @property
    def is_deterministic(self) -> bool:
        """Whether the answer is the same whatever the seed."""
        return self.temperature == 0 and not self.rule.is_random


def sampling_rows(
    settings: Sequence[Sampling], family_banned_ids: tuple[int, ...], device: torch.device | str, *, vocab_size: int
) -> SamplingRows:
    """The settings of S requests for ``draw``, on ``device``. ValueError when a request bans every id there is."""

    def real(values: Iterable[float]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float64, device=device)

    def integer(values: Iterable[int]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.int64, device=device)

    has_bans = any(s.banned_ids for s in settings)
    return SamplingRows(
        temperature=real(s.temperature for s in settings),
        top_k=integer(s.top_k for s in settings),
        top_p=real(s.top_p for s in settings),
        min_p=real(s.min_p for s in settings),
        repetition_penalty=real(s.repetition_penalty for s in settings),
        guidance=real(s.guidance for s in settings),
        confidence=integer(CONFIDENCES.index(s.ranked_by) for s in settings),
        banned_ids=family_banned_ids,
        uses=frozenset[str]().union(*(_uses(s) for s in settings)),
        banned=_banned(settings, family_banned_ids, vocab_size).to(device) if has_bans else None,
    )


def _uses(sampling: Sampling) -> set[str]:
    """What a request needs of ``draw``."""
    is_sampled = sampling.temperature > 0
    needed = {
        "greedy": not is_sampled,
        "sampled": is_sampled,
        "tempered": sampling.temperature not in (0.0, 1.0),
        "nucleus": is_sampled and (sampling.top_k > 0 or sampling.top_p < 1.0),
        "min_p": is_sampled and sampling.min_p > 0.0,
        "repetition_penalty": sampling.repetition_penalty != 1.0,
        "guidance": sampling.guidance > 0.0,
        "filtered": sampling.is_filtered,
    }
    return {name for name, is_needed in needed.items() if is_needed} | {sampling.ranked_by}


def _banned(settings: Sequence[Sampling], family_banned_ids: tuple[int, ...], vocab_size: int) -> Tensor:
    """Which ids each request bans itself, bool [S, V]."""
    banned = torch.zeros(len(settings), vocab_size, dtype=torch.bool)
    for row, sampling in zip(banned, settings, strict=True):
        row[list(sampling.banned_ids)] = True
        if len({*sampling.banned_ids, *family_banned_ids}) >= vocab_size:
            raise ValueError(f"sampling.banned_ids leaves none of the model's {vocab_size} tokens; leave at least one")
    return banned


def _is_temperature(value: float) -> bool:
    return value == 0.0 or MIN_TEMPERATURE <= value < math.inf


def _is_rule(value: Any) -> bool:
    """Requests are grouped by their rules and records list a rule's fields: it must be hashable and have some."""
    if not (isinstance(value, Rule) and is_dataclass(value)):
        return False
    return bool(value.__dataclass_params__.frozen)


def _is_count(value: int | None) -> bool:
    return value is None or value >= 1


def _are_texts(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, str) and value for value in values)


def _are_ids(values: tuple[int, ...]) -> bool:
    return min(values, default=0) >= 0


def _scalar(value: Any) -> Any:
    """A number of numpy or torch as the Python number it holds; anything else as it is."""
    return value.item() if isinstance(value, np.generic | np.ndarray | Tensor) and value.ndim == 0 else value


def _integer(value: Any) -> int:
    """TypeError for all but integers; True is none."""
    if type(value) is int:
        return value
    number = _scalar(value)
    if isinstance(number, bool | np.ndarray | Tensor):
        raise TypeError
    return index(number)


def _integer_or_none(value: Any) -> int | None:
    return None if value is None else _integer(value)


def _real(value: Any) -> float:
    """TypeError for all but real numbers; True and "1" are none."""
    if type(value) is float:
        return value
    number = _scalar(value)
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError
    return float(number)


def _flag(value: Any) -> bool:
    """TypeError for all but True and False."""
    flag = _scalar(value)
    if not isinstance(flag, bool):
        raise TypeError
    return flag


def _tuple(values: Any) -> tuple[Any, ...]:
    """TypeError for all but tuples and lists: a string would be read letter by letter."""
    if not isinstance(values, tuple | list):
        raise TypeError
    return tuple(values)


def _integers(values: Any) -> tuple[int, ...]:
    entries = _tuple(values)
    return entries if all(type(entry) is int for entry in entries) else tuple(map(_integer, entries))


def _same(value: Any) -> Any:
    return value


_FIELDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], bool], str]] = {
    "temperature": (_real, _is_temperature, TEMPERATURES),
    "top_k": (_integer, lambda k: k >= 0, "an integer of at least 0 (0: off)"),
    "top_p": (_real, lambda p: 0.0 < p <= 1.0, "a number in (0, 1] (1: off)"),
    "min_p": (_real, lambda p: 0.0 <= p <= 1.0, "a number in [0, 1] (0: off)"),
    "repetition_penalty": (_real, lambda r: 0.0 < r < math.inf, "a number, finite and above 0 (1: off)"),
    "banned_ids": (_integers, _are_ids, "a tuple of token ids"),
    "guidance": (_real, lambda w: 0.0 <= w < math.inf, "a number, finite and at least 0 (0: off)"),
    "max_new_tokens": (_integer_or_none, _is_count, "an integer of at least 1, or None (256, or as many as fit)"),
    "block_size": (_integer_or_none, _is_count, "an integer of at least 1, or None"),
    "rule": (_same, _is_rule, "a frozen dataclass derived from Rule, such as Dynamic() or Static()"),
    "stop_ids": (_integers, _are_ids, "a tuple of token ids"),
    "stop_strings": (_tuple, _are_texts, "a tuple of strings, none of them empty"),
    "ignore_eos": (_flag, lambda _: True, "True or False"),
    "seed": (_integer, lambda seed: -(2**63) <= seed < 2**63, "an integer of 64 bits"),
    "confidence": (_same, CONFIDENCES.__contains__, f"one of {', '.join(map(repr, CONFIDENCES))}"),
}
"""Of every field: what makes it a plain Python value (TypeError: it is of another kind), its range, and both in words.
"""
