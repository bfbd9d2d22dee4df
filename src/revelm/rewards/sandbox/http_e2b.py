"""Programs in sandboxes of E2B (https://e2b.dev), through its own client, an optional package.

Every program has a sandbox of its own, without access to the internet, which is ended with its last test.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from time import perf_counter, sleep
from typing import Any

from revelm.core.service_key import key_from_environment
from revelm.rewards.code_tests import CodeTests, TestResult
from revelm.rewards.sandbox.http_tests import Ran, RemoteTests, ServiceError
from revelm.rewards.sandbox.limits import Limits

_MAX_PAUSE = 60.0
_PROGRAM, _INPUT = "/home/user/main.py", "/home/user/input.txt"
_COMMAND = f"python3 {_PROGRAM} < {_INPUT}"


@dataclass(frozen=True)
class E2B:
    """An `Executor` at E2B. ``pip install e2b-code-interpreter`` brings the client.

    ``api_key_env``: the environment variable with the key. ``template``: of the sandbox; None: E2B's own. ``timeout``:
    seconds that a sandbox may live beyond the limits of its program. A sandbox that does not start is tried again up to
    ``retries`` times, after ``backoff`` seconds, then twice as many. ``patience``: wall clock time of a test, in its
    CPU seconds.
    """

    api_key_env: str = "E2B_API_KEY"
    template: str | None = None
    timeout: float = 60.0
    retries: int = 3
    backoff: float = 1.0
    patience: float = 3.0

    def __post_init__(self) -> None:
        """Raises ValueError for a field outside its range, a missing key, and a missing package."""
        if self.timeout <= 0 or self.retries < 0 or self.backoff < 0 or self.patience < 1:
            raise ValueError("expected timeout > 0, retries and backoff >= 0, patience >= 1")
        if find_spec("e2b_code_interpreter") is None:
            raise ValueError("executor e2b needs the package e2b-code-interpreter: pip install e2b-code-interpreter")
        key_from_environment(self.api_key_env)

    def run(self, code: str, tests: CodeTests, limits: Limits) -> tuple[TestResult, ...]:
        """See `Executor`. A sandbox that cannot be had gives results of "error"."""
        try:
            with self._sandbox(limits) as sandbox:
                return RemoteTests(_Commands(sandbox), tests, limits, self.patience, concurrency=1).run(code)
        except ServiceError as error:
            return (TestResult("error", str(error)),) * tests.num_tests

    @contextmanager
    def _sandbox(self, limits: Limits) -> Iterator[Any]:
        import e2b_code_interpreter as e2b

        life = int(limits.total_seconds + self.timeout) + 1
        about = {"timeout": life, "api_key": key_from_environment(self.api_key_env), "allow_internet_access": False}
        for attempt in range(self.retries + 1):
            try:
                sandbox = e2b.Sandbox.create(self.template, **about)
                break
            except Exception as error:
                if attempt == self.retries or isinstance(error, e2b.AuthenticationException):
                    raise ServiceError(f"E2B: {type(error).__name__}: {str(error)[:120]}") from error
                sleep(min(self.backoff * 2**attempt, _MAX_PAUSE))
        try:
            yield sandbox
        finally:
            _end(sandbox)


def _end(sandbox: Any) -> None:
    with suppress(Exception):  # a boundary: it ends by itself, after its timeout
        sandbox.kill()


@dataclass(frozen=True)
class _Commands:
    """A sandbox as a `Machine`."""

    sandbox: Any

    def execute(self, source: str, stdin: str, seconds: float) -> Ran:
        """See `Machine`."""
        import e2b_code_interpreter as e2b

        began = perf_counter()
        try:
            self.sandbox.files.write(_PROGRAM, source.encode("utf-8", "surrogatepass"))
            self.sandbox.files.write(_INPUT, stdin.encode("utf-8", "surrogatepass"))
            ran = self.sandbox.commands.run(_COMMAND, timeout=seconds)
        except e2b.CommandExitException as error:
            return Ran(error.stdout, error.stderr, error.exit_code, seconds=perf_counter() - began)
        except Exception as error:
            # Classes below TimeoutException are failures of the sandbox; it itself is the end of the command's time.
            if type(error) is e2b.TimeoutException and perf_counter() - began >= seconds:
                return Ran("", "", None, timed_out=True, seconds=seconds)
            raise ServiceError(f"E2B: {type(error).__name__}: {str(error)[:120]}") from error
        return Ran(ran.stdout, ran.stderr, ran.exit_code, seconds=perf_counter() - began)
