"""One POST request with JSON, and all of its reply, with bounded patience and size."""

import json
from collections.abc import Mapping
from time import monotonic
from typing import Any
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)


class OversizedError(Exception):
    """A reply of more bytes than the caller takes."""


def post_json(
    url: str, body: Mapping[str, Any], *, key: str | None, timeout: float, max_bytes: int = 16 * 2**20
) -> bytes:
    """The body of the server's reply. ``key``: sent as a bearer token; ``timeout``: seconds, for the whole of it.

    Raises HTTPError for a status that is no success (the caller closes it), OSError or HTTPException for a connection
    that fails, TimeoutError among them, and OversizedError.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    request = Request(url, data=json.dumps(body).encode(), headers=headers, method="POST")
    deadline = monotonic() + timeout
    with _opener().open(request, timeout=timeout) as reply:
        return _read(reply, deadline, max_bytes)


def _opener() -> OpenerDirector:
    """What sends requests: with the proxies of the environment, without redirects, which would carry the key along."""
    opener = OpenerDirector()
    for handler in (ProxyHandler, HTTPHandler, HTTPSHandler, HTTPDefaultErrorHandler, HTTPErrorProcessor):
        opener.add_handler(handler())
    return opener


def _read(reply: Any, deadline: float, max_bytes: int) -> bytes:
    """All of a reply; one that comes byte by byte runs into the deadline like one that does not come."""
    parts: list[bytes] = []
    size = 0
    while part := reply.read1(65536):
        parts.append(part)
        size += len(part)
        if monotonic() > deadline:
            raise TimeoutError
        if size > max_bytes:
            raise OversizedError(f"a reply of more than {max_bytes} bytes")
    return b"".join(parts)
