"""The state of the running requests, as a struct of tensors with one row per slot.

Running slots are always the first ``count``: a finished slot is filled by the last one. ``canvas`` holds tokens at
absolute positions, ``hidden`` which of them are undecided (a flag, never "equals the mask id"). A slot decodes the
positions of its current window, from ``start`` on, and then those of the next.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from revelm.core.types import Family
from revelm.decoding.propose import Proposal, SamplingRows
from revelm.decoding.rule import Rule
from revelm.decoding.sampling import Sampling
from revelm.engine.request import Request
from revelm.trajectories.record import NEVER, FinishReason, Trajectory

RECORDED = ("logprob", "logprob_t1", "confidence")


@dataclass(frozen=True, eq=False)
class Undecided:
    """The hidden positions of the current windows of n slots: N in all, slot by slot, from left to right.

    ``hidden`` bool [n, W]; of each of the N: its ``slot``, ``offset`` in the window, absolute ``position``, int64 [N].
    """

    hidden: Tensor
    slot: Tensor
    offset: Tensor
    position: Tensor


class Slots:
    """Running requests, of at most ``capacity`` positions and windows of at most ``size``.

    Tensors are [S] per slot, [S, capacity + size] per position (a window may reach past its canvas; nothing is ever
    decided there), or [S, size] of the current window.
    """

    def __init__(self, family: Family, *, num_slots: int, capacity: int, size: int, device: torch.device) -> None:
        self.family, self.size, self.device = family, size, device
        self.num_slots, self.capacity = num_slots, capacity
        self.requests: list[Request] = []
        self.is_fresh: list[bool] = []
        self.rules: list[Rule] = []
        grid = (num_slots, capacity + size)
        integer = {"dtype": torch.int64, "device": device}
        self.position = {
            "canvas": torch.full(grid, family.pad_id, **integer),
            "hidden": torch.zeros(grid, dtype=torch.bool, device=device),
            "step": torch.full(grid, NEVER, **integer),
            "forward": torch.full(grid, NEVER, **integer),
            **{name: torch.zeros(grid, dtype=torch.float64, device=device) for name in RECORDED},
        }
        integers = ("start", "window", "length", "prompt_length", "limit", "steps", "forwards", "seed", "top_k", "rule")
        self.slot = {name: torch.zeros(num_slots, **integer) for name in integers}
        self.slot |= {name: torch.zeros(num_slots, dtype=torch.bool, device=device) for name in ("pending", "is_max")}
        self.slot |= {
            name: torch.ones(num_slots, dtype=torch.float64, device=device) for name in ("temperature", "top_p")
        }
        self.stops = torch.full((num_slots, 1), NEVER, **integer)
        self._sampling: SamplingRows | None = None
        self._offsets = torch.arange(size, device=device)

    @property
    def count(self) -> int:
        """Running requests."""
        return len(self.requests)

    def columns(self) -> Tensor:
        """Absolute positions of the current windows, int64 [n, W]; a slot's own ones lie before ``window_ends``."""
        return self.slot["start"][: self.count, None] + self._offsets

    def window_ends(self) -> Tensor:
        """One past the last position of the current windows, int64 [n].

        The last window of a canvas may reach past it; nothing is ever hidden there.
        """
        return self.slot["start"][: self.count] + self.slot["window"][: self.count]

    def ends(self) -> Tensor:
        """One past the last position that the current windows see, int64 [n]: the end of the canvas or of the block."""
        return self.slot["length"][: self.count] if self.family.attention == "full" else self.window_ends()

    def undecided(self) -> Undecided:
        """What the next step decides about."""
        columns = self.columns()
        hidden = self._hidden(columns)
        slot, offset = hidden.nonzero(as_tuple=True)
        return Undecided(hidden, slot, offset, columns[slot, offset])

    def _hidden(self, columns: Tensor) -> Tensor:
        return self.position["hidden"][: self.count].gather(1, columns) & (columns < self.window_ends()[:, None])

    def admit(self, request: Request) -> None:
        """Put a request into the next free slot."""
        slot, sampling, length = self.count, request.sampling, len(request.prompt_ids)
        for name, value in (("canvas", self.family.pad_id), ("hidden", False), ("step", NEVER), ("forward", NEVER)):
            self.position[name][slot] = value
        for name in RECORDED:
            self.position[name][slot] = 0.0
        self.position["canvas"][slot, :length] = torch.from_numpy(request.prompt_ids.astype(np.int64))
        self.position["hidden"][slot, length : request.length] = True
        values = {
            "start": request.start, "window": request.window, "length": request.length,
            "prompt_length": length, "limit": request.limit, "steps": 0, "forwards": 0,
            "seed": sampling.seed, "top_k": sampling.top_k, "top_p": sampling.top_p, "pending": False,
            "temperature": sampling.temperature, "is_max": sampling.confidence == "max",
            "rule": self._rule_index(sampling.rule),
        }  # fmt: skip
        for name, value in values.items():
            self.slot[name][slot] = value
        self._set_stops(slot, request.stop_ids)
        self.requests.append(request)
        self.is_fresh.append(True)
        self._sampling = None

    def _rule_index(self, rule: Rule) -> int:
        if rule not in self.rules:
            self.rules.append(rule)
        return self.rules.index(rule)

    def _set_stops(self, slot: int, stop_ids: tuple[int, ...]) -> None:
        missing = len(stop_ids) - self.stops.shape[1]
        if missing > 0:
            self.stops = torch.nn.functional.pad(self.stops, (0, missing), value=NEVER)
        self.stops[slot] = NEVER
        self.stops[slot, : len(stop_ids)] = torch.tensor(stop_ids, dtype=torch.int64, device=self.device)

    def sampling_rows(self) -> SamplingRows:
        """Sampling settings of the running slots."""
        if self._sampling is None:
            settings = [r.sampling for r in self.requests]
            n = self.count
            self._sampling = SamplingRows(
                temperature=self.slot["temperature"][:n],
                top_k=self.slot["top_k"][:n],
                top_p=self.slot["top_p"][:n],
                is_max=self.slot["is_max"][:n],
                banned_ids=self.family.banned_ids,
                is_plain=all(s.temperature == 1.0 for s in settings),
                is_filtered=any(s.is_filtered for s in settings),
            )
        return self._sampling

    def used_rules(self) -> list[int]:
        """Places in ``rules`` of the rules that running slots use."""
        return sorted(set(self.slot["rule"][: self.count].tolist())) if len(self.rules) > 1 else [0]

    def count_step(self) -> None:
        """A denoising forward has run: every running slot took part."""
        n = self.count
        self.is_fresh = [False] * n
        self.slot["pending"][:n] = False
        self.slot["steps"][:n] += 1
        self.slot["forwards"][:n] += 1

    def write(self, undecided: Undecided, chosen: Tensor, proposal: Proposal) -> None:
        """Commit the ``chosen`` [K] out of N ``undecided`` positions; record when and how likely. Proposals are [N]."""
        slot, position = undecided.slot[chosen], undecided.position[chosen]
        values = {
            "canvas": proposal.token[chosen],
            "hidden": torch.zeros_like(chosen, dtype=torch.bool),
            "step": self.slot["steps"][slot],
            "forward": self.slot["forwards"][slot],
            **{name: vars(proposal)[name][chosen].double() for name in RECORDED},
        }
        for name, value in values.items():
            self.position[name][slot, position] = value

    def decided(self) -> Tensor:
        """One past the last position decided without a gap, counted from the current window, int64 [n]."""
        columns = self.columns()
        ends = self.window_ends()[:, None]
        return torch.where(self._hidden(columns), columns, ends).amin(1)

    def stop_positions(self, decided: Tensor) -> Tensor:
        """One past the stop token where one is in the current window, before ``decided`` [n], else -1. int64 [n]"""
        n, columns = self.count, self.columns()
        tokens = self.position["canvas"][:n].gather(1, columns)
        is_stop = (tokens[:, :, None] == self.stops[:n, None, :]).any(-1)
        is_stop &= columns >= self.slot["prompt_length"][:n, None]
        is_stop &= columns < torch.minimum(decided, self.slot["limit"][:n])[:, None]
        return torch.where(is_stop.any(1), columns[:, 0] + is_stop.int().argmax(1) + 1, NEVER)

    def advance(self, finished: Tensor) -> None:
        """Go to the next window of every slot in ``finished`` bool [n]; the finished one awaits its commit."""
        n = self.count
        self.slot["pending"][:n] = finished
        self.slot["start"][:n] += finished * self.slot["window"][:n]

    def harvest(self, slot: int, end: int, reason: FinishReason, version: int) -> Trajectory:
        """The record of a finished slot whose response ends at absolute position ``end``."""
        request = self.requests[slot]
        length = len(request.prompt_ids)
        terminal = int(self.ends()[slot])
        arrays = {k: v[slot, length:terminal].cpu().numpy() for k, v in self.position.items()}
        ids = np.where(arrays["hidden"], self.family.mask_id, arrays["canvas"]).astype(np.int32)
        sampling = request.sampling
        return Trajectory(
            prompt_ids=request.prompt_ids,
            completion_ids=ids,
            step=arrays["step"].astype(np.int32),
            forward=arrays["forward"].astype(np.int32),
            **{name: arrays[name].copy() for name in RECORDED},
            num_steps=int(self.slot["steps"][slot]),
            block_size=request.window,
            grid_offset=request.grid_offset,
            stop_length=end - length,
            finish_reason=reason,
            rule=describe_rule(sampling.rule),
            sampling=describe_sampling(sampling),
            is_filtered=sampling.is_filtered,
            weights_version=version,
        )

    def release(self, slot: int) -> int | None:
        """Free a slot by moving the last running one into it; returns which slot moved, if any."""
        last = self.count - 1
        moved = last if slot != last else None
        if moved is not None:
            for table in (*self.position.values(), *self.slot.values(), self.stops):
                table[slot] = table[last]
            self.requests[slot], self.is_fresh[slot] = self.requests[last], self.is_fresh[last]
        self.requests.pop()
        self.is_fresh.pop()
        self._sampling = None
        return moved


def describe_rule(rule: Rule) -> Mapping[str, Any]:
    """A rule as plain data: its kind and its fields."""
    return {"kind": type(rule).__name__.lower(), **asdict(rule)}  # type: ignore[call-overload]


def describe_sampling(sampling: Sampling) -> Mapping[str, Any]:
    """Sampling settings as plain data (the rule is recorded apart)."""
    return {k: v for k, v in vars(sampling).items() if k != "rule"}
