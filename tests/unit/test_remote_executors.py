"""Programs on services elsewhere: SandboxFusion behind a real socket, E2B behind a stand-in of its client."""

import json
import pickle
import re
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from revelm.core import registry
from revelm.rewards.code_score import score_code
from revelm.rewards.code_tests import CodeTests, TestResult
from revelm.rewards.sandbox.executors import Local, open_executor
from revelm.rewards.sandbox.http_fusion import SandboxFusion
from revelm.rewards.sandbox.http_harness import read_report
from revelm.rewards.sandbox.http_tests import Ran, RemoteTests
from revelm.rewards.sandbox.limits import Limits
from tests.fake_judge import Response
from tests.fake_sandbox import fails_first, fake_sandbox, run_code

ALL = Limits(stops_early=False)
STDIO = CodeTests("stdio", inputs=("1\n", "2\n", "3\n"), outputs=("2\n", "3\n", "4\n"))
FUNCTION = CodeTests("function", statements=("assert f(1) == 2", "assert f(2) == 3", "assert f(3) == 4"))
CALL = CodeTests("call", names=("f",), arguments=("[1]", "[2]", "[3]"), returns=("2", "3", "4"))
RIGHT = "def f(x):\n    return x + 1\nif __name__ == '__main__':\n    print(f(int(input())))"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def outcomes(code: str, tests: CodeTests, limits: Limits = ALL, **fields: Any) -> list[str]:
    """What becomes of a program at a service that works."""
    with fake_sandbox() as (url, _):
        executor = SandboxFusion(url, **({"retries": 0, "backoff": 0.0} | fields))
        return [result.outcome for result in executor.run(code, tests, limits)]


@pytest.mark.parametrize("tests", [STDIO, FUNCTION, CALL], ids=lambda t: t.method)
def test_right_and_wrong_programs(tests: CodeTests) -> None:
    """Catches a verdict of another test, one that is right by accident, and tests that are run behind a failed one."""
    assert outcomes(RIGHT, tests) == ["passed"] * 3
    assert outcomes(RIGHT.replace("x + 1", "x + (x != 2)"), tests) == ["passed", "wrong", "passed"]
    assert outcomes(RIGHT.replace("x + 1", "x + (x != 2)"), tests, Limits()) == ["passed", "wrong", "not run"]
    assert outcomes(RIGHT.replace("x + 1", "1 // (x - 2)"), tests)[1] == "exception"
    assert outcomes("def f(:", tests) == ["exception"] * 3
    assert outcomes("", tests, Limits())[1:] == ["not run"] * 2
    assert "passed" not in outcomes("def f(x): pass", tests)
    assert outcomes(f"import numpy\n{RIGHT.replace('x + 1', 'numpy.int64(x) + 1')}", tests) == ["passed"] * 3


@pytest.mark.parametrize("tests", [STDIO, FUNCTION, CALL], ids=lambda t: t.method)
@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(0)",
        "import sys; sys.exit(0)",
        "raise SystemExit",
        "def f(x):\n    import os\n    os._exit(0)",
        "def f(x):\n    raise SystemExit(0)",
        "print('2\\n3\\n4\\npassed')\ndef f(x):\n    print('passed')",
        "class Equal(int):\n    def __eq__(self, other): return True\ndef f(x): return [Equal()]",
        "import json\njson.dumps = lambda *_, **__: '2'\ndef f(x): return 1",
        "import builtins\nbuiltins.print = lambda *_: None\ndef f(x): return 1",
    ],
)
def test_programs_that_leave_or_pretend(code: str, tests: CodeTests) -> None:
    """W59: exit equals success. W63: what is printed beside the result counts as the result."""
    assert "passed" not in outcomes(code, tests)


def test_a_script_may_leave_with_any_status() -> None:
    """Catches right output that fails for ``sys.exit(1)``, and an exception that is forgiven with it."""
    for leaving, outcome in (("import sys; sys.exit(1)", "passed"), ("exit('done')", "passed"), ("1 / 0", "exception")):
        assert outcomes(f"{RIGHT}\n{leaving}", STDIO, Limits())[0] == outcome


def test_one_slow_test_fails_alone() -> None:
    """W62: one slow assert fails all tests of the candidate. By processor time where that is known, else the clock."""
    burns = RIGHT.replace("return x + 1", "\n    while x == 2: pass\n    return x + 1")
    sleeps = RIGHT.replace("return x + 1", "\n    import time\n    x == 2 and time.sleep(60)\n    return x + 1")
    limits = Limits(seconds=0.2, stops_early=False)
    for tests in (FUNCTION, CALL):
        with fake_sandbox() as (url, server):
            results = SandboxFusion(url, patience=9.0).run(burns, tests, limits)
            assert len(server.bodies) == 1, "the clock of the service, and not the limit of the test"
        assert [result.outcome for result in results] == ["passed", "timed out", "passed"]
    assert outcomes(sleeps, STDIO, limits, patience=1.0) == ["passed", "timed out", "passed"]
    assert outcomes(sleeps, CALL, limits, patience=1.0) == ["passed", "timed out", "passed"]


