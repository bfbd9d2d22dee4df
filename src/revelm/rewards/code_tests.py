"""How a program is judged: what is run, what must come out, and what came out."""

import re
from dataclasses import dataclass, field
from typing import Literal, Protocol

from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.stdout_match import Matching

_FUTURE = re.compile(r"^from __future__ import [\w, ]+", re.MULTILINE)

Outcome = Literal["passed", "wrong", "exception", "exit", "timed out", "memory", "output", "killed", "not run", "error"]


@dataclass(frozen=True)
class CodeTests:
    """The tests of one problem, of one of three methods.

    ``stdio``: the program is run once per entry of ``inputs`` and must print the entry of ``outputs``.
    ``function``: ``statements`` are run one after the other, each a test (an assert, or a longer piece of code with
    asserts), in one namespace that ``setup`` (imports, helpers; trusted) has prepared. The program runs in another
    process; of what it defines, the statements see ``names``, or where that is None whatever is neither a builtin nor
    defined by ``setup``. Only plain data crosses over, so that an answer cannot fake equality or read a test.
    ``call``: ``names[0]`` (``f``, or ``Solution().f`` as ``Solution.f``) is called with each entry of ``arguments`` and
    must return the entry of ``returns``; lists and tuples count as equal, floats within 1e-6 relative.

    ``matching``: the rule by which output and values are compared (`revelm.rewards.stdout_match`,
    `revelm.rewards.sandbox.values`). ``may_unwrap``: a returned value may be what is in an expected list of one.

    ``prelude``: put in front of the program (imports that answers may rely on, the beginning of a function).
    ``seconds``: CPU time of one test, where the data set gives one.
    """

    method: Literal["stdio", "function", "call"]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    setup: str = ""
    names: tuple[str, ...] | None = None
    arguments: tuple[str, ...] = ()  # each a JSON list
    returns: tuple[str, ...] = ()  # each a JSON value
    prelude: str = ""
    seconds: float | None = None
    matching: Matching = "exact"
    may_unwrap: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for tests that do not fit their method, and for none at all: those would always pass."""
        pairs = {"stdio": (self.inputs, self.outputs), "call": (self.arguments, self.returns)}
        first, second = pairs.get(self.method, (self.statements, self.statements))
        if not first:
            raise ValueError(f"tests of method {self.method!r}: none given; a program without tests cannot be judged")
        if len(first) != len(second):
            raise ValueError(f"tests of method {self.method!r}: {len(first)} inputs for {len(second)} outputs")
        if self.method == "call" and not self.names:
            raise ValueError("tests of method 'call': give the name of the function as names[0]")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds={self.seconds}: expected CPU seconds of one test, above 0")

    @property
    def num_tests(self) -> int:
        """How many tests there are."""
        return len({"stdio": self.inputs, "call": self.arguments}.get(self.method, self.statements))

    def source(self, code: str) -> str:
        """The whole program: ``prelude`` and ``code``, what ``code`` has from ``__future__`` in front of all."""
        code = code.removeprefix("\ufeff")
        if not self.prelude:
            return code
        first = "".join(f"{line}\n" for line in _FUTURE.findall(code))
        return f"{first}{self.prelude}\n{_FUTURE.sub('', code)}"


@dataclass(frozen=True)
class TestResult:
    """What became of one test. ``seconds``: CPU time of the program in it; ``detail``: a line for people."""

    __test__ = False  # not a test of pytest

    outcome: Outcome
    detail: str = ""
    seconds: float = field(default=0.0, compare=False)


class Executor(Protocol):
    """Something that runs programs."""

    def run(self, code: str, tests: CodeTests, limits: Limits) -> tuple[TestResult, ...]:
        """One result per test, in order; tests behind a failed one may be "not run" where ``limits.stops_early``."""
        ...
