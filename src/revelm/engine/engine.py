"""The slot engine: continuous batching of block-diffusion requests over one cached model.

Each forward denoises the current block of every running request; finished blocks are committed inside the next
forward (fused commit) and prompts are prefilled inside the first. Text never decides anything but stop strings.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor

from revelm.core.grid import padded_length
from revelm.decoding.propose import Proposal
from revelm.decoding.rule import most_confident
from revelm.decoding.sampling import Sampling
from revelm.decoding.uniform import uniform
from revelm.engine.kv_cache import KVCache
from revelm.engine.prompts import Prompt, make_requests
from revelm.engine.request import Request
from revelm.engine.rows import Rows, commit_rows, decode_rows
from revelm.engine.slots import Slots
from revelm.engine.stop_strings import stop_string_end
from revelm.models.language_model import LanguageModel
from revelm.trajectories.record import FinishReason, Trajectory


@dataclass
class EngineStats:
    """What an engine has done since it was made (or since ``reset``): counts, and seconds by part."""

    forwards: int = 0
    commit_forwards: int = 0
    rows: int = 0
    tokens: int = 0
    seconds_body: float = 0.0
    seconds_head: float = 0.0
    seconds_sampler: float = 0.0
    seconds_total: float = 0.0


class Engine:
    """Decodes many requests with one model; the model is shared, never copied.

    ``num_slots``: requests that run at once. ``commit``: "fused" (in the next denoising forward) or "separate" (a
    forward of its own; the baseline). ``weights_version`` is recorded with every trajectory; whoever updates the
    weights counts it up. Raises ValueError for models that are not decoded block by block.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Any | None = None,
        *,
        num_slots: int = 64,
        commit: Literal["fused", "separate"] = "fused",
    ) -> None:
        if model.family.attention != "block":
            kind = f"{model.family.name} has {model.family.attention} attention"
            raise ValueError(f"engine: {kind}; only block runs here")
        if num_slots < 1:
            raise ValueError(f"engine.num_slots is {num_slots}, must be at least 1")
        if commit not in ("fused", "separate"):
            raise ValueError(f"engine.commit is {commit!r}, allowed: 'fused', 'separate'")
        self.model, self.tokenizer, self.num_slots, self.commit = model, tokenizer, num_slots, commit
        self.weights_version = 0
        self.stats = EngineStats()

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling | Sequence[Sampling] | None = None,
        *,
        on_finish: Callable[[int, Trajectory], None] | None = None,
    ) -> list[Trajectory]:
        """Decode every prompt; trajectories in the order of ``prompts``.

        Prompts are ids, strings or messages (the latter two need a tokenizer). All are checked before the first
        forward. ``on_finish(index, trajectory)`` is called as each request ends.
        """
        settings = Sampling() if sampling is None else sampling
        requests = make_requests(prompts, settings, self.model.family, self.tokenizer)
        if not requests:
            return []
        began = perf_counter()
        results: dict[int, Trajectory] = {}
        run = _Run(self, requests)
        with torch.inference_mode():
            while run.is_busy:
                for index, trajectory in run.step():
                    results[index] = trajectory
                    if on_finish is not None:
                        on_finish(index, trajectory)
        self.stats.tokens += sum(t.num_tokens for t in results.values())
        self.stats.seconds_total += perf_counter() - began
        return [results[i] for i in range(len(requests))]