def test_what_is_sent() -> None:
    """Catches an expected output that a program could read, a prelude left out, and an unlimited request."""
    tests = CodeTests("stdio", inputs=("5\n",), outputs=("expected-6",), prelude="import math", seconds=2.0)
    call = CodeTests("call", names=("g",), arguments=("[5]",), returns=('"expected-6"',))
    with fake_sandbox() as (url, server):
        SandboxFusion(url + "/", patience=2.0).run("print(math.pi)", tests, ALL)
        SandboxFusion(url).run("def g(x): return 'expected-' + str(x + 1)", call, ALL)
        assert server.paths == ["/run_code"] * 2
        assert not any("expected-6" in json.dumps(body) for body in server.bodies)
    script, _ = server.bodies
    assert repr("import math\nprint(math.pi)") in script["code"]
    assert (script["stdin"], script["language"]) == ("5\n", "python")
    assert script["run_timeout"] == pytest.approx(6.0)


def test_statements_see_what_the_program_defines() -> None:
    """Catches a program that replaces what the setup defined, and one whose names are hidden from the tests."""
    tests = CodeTests(
        "function",
        setup="from math import isclose\ndef check(v): assert isclose(v, 2)",
        statements=("check(f(1))", "check(g(1))"),
    )
    code = "def check(v): pass\ndef f(x): return 2.0\ndef g(x): return 3.0"
    assert outcomes(code, tests) == ["passed", "wrong"]
    named = CodeTests("function", statements=("f(1)", "g(1)"), names=("f",))
    assert outcomes(code, named) == ["passed", "exception"]


def test_statements_have_their_own_builtins() -> None:
    """Catches programs that pass by replacing what their tests compare with."""
    tests = CodeTests("function", statements=("assert abs(f(3) - 9) < 1e-6", "assert sorted(f(3)) == [1]"))
    code = "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.sorted = lambda x: [1]\ndef f(x): return 1"
    assert outcomes(code, tests) == ["wrong", "exception"]


def test_methods_and_values() -> None:
    """Catches a value that is compared as text, and a class that is not made anew."""
    code = "class Solution:\n    def f(self, x): return {1: (x, 0.1 + 0.2)} if x else {1, 2}"
    tests = CodeTests("call", names=("Solution.f",), arguments=("[1]", "[0]"), returns=('{"1": [1, 0.3]}', "[1, 2]"))
    assert outcomes(code, tests) == ["passed", "exception"]


def test_text_of_any_kind() -> None:
    """Catches output that is changed on its way, and a program that no service could be sent."""
    tests = CodeTests("stdio", inputs=("grün 你好\n",), outputs=("grün 你好",))
    assert outcomes("print(input())", tests) == ["passed"]
    assert outcomes("import sys; sys.stdout.buffer.write(b'gr\\xff')", tests) == ["wrong"]
    assert outcomes("x = '\ud800'", tests) == ["exception"]
    assert outcomes("x = '\ud800'", FUNCTION) == ["exception"] * 3
    assert outcomes("\x00", CALL) == ["exception"] * 3


SANDBOX_ERROR = Response(json.dumps({"status": "SandboxError", "message": "no worker"}).encode())


@pytest.mark.parametrize(
    "response",
    [
        Response(b"", status=503),
        Response(b"", status=429),
        Response(b"<html>"),
        Response(b"[]"),
        Response(b'{"status": "Success"}'),
        Response(b'{"status": "Success", "run_result": {"status": "Error", "return_code": null}}'),
        Response(b'{"status": "Success", "run_result": {"status": "Finished", "return_code": "0", "stdout": "2"}}'),
        SANDBOX_ERROR,
    ],
)
def test_failures_of_the_service(response: Response) -> None:
    """Catches a service that hiccups and is taken for a wrong program, or for a right one, or is asked only once."""
    for tests in (STDIO, CALL) if response is SANDBOX_ERROR else (CALL,):
        with fake_sandbox(fails_first(2, response)) as (url, _):
            again = SandboxFusion(url, retries=2, backoff=0.0).run(RIGHT, tests, ALL)
        assert [result.outcome for result in again] == ["passed"] * 3
        with fake_sandbox(lambda body, number: response) as (url, _):
            executor = SandboxFusion(url, retries=1, backoff=0.0)
            broken = executor.run(RIGHT, tests, ALL)
            score = score_code(RIGHT, tests, executor=executor)
        assert [result.outcome for result in broken] == ["error"] * 3
        assert broken[0].detail.endswith("(2 attempts)")
        assert (score.value, score.breakdown["error"], score.breakdown["correct"]) == (0.0, 1.0, 0.0)
        assert score.reason.startswith("error")


