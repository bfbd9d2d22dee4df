"""The engine: continuous batching of requests to one diffusion model.

Each forward denoises the current window of every running request. Block models run over an exact cache: finished
blocks are committed inside the next forward (fused commit) and prompts are prefilled inside the first. Full attention
models recompute whole canvases, or keep an approximate cache if asked to. Text never decides anything but stop strings.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch

from revelm.decoding.sampling import Sampling
from revelm.engine.assemble import assemble
from revelm.engine.budget import Size, check_memory, fits, size_of
from revelm.engine.cached import Commit
from revelm.engine.named_caches import check_requests
from revelm.engine.prompts import Prompt, make_requests
from revelm.engine.request import Request
from revelm.engine.run import Run, Update
from revelm.engine.settings import CacheKind, Exact, Limits, QueueFullError, cache_of
from revelm.engine.stats import EngineStats
from revelm.models.language_model import LanguageModel
from revelm.trajectories.record import Trajectory


class Engine:
    """Decodes many requests with one model; the model is shared, never copied.

    ``num_slots``: requests that run at once. ``cache``: "exact" (keys and values of finished blocks; block models),
    "none" (every step recomputes the whole canvas), "auto": exact where there is such a cache, else none; "prefix",
    "dual", "horizon" and "vicinity" are approximate, for full attention (docs/caches.md); or settings such as
    ``Exact(page_size=64)`` or ``Approximate("dual", refresh_every=8)``. ``commit`` replaces that of an exact cache.
    ``limits``: memory, queue, weights. Raises ValueError for autoregressive models, and for a cache that the model's
    attention does not allow.

    Not safe for use from several threads at once; see ``AsyncEngine``.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Any | None = None,
        *,
        num_slots: int = 64,
        commit: Commit | None = None,
        cache: CacheKind = "auto",
        limits: Limits | None = None,
    ) -> None:
        if num_slots < 1:
            raise ValueError(f"engine.num_slots is {num_slots}, must be at least 1")
        self.model, self.tokenizer, self.num_slots = model, tokenizer, num_slots
        self.cache = cache_of(model.family, cache, commit)
        self.limits = limits or Limits()
        self.stats = EngineStats()
        self._version, self._next = 0, 0
        self._run: Run | None = None
        self._size = Size(0, 0, 0)
        self._later: list[Request] = []
        self._news: list[Update] = []

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling | Sequence[Sampling] | None = None,
        *,
        on_finish: Callable[[int, Trajectory], None] | None = None,
        on_step: Callable[[], None] | None = None,
    ) -> list[Trajectory]:
        """Decode every prompt; trajectories in the order of ``prompts``.

        Prompts are ids, strings or messages (the latter two need a tokenizer), or ``Infill``. All are checked before
        the first forward. Equal prompts are prefilled once, and those that may get the longest answers begin, so that
        few run alone at the end. ``on_finish(index, trajectory)`` is called as each ends, ``on_step()`` after a step.
        """
        results, requests = dict[int, Trajectory](), self._requests(prompts, sampling)
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids) - requests[i].limit)
        number_of = dict(zip(order, self._enqueue([requests[i] for i in order]), strict=True))
        numbers = [number_of[i] for i in range(len(requests))]
        with closing(self._updates(numbers, on_step)) as updates:
            for update in updates:
                if update.trajectory is not None:
                    results[update.index] = update.trajectory
                    if on_finish is not None:
                        on_finish(update.index, update.trajectory)
        return [results[i] for i in range(len(numbers))]

    def stream(
        self, prompts: Sequence[Prompt], sampling: Sampling | Sequence[Sampling] | None = None
    ) -> Iterator[Update]:
        """Decode every prompt, telling of every commit: ``Update.index`` is the place in ``prompts``.

        The last update of a request carries its trajectory. Leaving early cancels what is not finished.
        """
        yield from self._updates(self.submit(prompts, sampling, is_streamed=True))

    def submit(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling | Sequence[Sampling] | None = None,
        *,
        is_streamed: bool = False,
    ) -> list[int]:
        """Queue requests; their numbers, by which ``step`` tells of them and ``cancel`` ends them.

        ValueError for one that cannot be served, QueueFullError when too many would wait; nothing is queued then.
        """
        return self._enqueue(self._requests(prompts, sampling), is_streamed=is_streamed)

    def _requests(self, prompts: Sequence[Prompt], sampling: Sampling | Sequence[Sampling] | None) -> list[Request]:
        settings = Sampling() if sampling is None else sampling
        requests = make_requests(prompts, settings, self.model.family, self.tokenizer)
        self._check(requests)
        return requests

    def _enqueue(self, requests: Sequence[Request], *, is_streamed: bool = False) -> list[int]:
        """Queue ``requests`` in this order; their numbers."""
        shared = None if isinstance(self.cache, Exact) and self.cache.reuses_prefixes else self._next
        numbered = []
        for request in requests:
            key = (shared, request.prompt_ids.tobytes())
            numbered.append(replace(request, index=self._next, key=key, is_streamed=is_streamed))
            self._next += 1
        self._later += numbered
        try:
            self._place()
        except BaseException:
            self._later = [request for request in self._later if request not in numbered]
            self.discard(request.index for request in numbered)
            raise
        return [request.index for request in numbered]

    @property
    def num_waiting(self) -> int:
        """Requests that do not run yet."""
        return len(self._later) + (0 if self._run is None else self._run.scheduler.num_waiting)

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to do or to tell."""
        return bool(self._news) or self._has_work

    def step(self) -> list[Update]:
        """One denoising step of all that run, or several of fixed shapes (``Exact.steps_per_contact``).

        News of finished and of streamed requests; [] when there is nothing. ValueError when what waits for a larger
        cache turns out not to fit into memory: it is not waited for any more.
        """
        began = perf_counter()
        try:
            self._place()
        except ValueError as error:
            lost = [r.index for r in self._later if not fits(self.model, self.cache, r)]
            lost = lost or [r.index for r in self._later]
            self._later = [r for r in self._later if r.index not in lost]
            raise ValueError(f"requests {lost} are not waited for any more: {error}") from error
        news = self._news + (self._advance(self._run) if self._run is not None and self._run.is_busy else [])
        self._news = []
        self.stats.seconds_total += perf_counter() - began
        return news

    def cancel(self, index: int) -> Trajectory | None:
        """End request ``index`` now: its record so far, None if it never ran. KeyError if it is not under way."""
        if any(request.index == index for request in self._later):
            self._later = [request for request in self._later if request.index != index]
            return None
        if self._run is None or not self._run.holds(index):
            raise KeyError(f"request {index} is neither running nor waiting")
        with torch.inference_mode():
            trajectory = self._run.cancel(index)
        self._rest(self._run)
        return trajectory

    def discard(self, indices: Iterable[int]) -> None:
        """Cancel those of ``indices`` that are still under way."""
        for index in indices:
            if any(r.index == index for r in self._later) or (self._run is not None and self._run.holds(index)):
                self.cancel(index)

    @property
    def weights_version(self) -> int:
        """The version that is recorded with every token. Whoever changes the weights counts it up.

        Setting another one drops all that old weights have made. RuntimeError while requests are under way, unless
        ``Limits.mixes_weights``: they then go on with the new weights, and each token is recorded with its version.
        """
        return self._version

    @weights_version.setter
    def weights_version(self, version: int) -> None:
        if version == self._version:
            return
        if self._run is not None:
            if self._run.is_busy and not self.limits.mixes_weights:
                how = "let them finish, cancel them, or make the engine with limits=Limits(mixes_weights=True)"
                raise RuntimeError(f"weights_version {version} comes while requests run with {self._version}; {how}")
            with torch.inference_mode():
                self._run.renew(version)
        self._version = version

    @property
    def _has_work(self) -> bool:
        return bool(self._later) or (self._run is not None and self._run.is_busy)

    def _updates(self, numbers: Sequence[int], on_step: Callable[[], None] | None = None) -> Iterator[Update]:
        """News of these requests until all have ended, by place; what is still under way when it is left, is not then.

        RuntimeError when some of them have been lost: cancelled, or in a step that failed for another caller.
        """
        places = {number: place for place, number in enumerate(numbers)}
        open_ones = set(numbers)
        try:
            while open_ones:
                if not (self._has_work or any(update.index in open_ones for update in self._news)):
                    raise RuntimeError(f"requests {sorted(open_ones)} were ended by someone else")
                updates = self.step()
                mine = [update for update in updates if update.index in places]
                self._news += [update for update in updates if update.index not in places]
                open_ones -= {update.index for update in mine if update.trajectory is not None}
                for update in mine:
                    yield replace(update, index=places[update.index])
                if on_step is not None:
                    on_step()
        finally:
            self._news = [update for update in self._news if update.index not in places]
            self.discard(sorted(open_ones))

    def _advance(self, run: Run) -> list[Update]:
        try:
            with torch.inference_mode():
                news = run.step()
        except BaseException:
            self._run = None  # half a step was done: nothing that is left can be trusted
            raise
        self.stats.tokens += sum(u.trajectory.num_tokens for u in news if u.trajectory is not None)
        self._rest(run)
        return news

    def _rest(self, run: Run) -> None:
        """Give the memory back when there is nothing to do, unless it was taken for good."""
        keeps = self.limits.max_length is not None or (isinstance(self.cache, Exact) and self.cache.reuses_prefixes)
        if not (run.is_busy or keeps):
            self._run = None

    def _check(self, requests: Sequence[Request]) -> None:
        most, length = self.limits.max_waiting, self.limits.max_length
        if most is not None and self.num_waiting + len(requests) > most:
            came = len(requests)
            raise QueueFullError(f"{self.num_waiting} requests wait, {came} came, limits.max_waiting is {most}")
        for i, request in enumerate(requests):
            if length is not None and request.length > length:
                raise ValueError(f"prompt {i} needs {request.length} positions, limits.max_length is {length}")
        check_requests(requests, self.cache)
        if self.model.decoder.training:
            raise ValueError("the model is in training mode, in which dropout changes answers; call model.eval() first")
        check_memory(self.model, self.cache, requests, num_slots=self.num_slots)

    def _place(self) -> None:
        """Hand what came later to the run, if it is large enough; to a larger one as soon as there is nothing else."""
        if not self._later:
            return
        needed = size_of(self._later, self.num_slots)
        is_idle = self._run is None or not self._run.is_busy
        is_small = not self._size.holds(needed) or needed.num_slots > self._size.num_slots
        if self._run is None or (is_idle and is_small):
            self._open(needed)
        elif not self._size.holds(needed):
            return
        else:
            self._widen(self._run)
        assert self._run is not None, "just opened"
        for request in self._later:
            self._run.scheduler.add(request)
        self._later = []

    def _widen(self, run: Run) -> None:
        """More slots of the same length for a run that has too few; it keeps those it has where memory is short."""
        wanted = min(run.slots.count + run.scheduler.num_waiting + len(self._later), self.num_slots)
        if wanted <= self._size.num_slots:
            return
        size = replace(self._size, num_slots=min(self.num_slots, 2 * wanted), is_crowded=True)
        try:
            wider = Run(assemble(self.model, self.cache, size=size, stats=self.stats), self.tokenizer)
        except ValueError:
            return
        with torch.inference_mode():
            run.scheduler.hand_over(wider.scheduler)
        self._run, self._size, wider.version = wider, size, self._version

    def _open(self, needed: Size) -> None:
        length = self.limits.max_length
        if length is not None:
            is_block = self.model.family.attention == "block"
            needed = Size(self.num_slots, length, needed.window if is_block else length, is_crowded=True)
        self._run = None  # its cache goes before the next one comes
        self._run = Run(assemble(self.model, self.cache, size=needed, stats=self.stats), self.tokenizer)
        self._size, self._run.version = needed, self._version
