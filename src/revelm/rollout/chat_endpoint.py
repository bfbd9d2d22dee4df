"""One question to a server with OpenAI's chat interface, with bounded patience.

A request that fails for a reason that may pass (no connection, too slow, 408, 409, 425, 429, 5xx, a reply that is not
what the interface promises) is repeated after a growing pause. Other refusals concern this one question (such as a
prompt that is too long), except those that every question would meet (401, 403, 404).
"""

import json
from collections.abc import Mapping
from http.client import HTTPException
from threading import Event
from typing import Any
from urllib.error import HTTPError

from revelm.core.errors import RunError
from revelm.core.http_post import OversizedError, post_json
from revelm.core.service_key import key_from_environment
from revelm.rollout.reward_config import EndpointSpec

_TRANSIENT = {408, 409, 425, 429}
_REFUSED = {401, 403, 404}
_MAX_PAUSE = 60.0


class EndpointError(Exception):
    """A question that stayed without a reply; the message says why."""


class UnreachableError(EndpointError):
    """A question that stayed without a reply after all attempts, for reasons that concern the server."""


class _TransientError(Exception):
    """A failure that may pass; ``pause``: how long the server asks to wait, in seconds."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


def read_key(spec: EndpointSpec) -> str | None:
    """The key of the endpoint. ValueError when the environment does not have it."""
    return key_from_environment(spec.api_key_env)


def request_body(spec: EndpointSpec, messages: list[dict[str, str]]) -> dict[str, Any]:
    """The fields of a request, all but the seed."""
    sampling = {"temperature": spec.temperature, "top_p": spec.top_p, "max_tokens": spec.max_tokens}
    return {**spec.extra, "model": spec.model, "messages": messages, **sampling, "stream": False}


def ask(spec: EndpointSpec, body: Mapping[str, Any], *, key: str | None, stop: Event) -> str:
    """The text that the endpoint replies with, empty when it has none or ``max_tokens`` cut it off.

    Raises UnreachableError when all attempts fail or ``stop`` is set while waiting for the next, EndpointError when
    this question is refused, and RunError when every question would be.
    """
    for attempt in range(spec.retries + 1):
        try:
            return _content(_post(spec, body, key))
        except _TransientError as error:
            if attempt == spec.retries:
                raise UnreachableError(f"{error} ({attempt + 1} attempts)") from error
            pause = max(spec.backoff * 2**attempt, error.pause)
            if stop.wait(min(pause, _MAX_PAUSE)):
                raise UnreachableError(f"{error} (given up)") from error
    raise AssertionError("the loop returns or raises")


def _post(spec: EndpointSpec, body: Mapping[str, Any], key: str | None) -> bytes:
    """The body of the server's answer."""
    url = f"{spec.base_url}/chat/completions"
    try:
        return post_json(url, body, key=key, timeout=spec.timeout)
    except OversizedError as error:
        raise _TransientError(str(error)) from error
    except HTTPError as error:
        with error:
            raise _refusal(url, error) from error
    except (OSError, HTTPException) as error:
        reason = "no reply in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        raise _TransientError(f"{url}: {reason}") from error


def _refusal(url: str, error: HTTPError) -> Exception:
    said = f"{url}: HTTP {error.code}"
    if error.code in _REFUSED:
        return RunError(f"{said}; check base_url, model and api_key_env of the judge")
    if error.code in _TRANSIENT or error.code >= 500:
        asked = str(error.headers.get("Retry-After", ""))
        return _TransientError(said, float(asked) if asked.isdecimal() else 0.0)
    return EndpointError(said)


def _content(data: bytes) -> str:
    """The message of a chat completion; a reply without text (all thought) is the empty text, and so is one that was
    cut off: what it would have ended with is unknown."""
    try:
        choice = json.loads(data)["choices"][0]
        content, is_cut = choice["message"]["content"], choice.get("finish_reason") == "length"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _TransientError(f"a reply that is no chat completion: {data[:80]!r}") from error
    if content is not None and not isinstance(content, str):
        raise _TransientError(f"a reply whose content is no text: {data[:80]!r}")
    return "" if is_cut else content or ""