def test_a_refusal_is_not_repeated_and_a_dead_service_is_an_error() -> None:
    """Catches patience with a request that will never be taken, and an exception where there is nobody."""
    with fake_sandbox(lambda body, number: Response(b"", status=422)) as (url, server):
        results = SandboxFusion(url, retries=5).run(RIGHT, CALL, ALL)
        assert len(server.bodies) == 1
    assert [result.outcome for result in results] == ["error"] * 3
    gone = SandboxFusion(url, retries=0).run(RIGHT, STDIO, Limits())
    assert [result.outcome for result in gone] == ["error", "not run", "not run"]


def test_tests_are_run_at_once_and_in_order() -> None:
    """Catches results in the order of replies, and requests one after the other."""

    def slow_first(body: dict[str, Any], number: int) -> Response:
        done = run_code(body, number)
        return Response(done.body, delay=0.3 if body["stdin"] == "0" else 0.0)

    tests = CodeTests("stdio", inputs=tuple(map(str, range(6))), outputs=tuple(map(str, (1, 2, 0, 4, 5, 6))))
    with fake_sandbox(slow_first) as (url, server):
        results = SandboxFusion(url, concurrency=6).run(RIGHT, tests, ALL)
        assert server.most_at_once > 1
    assert [result.outcome for result in results] == ["passed", "passed", "wrong", "passed", "passed", "passed"]


def test_keys_are_sent_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a key in a recipe or a pickle, and one that is not sent."""
    with pytest.raises(ValueError, match="executor: api_key_env: the environment variable 'BOX_KEY' is not set"):
        open_executor({"kind": "sandbox_fusion", "url": "http://h", "api_key_env": "BOX_KEY"})
    monkeypatch.setenv("BOX_KEY", "secret-1")
    with fake_sandbox() as (url, server):
        executor = open_executor({"kind": "sandbox_fusion", "url": url, "api_key_env": "BOX_KEY"})
        executor.run(RIGHT, CALL, ALL)
        assert server.headers[0]["Authorization"] == "Bearer secret-1"
    assert b"secret-1" not in pickle.dumps(executor)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", r"task\.executor\.kind: 'nowhere' is not known; known: e2b, local, sandbox_fusion"),
        ({"kind": "sandbox_fusion"}, r"task\.executor\.url: required"),
        ({"kind": "sandbox_fusion", "url": "host:80"}, "no address of a server"),
        ({"kind": "sandbox_fusion", "url": "http://h", "concurrency": 0}, "concurrency and patience >= 1"),
        ({"kind": "sandbox_fusion", "url": "http://h", "retry": 2}, "did you mean 'retries'"),
        ({"kind": "e2b"}, "needs the package e2b-code-interpreter: pip install e2b-code-interpreter"),
    ],
)
def test_executors_that_are_refused(spec: Any, message: str) -> None:
    """Catches a recipe whose mistake is found at the first program."""
    with pytest.raises(ValueError, match=message):
        open_executor(spec, field="task.executor")


def test_executors_are_kept_and_travel() -> None:
    """Catches a sandbox that is started once per program, and an executor that a worker cannot be sent."""
    spec = {"kind": "sandbox_fusion", "url": "http://h"}
    assert open_executor(spec) is open_executor(dict(spec))
    assert open_executor("local") == Local()
    assert pickle.loads(pickle.dumps(open_executor(spec))) == registry.build("executors", spec)


def test_reports_are_not_taken_at_their_word() -> None:
    """Catches lines that are none, and a second line that replaces the first."""
    lines = ('M[0, "wrong", ""]', 'M[0, "passed", ""]', "M[1]", "Mnull", 'M["1", "passed", ""]', 'N[2, "passed", ""]')
    assert read_report("\n".join((*lines, ' M[3, "passed", ""]')), "M") == {0: ("wrong", "")}


class Liar:
    """A machine whose program has found the mark, and says what it likes."""

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome

    def execute(self, source: str, stdin: str, seconds: float) -> Ran:
        mark = re.findall(r'"mark": "([0-9a-f]{32})"', source)[0]
        lines = [mark + json.dumps([number, outcome, ""]) for number, outcome in ((-1, "passed"), (0, self.outcome))]
        return Ran("\n".join(lines), "", 0)


@pytest.mark.parametrize("outcome", ["passed", "value", "great"])
def test_a_report_cannot_pass_a_call(outcome: str) -> None:
    """Catches a program that passes calls, whose results it has not been told, by saying so."""
    tests = CodeTests("call", names=("f",), arguments=("[1]",), returns=("2",))
    (result,) = RemoteTests(Liar(outcome), tests, ALL, patience=1.0, concurrency=1).run("")
    assert (result.outcome, result.detail) == ("wrong", "a report that is none")


# E2B: a stand-in with the names and the behaviour of e2b-code-interpreter 2.11.


class SandboxException(Exception):  # noqa: N818
    """As the client's."""


