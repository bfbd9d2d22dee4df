"""A service with the ``/run_code`` of SandboxFusion, on a real socket: it runs the scripts it is sent, unprotected."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from tests.fake_judge import FakeJudge, Response, fake_judge


def run_code(body: dict[str, Any], number: int) -> Response:
    """What SandboxFusion replies."""
    began = perf_counter()
    result: dict[str, Any] = {"status": "Finished", "return_code": 0, "stdout": "", "stderr": ""}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", body["code"]],
            input=body["stdin"].encode(),
            capture_output=True,
            timeout=body["run_timeout"],
            check=False,
        )
        result |= {"return_code": done.returncode}
        result |= {"stdout": done.stdout.decode("utf-8", "replace"), "stderr": done.stderr.decode("utf-8", "replace")}
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"").decode("utf-8", "replace")
        result |= {"status": "TimeLimitExceeded", "return_code": None, "stdout": said}
    result["execution_time"] = perf_counter() - began
    status = "Success" if result["return_code"] == 0 else "Failed"
    return Response(json.dumps({"status": status, "message": "", "run_result": result}).encode())


def fails_first(times: int, response: Response) -> Callable[[dict[str, Any], int], Response]:
    """A service that replies with ``response`` the first ``times`` times to each request."""
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def behaviour(body: dict[str, Any], number: int) -> Response:
        with lock:
            key = json.dumps([body["stdin"], len(body["code"])])
            seen[key] = seen.get(key, 0) + 1
            is_first = seen[key] <= times
        return response if is_first else run_code(body, number)

    return behaviour


@contextmanager
def fake_sandbox(
    behaviour: Callable[[dict[str, Any], int], Response] = run_code,
) -> Iterator[tuple[str, FakeJudge]]:
    """The address of a service, and what it was sent."""
    with fake_judge(behaviour) as server:
        yield server.base_url.removesuffix("/v1"), server
