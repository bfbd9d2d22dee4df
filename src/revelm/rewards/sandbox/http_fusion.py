"""Programs in SandboxFusion (https://bytedance.github.io/SandboxFusion), or a service with its ``/run_code``.

One POST per script, ``{"code", "language", "stdin", "run_timeout", "compile_timeout"}``; the reply has ``status``
(Success, Failed, SandboxError) and ``run_result`` with ``status`` (Finished, Error, TimeLimitExceeded), ``stdout``,
``stderr``, ``return_code`` and ``execution_time``.
"""

import json
from dataclasses import dataclass
from http.client import HTTPException
from time import sleep
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from revelm.core.http_post import OversizedError, post_json
from revelm.core.service_key import key_from_environment
from revelm.rewards.code_tests import CodeTests, TestResult
from revelm.rewards.sandbox.http_tests import Ran, RemoteTests, ServiceError
from revelm.rewards.sandbox.limits import Limits

_TRANSIENT = {408, 409, 425, 429}
_MAX_PAUSE = 60.0


class _TransientError(Exception):
    """A failure that may pass."""


@dataclass(frozen=True)
class SandboxFusion:
    """An `Executor` behind ``url``, such as http://127.0.0.1:8080.

    ``api_key_env``: the environment variable with a bearer token, None for a server without one. ``timeout``: seconds
    that a request may wait beside the program's own; one that fails is repeated up to ``retries`` times, after
    ``backoff`` seconds, then twice as many, and so on. ``concurrency``: requests at a time, of one program.
    ``patience``: wall clock time of a test, in its CPU seconds.
    """

    url: str
    api_key_env: str | None = None
    timeout: float = 60.0
    retries: int = 3
    backoff: float = 1.0
    concurrency: int = 8
    patience: float = 3.0

    def __post_init__(self) -> None:
        """Raises ValueError for a field outside its range, and a key that is not in the environment."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url={self.url!r}: no address of a server; expected as in http://127.0.0.1:8080")
        if self.timeout <= 0 or self.retries < 0 or self.backoff < 0 or self.concurrency < 1 or self.patience < 1:
            raise ValueError("expected timeout > 0, retries and backoff >= 0, concurrency and patience >= 1")
        key_from_environment(self.api_key_env)

    def run(self, code: str, tests: CodeTests, limits: Limits) -> tuple[TestResult, ...]:
        """See `Executor`. A service that fails to the last attempt gives results of "error"."""
        return RemoteTests(self, tests, limits, self.patience, self.concurrency).run(code)

    def execute(self, source: str, stdin: str, seconds: float) -> Ran:
        """See `Machine`."""
        limits = {"run_timeout": seconds, "compile_timeout": seconds}
        body = {"code": source, "language": "python", "stdin": stdin, "files": {}, "fetch_files": [], **limits}
        for attempt in range(self.retries + 1):
            try:
                return _ran(self._post(body, seconds))
            except _TransientError as error:
                if attempt == self.retries:
                    raise ServiceError(f"{error} ({attempt + 1} attempts)") from error
                sleep(min(self.backoff * 2**attempt, _MAX_PAUSE))
        raise AssertionError("the loop returns or raises")

    def _post(self, body: dict[str, Any], seconds: float) -> bytes:
        url = f"{self.url.rstrip('/')}/run_code"
        key = key_from_environment(self.api_key_env)
        try:
            return post_json(url, body, key=key, timeout=self.timeout + seconds, max_bytes=256 * 2**20)
        except HTTPError as error:
            with error:
                said = f"{url}: HTTP {error.code}"
                is_transient = error.code in _TRANSIENT or error.code >= 500
                raise (_TransientError if is_transient else ServiceError)(said) from error
        except (OSError, HTTPException, OversizedError) as error:
            reason = "no reply in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            raise _TransientError(f"{url}: {reason}") from error


def _ran(data: bytes) -> Ran:
    """The reply of the service. _TransientError for one that says that the service itself failed, or nothing."""
    try:
        reply = json.loads(data)
        status, result = reply["status"], reply.get("run_result") or {}
        ended = result.get("status")
        texts = [result.get(name) or "" for name in ("stdout", "stderr")]
        code, seconds = result.get("return_code"), float(result.get("execution_time") or 0.0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _TransientError(f"a reply that is none of SandboxFusion: {data[:80]!r}") from error
    is_code = code is None or (isinstance(code, int) and not isinstance(code, bool))
    if not all(isinstance(text, str) for text in texts) or not is_code:
        raise _TransientError(f"a reply that is none of SandboxFusion: {data[:80]!r}")
    if status not in ("Success", "Failed") or ended not in ("Finished", "Error", "TimeLimitExceeded"):
        raise _TransientError(f"the service failed ({status}, {ended}): {str(reply.get('message', ''))[:120]}")
    if ended == "Error" and code is None:
        raise _TransientError("the service could not run the program")
    return Ran(texts[0], texts[1], code, ended == "TimeLimitExceeded", seconds)