class TimeoutException(SandboxException):
    """As the client's."""


class SandboxUnreachableException(TimeoutException):
    """As the client's: a class below that of time-outs."""


class AuthenticationException(Exception):  # noqa: N818
    """As the client's."""


class CommandExitException(SandboxException):
    """As the client's: a command whose exit status is not 0."""

    def __init__(self, stdout: str, stderr: str, exit_code: int) -> None:
        super().__init__(stderr)
        self.stdout, self.stderr, self.exit_code = stdout, stderr, exit_code


class FakeE2B:
    """Sandboxes that run scripts here."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.ended = 0
        self.broken: Callable[[int], Exception | None] = lambda number: None

    def create(self, template: str | None = None, **about: Any) -> Any:
        self.created.append({"template": template, **about})
        failure = self.broken(len(self.created))
        if failure is not None:
            raise failure
        files: dict[str, bytes] = {}
        commands = SimpleNamespace(run=lambda command, timeout: self.ran(files, timeout))
        return SimpleNamespace(files=SimpleNamespace(write=files.__setitem__), commands=commands, kill=self.kill)

    def ran(self, files: dict[str, bytes], timeout: float) -> Any:
        code, given = (files[f"/home/user/{name}"].decode() for name in ("main.py", "input.txt"))
        reply = json.loads(run_code({"code": code, "stdin": given, "run_timeout": timeout}, 0).body)["run_result"]
        if reply["status"] == "TimeLimitExceeded":
            raise TimeoutException("deadline")
        if reply["return_code"]:
            raise CommandExitException(reply["stdout"], reply["stderr"], reply["return_code"])
        return SimpleNamespace(stdout=reply["stdout"], stderr=reply["stderr"], exit_code=0)

    def kill(self) -> bool:
        self.ended += 1
        return True


@pytest.fixture
def e2b(monkeypatch: pytest.MonkeyPatch) -> FakeE2B:
    """The client's package, as far as it is used."""
    service, module = FakeE2B(), ModuleType("e2b_code_interpreter")
    module.__spec__ = ModuleSpec("e2b_code_interpreter", None)
    errors = (TimeoutException, CommandExitException, AuthenticationException)
    vars(module).update({error.__name__: error for error in errors}, Sandbox=service)
    monkeypatch.setitem(sys.modules, "e2b_code_interpreter", module)
    monkeypatch.setenv("E2B_API_KEY", "secret-2")
    return service


def test_programs_at_e2b(e2b: FakeE2B) -> None:
    """Catches a sandbox that is shared or left running, one with the internet, and a wrong verdict."""
    executor = registry.build("executors", {"kind": "e2b", "backoff": 0.0, "patience": 1.0})
    for number, tests in enumerate((STDIO, FUNCTION, CALL), start=1):
        assert [r.outcome for r in executor.run(RIGHT, tests, ALL)] == ["passed"] * 3
        assert len(e2b.created) == e2b.ended == number
    assert [r.outcome for r in executor.run(RIGHT.replace("+ 1", "/ 0"), STDIO, Limits())] == [
        "exception",
        "not run",
        "not run",
    ]
    assert executor.run("while True: pass", STDIO, Limits(seconds=0.1)) == (
        TestResult("timed out", "by the clock"),
        TestResult("not run"),
        TestResult("not run"),
    )
    assert all(about["allow_internet_access"] is False and about["api_key"] == "secret-2" for about in e2b.created)
    assert b"secret-2" not in pickle.dumps(executor)


def test_failures_of_e2b(e2b: FakeE2B) -> None:
    """Catches a failed start taken for a wrong program, or tried for ever with a key that is refused."""
    executor = registry.build("executors", {"kind": "e2b", "retries": 1, "backoff": 0.0})
    e2b.broken = lambda number: SandboxUnreachableException("busy") if number == 1 else None
    assert [r.outcome for r in executor.run(RIGHT, CALL, ALL)] == ["passed"] * 3
    e2b.broken = lambda number: AuthenticationException("no such key")
    results = executor.run(RIGHT, CALL, ALL)
    assert [r.outcome for r in results] == ["error"] * 3
    assert results[0].detail == "E2B: AuthenticationException: no such key"
    assert len(e2b.created) == 3
    e2b.broken = lambda number: None
    e2b.ran = lambda files, timeout: (_ for _ in ()).throw(SandboxUnreachableException("gone"))  # type: ignore[method-assign]
    assert [r.outcome for r in executor.run(RIGHT, CALL, ALL)] == ["error"] * 3
    assert e2b.ended == 2