class _Run:
    """One call of generate: the queue, the slots and the cache."""

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        self.engine, self.model, self.stats = engine, engine.model, engine.stats
        family, sizes = self.model.family, self.model.sizes
        assert family.block_size is not None, "checked by Engine"
        self.queue = deque(requests)
        num_slots = min(engine.num_slots, len(requests))
        capacity = max(padded_length(r.limit, family.block_size) for r in requests)
        self.slots = Slots(family, num_slots=num_slots, capacity=capacity, device=self.model.device)
        self.cache = KVCache(
            num_layers=sizes.num_hidden_layers,
            num_slots=num_slots,
            capacity=capacity,
            heads=(sizes.num_key_value_heads, sizes.head_dim),
            like=self.model.lm_head.weight,
        )
        self.num_slots = num_slots

    @property
    def is_busy(self) -> bool:
        """Whether anything is queued or running."""
        return bool(self.queue) or self.slots.count > 0

    def step(self) -> list[tuple[int, Trajectory]]:
        """Admit, run one denoising forward, reveal; returns what finished."""
        slots = self.slots
        while self.queue and slots.count < self.num_slots:
            slots.admit(self.queue.popleft())
        if self.engine.commit == "separate" and bool(slots.slot["pending"][: slots.count].any()):
            self._forward(commit_rows(slots, self.cache))
            self.stats.commit_forwards += 1
            slots.slot["forwards"][: slots.count] += slots.slot["pending"][: slots.count]
            slots.slot["pending"][: slots.count] = False
        features = self._forward(decode_rows(slots, self.cache))
        n = slots.count
        slots.is_fresh = [False] * n
        slots.slot["pending"][:n] = False
        slots.slot["steps"][:n] += 1
        slots.slot["forwards"][:n] += 1
        logits = self._logits(features, n)
        began = perf_counter()
        self._reveal(logits)
        finished = self._finish()
        self.stats.seconds_sampler += perf_counter() - began
        return finished

    def _forward(self, rows: Rows) -> Tensor:
        began = perf_counter()
        self.cache.begin(rows.places, rows.segments)
        features = self.model.body(rows.tokens[None], rows.positions[None], None, self.cache)
        self.stats.seconds_body += perf_counter() - began
        self.stats.forwards += 1
        self.stats.rows += len(rows.tokens)
        return features[0, : rows.num_hidden]

    def _logits(self, features: Tensor, count: int) -> Tensor:
        began = perf_counter()
        logits = self.model.head(features).view(count, self.slots.size, -1)
        self.stats.seconds_head += perf_counter() - began
        return logits

    def _reveal(self, logits: Tensor) -> None:
        """Propose, select within what is hidden, guarantee progress, write."""
        slots, n = self.slots, self.slots.count
        columns = slots.columns()
        hidden = slots.position["hidden"][:n].gather(1, columns)
        steps = slots.slot["steps"][:n]
        numbers = uniform(slots.slot["seed"][:n, None], columns, steps[:, None])
        proposal, chosen = _decide(slots, logits, numbers, hidden)
        if not bool(proposal.logprob.isfinite().all()):
            raise FloatingPointError("the model gave logits that are not finite; its weights or its dtype are unusable")
        chosen &= hidden
        chosen |= most_confident(proposal.confidence, hidden, 1) & ~chosen.any(1, keepdim=True)
        slots.write(columns, proposal, chosen)

    def _finish(self) -> list[tuple[int, Trajectory]]:
        """Advance finished blocks; harvest and free finished requests."""
        slots = self.slots
        decided, ends = slots.decided(), slots.stop_positions()
        reached = slots.slot["start"][: slots.count] + decided
        limit = slots.slot["limit"][: slots.count]
        reasons: list[tuple[int, FinishReason] | None] = []
        for i, (end, place, most) in enumerate(zip(ends.tolist(), reached.tolist(), limit.tolist(), strict=True)):
            reasons.append(self._reason(i, end, place, most))
        is_open = torch.tensor([r is None for r in reasons], device=slots.device)
        slots.advance((decided == slots.size) & is_open)
        finished = []
        for slot in reversed(range(len(reasons))):
            reason = reasons[slot]
            if reason is not None:
                finished.append(self._release(slot, *reason))
        return finished

    def _reason(self, slot: int, end: int, place: int, limit: int) -> tuple[int, FinishReason] | None:
        """Where and why slot's response ends, if it does: the earliest of stop id, stop string and length."""
        request = self.slots.requests[slot]
        if request.sampling.stop_strings:
            length = len(request.prompt_ids)
            upto = min(end if end > 0 else place, limit)
            ids = self.slots.position["canvas"][slot, length:upto].tolist()
            cut = stop_string_end(self.engine.tokenizer, ids, request.sampling.stop_strings)
            if cut is not None:
                return length + cut, "stop_string"
        if end > 0:
            return end, "stop"
        return (limit, "length") if place >= limit else None

    def _release(self, slot: int, end: int, reason: FinishReason) -> tuple[int, Trajectory]:
        index = self.slots.requests[slot].index
        trajectory = self.slots.harvest(slot, end, reason, self.engine.weights_version)
        moved = self.slots.release(slot)
        if moved is not None:
            self.cache.move(moved, slot, int(self.slots.slot["start"][slot]))
        return index, trajectory


def _decide(slots: Slots, logits: Tensor, numbers: Tensor, hidden: Tensor) -> tuple[Proposal, Tensor]:
    """Proposals and selections [n, B] of a batch that may mix rules."""
    n = slots.count
    used = sorted(set(slots.slot["rule"][:n].tolist())) if len(slots.rules) > 1 else [0]
    sampling, steps = slots.sampling_rows(), slots.slot["steps"][:n]
    proposal = slots.rules[used[0]].propose(logits, numbers, sampling)
    chosen = slots.rules[used[0]].select(proposal.confidence, hidden, steps)
    for index in used[1:]:
        mine = (slots.slot["rule"][:n] == index)[:, None]
        other = slots.rules[index].propose(logits, numbers, sampling)
        parts = {k: torch.where(mine, v, vars(proposal)[k]) for k, v in vars(other).items()}
        proposal = Proposal(**parts)
        chosen = torch.where(mine, slots.rules[index].select(other.confidence, hidden, steps), chosen)
    return proposal, chosen
