"""The slot engine: continuous batching of requests to one diffusion model.

Each forward denoises the current window of every running request. Block models run over an exact cache: finished
blocks are committed inside the next forward (fused commit) and prompts are prefilled inside the first. Full attention
models recompute whole canvases. Text never decides anything but stop strings.
"""

from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from revelm.core.types import Family, require_diffusion
from revelm.decoding.sampling import Sampling
from revelm.engine.cached import CachedBlocks, Commit
from revelm.engine.decide import choose, propose
from revelm.engine.prompts import Prompt, make_requests
from revelm.engine.request import Request
from revelm.engine.slots import Slots, Undecided
from revelm.engine.stats import EngineStats
from revelm.engine.stop_strings import stop_string_end
from revelm.engine.whole import WholeCanvases
from revelm.models.language_model import LanguageModel
from revelm.trajectories.record import FinishReason, Trajectory

CacheKind: TypeAlias = Literal["auto", "exact", "none"]


class Engine:
    """Decodes many requests with one model; the model is shared, never copied.

    ``num_slots``: requests that run at once. ``cache``: "exact" (keys and values of finished blocks; block models),
    "none" (every step recomputes the whole canvas), or "auto": exact where there is such a cache, else none.
    ``commit``: how the exact cache gets a finished block, "fused" (in the next denoising forward) or "separate" (in a
    forward of its own; the baseline).
    ``weights_version`` is recorded with every trajectory; whoever updates the weights counts it up. Raises ValueError
    for autoregressive models, and for a cache that the model's attention does not allow.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Any | None = None,
        *,
        num_slots: int = 64,
        commit: Commit = "fused",
        cache: CacheKind = "auto",
    ) -> None:
        if num_slots < 1:
            raise ValueError(f"engine.num_slots is {num_slots}, must be at least 1")
        if commit not in ("fused", "separate"):
            raise ValueError(f"engine.commit is {commit!r}, allowed: 'fused', 'separate'")
        self.model, self.tokenizer, self.num_slots, self.commit = model, tokenizer, num_slots, commit
        self.cache = _cache_of(model.family, cache)
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


class Forwards(Protocol):
    """How features come about: over a cache, or without."""

    def features(self, undecided: Undecided) -> Tensor:
        """Run the model for all running slots; features [N, D] of the undecided positions."""
        ...

    def move(self, source: int, target: int) -> None:
        """Follow a request from slot ``source`` to slot ``target``."""
        ...


class _Run:
    """One call of generate: the queue, the slots and the forwards."""

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        self.engine, self.model, self.stats = engine, engine.model, engine.stats
        self.queue = deque(requests)
        self.slots = Slots(
            self.model.family,
            num_slots=min(engine.num_slots, len(requests)),
            capacity=max(r.length for r in requests),
            size=max(r.window for r in requests),
            device=self.model.device,
        )
        self.forwards: Forwards
        if engine.cache == "none":
            self.forwards = WholeCanvases(self.model, self.slots, self.stats)
        else:
            self.forwards = CachedBlocks(self.model, self.slots, self.stats, commit=engine.commit)

    @property
    def is_busy(self) -> bool:
        """Whether anything is queued or running."""
        return bool(self.queue) or self.slots.count > 0

    def step(self) -> list[tuple[int, Trajectory]]:
        """Admit, run one denoising forward, reveal; returns what finished."""
        slots = self.slots
        while self.queue and slots.count < slots.num_slots:
            slots.admit(self.queue.popleft())
        undecided = slots.undecided()
        features = self.forwards.features(undecided)
        slots.count_step()
        began, before = perf_counter(), self.stats.seconds_head
        proposal = propose(slots, undecided, features, self._logits)
        slots.write(undecided, choose(slots, undecided, proposal.confidence), proposal)
        finished = self._finish()
        self.stats.seconds_sampler += perf_counter() - began - (self.stats.seconds_head - before)
        return finished

    def _logits(self, features: Tensor) -> Tensor:
        began = perf_counter()
        logits = self.model.head(features)
        self.stats.seconds_head += perf_counter() - began
        return logits

    def _finish(self) -> list[tuple[int, Trajectory]]:
        """Advance finished windows; harvest and free finished requests."""
        slots = self.slots
        reached = slots.decided()
        ends, limit = slots.stop_positions(reached), slots.slot["limit"][: slots.count]
        reasons: list[tuple[int, FinishReason] | None] = []
        for i, (end, place, most) in enumerate(zip(ends.tolist(), reached.tolist(), limit.tolist(), strict=True)):
            reasons.append(self._reason(i, end, place, most))
        is_open = torch.tensor([r is None for r in reasons], device=slots.device)
        slots.advance((reached == slots.window_ends()) & is_open)
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
            self.forwards.move(moved, slot)
        return index, trajectory


def _cache_of(family: Family, cache: CacheKind) -> Literal["exact", "none"]:
    """Which cache runs. ValueError where the family has no such thing."""
    require_diffusion(family)
    if cache not in ("auto", "exact", "none"):
        raise ValueError(f"engine.cache is {cache!r}, allowed: 'auto', 'exact', 'none'")
    if cache == "exact" and family.attention == "full":
        raise ValueError(
            f"engine.cache is 'exact', but {family.name} has full attention, for which every cache is approximate; "
            "'none' (recompute everything) is what runs"
        )
    if cache == "auto":
        return "exact" if family.attention == "block" else "none"
    return cache
