"""Many questions to a judge at once: each has its key, and its verdict comes back under that key or not at all.

What is asked, and the seed it is asked with, depend on the question alone, never on the order of replies: a server that
honours seeds gives the same verdicts in every run. A server that is down is noticed after a few failures in a row, and
the rest is not tried.
"""

import json
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from hashlib import blake2b
from threading import Event
from typing import Any

from revelm.core.errors import RunError
from revelm.core.seeds import derive_seed
from revelm.rollout.chat_endpoint import EndpointError, UnreachableError, ask, read_key, request_body
from revelm.rollout.reward_config import PatientSpec
from revelm.rollout.verdict_cache import VerdictCache

_LOG = logging.getLogger(__name__)
_MIN_ROW = 8  # failures in a row from which a server counts as down, at least twice the requests under way
_MAX_SEED = 2**31  # what every server takes


@dataclass(frozen=True)
class Question:
    """One draw: ``key`` names it among those of a call, ``draw`` tells apart questions of the same words."""

    key: Hashable
    messages: list[dict[str, str]]
    draw: int


COUNTS = ("judge_calls", "judge_cached", "judge_failures", "judge_unreadable", "judge_skipped")
"""judge_calls: questions that went to the server; judge_cached: answered from memory, or by an equal one of the same
call; judge_failures: without a verdict, among them judge_unreadable, whose reply held none, and judge_skipped, not
tried because the server was down."""


@dataclass(eq=False)
class _Round:
    """What happened to the questions of one call so far. ``total``: different ones."""

    total: int
    verdicts: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0.0))
    failures: list[str] = field(default_factory=list)
    failed_in_a_row: int = 0


class Judge:
    """A client of one endpoint, with a memory. ``read`` makes a verdict of a reply, None where it holds none."""

    def __init__(self, spec: PatientSpec, *, seed: int, read: Callable[[str], float | None]) -> None:
        """Raises ValueError when the key's environment variable is not set, or the cache cannot be written."""
        self._spec = spec
        self._seed = seed
        self._read = read
        self._key = read_key(spec)
        self._cache = VerdictCache(spec.cache)

    def verdicts(self, questions: Sequence[Question]) -> tuple[dict[Hashable, float], dict[str, float]]:
        """Verdicts by key, without the questions that have none, and counts (``COUNTS``).

        Raises RunError for an endpoint that refuses, for a failure with ``on_failure: error``, and when more than
        ``max_failure_share`` of the questions failed.
        """
        bodies = {question.key: self._body(question) for question in questions}
        if len(bodies) != len(questions):
            raise ValueError("two questions have the same key")
        names = {key: _digest({**body, "base_url": self._spec.base_url}) for key, body in bodies.items()}
        wanted = {names[key]: body for key, body in bodies.items()}
        state = _Round(total=len(wanted))
        known = {name: self._cache.find(name) for name in wanted}
        state.verdicts |= {name: verdict for name, verdict in known.items() if verdict is not None}
        missing = {name: body for name, body in wanted.items() if known[name] is None}
        state.counts["judge_cached"] = float(len(questions) - len(missing))
        self._ask_all(missing, state)
        if state.failures:
            _LOG.warning("judge %s: %s", self._spec.base_url, _summary(state))
        found = {key: state.verdicts[name] for key, name in names.items() if name in state.verdicts}
        return found, state.counts

    def _body(self, question: Question) -> dict[str, Any]:
        body = request_body(self._spec, question.messages)
        words = json.dumps(body, sort_keys=True)
        return {**body, "seed": derive_seed(self._seed, "judge", words, question.draw) % _MAX_SEED}

    def _ask_all(self, bodies: Mapping[str, Mapping[str, Any]], state: _Round) -> None:
        stop = Event()
        pool = ThreadPoolExecutor(max_workers=self._spec.concurrency, thread_name_prefix="judge")
        try:
            futures = {pool.submit(self._ask, body, stop): name for name, body in bodies.items()}
            for future in as_completed(futures):
                self._note(future, futures[future], state)
                if state.failed_in_a_row >= max(_MIN_ROW, 2 * self._spec.concurrency):
                    stop.set()
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _ask(self, body: Mapping[str, Any], stop: Event) -> str | None:
        """The reply's text; None when the server is known to be down."""
        return None if stop.is_set() else ask(self._spec, body, key=self._key, stop=stop)

    def _note(self, future: "Future[str | None]", name: str, state: _Round) -> None:
        """Take down what became of one question. RunError when this is more than the spec puts up with."""
        try:
            reply = future.result()
        except EndpointError as error:
            state.counts["judge_calls"] += 1
            state.failed_in_a_row += isinstance(error, UnreachableError)
            self._fail(str(error), state)
            return
        if reply is None:
            state.counts["judge_skipped"] += 1
            self._fail("not asked, because the server does not reply", state)
            return
        state.counts["judge_calls"] += 1
        state.failed_in_a_row = 0
        verdict = self._read(reply)
        if verdict is None:
            state.counts["judge_unreadable"] += 1
            empty = "a reply without text, or one that max_tokens cut off"
            self._fail(f"no verdict in the reply {reply[-80:]!r}" if reply else empty, state)
        else:
            state.verdicts[name] = verdict
            self._cache.add(name, verdict)

    def _fail(self, reason: str, state: _Round) -> None:
        state.failures.append(reason)
        state.counts["judge_failures"] += 1
        if self._spec.on_failure == "error":
            raise RunError(f"the judge gave no verdict: {reason} (on_failure: error)")
        allowed = self._spec.max_failure_share
        if len(state.failures) > allowed * state.total:
            raise RunError(f"the judge fails too often (max_failure_share: {allowed}): {_summary(state)}")


def _summary(state: _Round) -> str:
    return f"{len(state.failures)} of {state.total} verdicts are missing; the first: {state.failures[0]}"


def _digest(body: Mapping[str, Any]) -> str:
    return blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()
