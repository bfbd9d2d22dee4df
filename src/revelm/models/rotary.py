"""Rotary position embedding (Su et al. 2021), halves convention, with the usual stretchings for long contexts.

Angles come from absolute positions. Frequencies are computed anew in each forward: a buffer would be rounded to
bfloat16 with the weights. Angles, and the rotation itself, compute in max(fp32, dtype).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

KINDS = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True)
class Rope:
    """``dim`` of a head's dimensions are rotated, the others pass. The rest are the fields of config.json's scaling.

    ``kind``: "default"; "linear" (Chen et al. 2023); "llama3" (Llama 3.1); "yarn" (Peng et al. 2023, arXiv 2309.00071).
    """

    dim: int
    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    original_max_position_embeddings: int = 8192

    def frequencies(self, device: torch.device) -> Tensor:
        """Angle per position of each rotated pair, float64 [dim / 2]."""
        exponent = torch.arange(0, self.dim, 2, dtype=torch.float64, device=device) / self.dim
        plain = self.theta**-exponent
        if self.kind == "linear":
            return plain / self.factor
        if self.kind == "llama3":
            return self._llama3(plain)
        return self._yarn(plain) if self.kind == "yarn" else plain

    @property
    def amplitude(self) -> float:
        """What cos and sin are multiplied by (YaRN's attention factor, else 1)."""
        if self.kind != "yarn":
            return 1.0
        return self.attention_factor or (0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0)

    def _llama3(self, plain: Tensor) -> Tensor:
        """Slow pairs are stretched by ``factor``, fast ones kept, those in between blended linearly."""
        turns = self.original_max_position_embeddings * plain / (2 * math.pi)
        blend = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        blend = blend.clamp(0, 1)
        return plain * blend + plain / self.factor * (1 - blend)

    def _yarn(self, plain: Tensor) -> Tensor:
        """Pairs that turn more than ``beta_fast`` times keep their pace, less than ``beta_slow`` are stretched."""
        low, high = (self._pair_of(self.beta_fast), self._pair_of(self.beta_slow))
        low, high = max(math.floor(low), 0), min(math.ceil(high), self.dim - 1)
        place = torch.arange(len(plain), dtype=torch.float64, device=plain.device)
        stretched = ((place - low) / max(high - low, 0.001)).clamp(0, 1)
        return plain / self.factor * stretched + plain * (1 - stretched)

    def _pair_of(self, turns: float) -> float:
        """Index of the pair that turns ``turns`` times within the original context."""
        wanted = self.original_max_position_embeddings / (turns * 2 * math.pi)
        return self.dim * math.log(wanted) / (2 * math.log(self.theta))


def rope_of(config: Mapping[str, Any], head_dim: int) -> Rope:
    """Rotary settings of a config.json, from either place that releases of transformers write them to.

    ValueError for a kind of scaling that is not implemented.
    """
    new, old = config.get("rope_parameters") or {}, config.get("rope_scaling") or {}
    scaling = {**old, **new}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in KINDS:
        raise ValueError(f"config.json: rope_scaling has the type {kind!r}, allowed: {', '.join(KINDS)}")
    if kind == "yarn":
        _check_yarn(scaling)
    partial = config.get("partial_rotary_factor", scaling.get("partial_rotary_factor"))
    known = {name for name in Rope.__dataclass_fields__ if name not in ("dim", "theta", "kind")}
    settings = {name: value for name, value in scaling.items() if name in known and value is not None}
    settings.setdefault("original_max_position_embeddings", config.get("max_position_embeddings", 8192))
    return Rope(
        dim=int(head_dim * (1.0 if partial is None else partial)),
        theta=float(config.get("rope_theta") or scaling.get("rope_theta") or 10_000.0),
        kind=kind,
        **settings,
    )


def _check_yarn(scaling: Mapping[str, Any]) -> None:
    """ValueError for variants of YaRN that would give other angles than these."""
    for name in ("mscale", "mscale_all_dim"):
        if scaling.get(name):
            raise ValueError(f"config.json: rope_scaling.{name} is not supported; only plain YaRN is")
    if not scaling.get("truncate", True):
        raise ValueError("config.json: rope_scaling.truncate is False, which is not supported; only plain YaRN is")
    if scaling.get("factor") is None:
        raise ValueError("config.json: rope_scaling.factor is missing; YaRN needs it")


class Rotary(nn.Module):
    """cos and sin of positions. Holds no tensors."""

    def __init__(self, rope: Rope) -> None:
        super().__init__()
        self.rope = rope

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin [R, L, 1, dim] in max(fp32, ``dtype``), for ``positions`` [R, L]."""
        wide = torch.promote_types(dtype, torch.float32)
        angle = positions[..., None].to(wide) * self.rope.frequencies(positions.device).to(wide)
        angle = torch.cat((angle, angle), dim=-1)[..., None, :]
        return angle.cos() * self.rope.amplitude, angle.sin() * self.rope.amplitude


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first ``cos.shape[-1]`` dimensions of ``x`` [R, L, H, D]; the result has the dtype of ``x``."""
    dim = cos.shape[-1]
    turned, kept = (x, None) if dim == x.shape[-1] else (x[..., :dim], x[..., dim:])
    wide = turned.to(cos.dtype)
    first, second = wide.chunk(2, dim=-1)
    out = (wide * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)
    return out if kept is None else torch.cat((out, kept), dim=-1)
