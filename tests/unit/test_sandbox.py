"""What the sandbox does for programs that mean no harm: fidelity, limits, and the verdicts' reasons."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from revelm.core.types import Score
from revelm.rewards.code_score import score_code
from revelm.rewards.code_tests import CodeTests
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.local import LocalSandbox

LIMITS = Limits(seconds=2, total_seconds=60, memory_mb=512)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalSandbox]:
    sandbox = LocalSandbox()
    yield sandbox
    sandbox.close()


def by_statements(sandbox: LocalSandbox, code: str, *statements: str, **fields: object) -> Score:
    tests = CodeTests("function", statements=tuple(map(dedent, statements)), **fields)  # type: ignore[arg-type]
    return score_code(dedent(code), tests, limits=LIMITS, executor=sandbox, is_partial=True)


def by_output(sandbox: LocalSandbox, code: str, given: str, expected: str) -> Score:
    tests = CodeTests("stdio", inputs=(given,), outputs=(expected,))
    return score_code(dedent(code), tests, limits=LIMITS, executor=sandbox)


PROGRAM = """
    import re
    from collections import Counter, OrderedDict, deque, namedtuple
    from decimal import Decimal
    from fractions import Fraction
    import datetime, enum, math
    import numpy as np

    Point = namedtuple("Point", "x y")
    LIMIT = [1, 2]

    class Colour(enum.IntEnum):
        RED = 1

    class Node:
        made = 0
        def __init__(self, value, next=None):
            self.value, self.next = value, next
            Node.made += 1
        def total(self):
            return self.value + (0 if self.next is None else self.next.total())
        def __iter__(self):
            node = self
            while node is not None:
                yield node.value
                node = node.next
        def __len__(self):
            return sum(1 for _ in self)
        def __getitem__(self, i):
            return list(self)[i]
        def __repr__(self):
            return f"Node({self.value})"

    class Stack:
        def __init__(self): self.items = []
        def push(self, item): self.items.append(item)
        def pop(self): return self.items.pop()

    def same(x): return x
    def build(values):
        node = None
        for value in reversed(values): node = Node(value, node)
        return node
    def sort_in_place(a): a.sort()
    def clear(d, s): d["new"] = 1; s.add(3)
    def apply(f, xs): return [f(x) for x in xs]
    def numbers(n): yield from range(n)
    def fails(kind): raise {"v": ValueError, "k": KeyError, "z": ZeroDivisionError}[kind]("why")
    def double(array): array *= 2; return array.sum()
    def match(text): return re.match("a(b)", text)
    def keyed(a, *rest, b=2, **others): return [a, rest, b, others]
"""
STATEMENTS = (
    "assert same(3) == 3 and same(-10**40) == -10**40 and same(True) is True and same(None) is None",
    "assert same([1, (2, 'x'), {3: {4}}]) == [1, (2, 'x'), {3: {4}}] and type(same((1,))) is tuple",
    "import math\nassert math.isnan(same(float('nan'))) and same(float('-inf')) == -math.inf and same(0.1) == 0.1",
    "assert same(b'\\xff') == b'\\xff' and same('\\ud800\\x00é') == '\\ud800\\x00é' and same(2 + 3j) == 2 + 3j",
    "import datetime\nassert same(datetime.date(2020, 1, 2)).year == 2020 and same(range(3)) == range(3)",
    "from decimal import Decimal\nassert same(Decimal('1.10')) == Decimal('1.1')",
    "from fractions import Fraction\nassert same(Fraction(1, 3)) * 3 == 1",
    "from collections import Counter\nassert same(Counter('aab'))['a'] == 2",
    "from collections import deque\nassert same(deque([1, 2])) == deque([1, 2])",
    "assert same(frozenset({1})) == {1} and same(int) is int and isinstance(same([1]), list)",
    "import numpy as np\nassert np.allclose(same(np.eye(2)), np.eye(2)) and same(np.float32(0.5)) == 0.5",
    "import numpy as np\na = np.arange(3)\nassert double(a) == 6 and a.tolist() == [0, 2, 4]",
    "assert Point(1, 2) == (1, 2) and Colour.RED == 1 and LIMIT == [1, 2]",
    "a = [3, 1, 2]\nsort_in_place(a)\nassert a == [1, 2, 3]",
    "d, s = {}, {1}\nclear(d, s)\nassert d == {'new': 1} and s == {1, 3}",
    "assert apply(lambda x: x + 1, [1, 2]) == [2, 3] and apply(str, [1]) == ['1']",
    "assert list(numbers(3)) == [0, 1, 2] and next(numbers(2)) == 0 and tuple(map(same, [1, 2])) == (1, 2)",
    "node = build([1, 2, 3])\nassert node.total() == 6 and node.next.value == 2 and list(node) == [1, 2, 3]",
    "assert len(node) == 3 and node[1] == 2 and repr(node) == 'Node(1)'",
    "assert node.next == node.next and node != node.next",
    "node.next = Node(5)\nassert node.total() == 6 and Node.made >= 4",
    "stack = Stack()\nstack.push([1])\nstack.push(2)\nassert stack.pop() == 2 and stack.items == [[1]]",
    "try:\n    fails('v')\nexcept ValueError as error:\n    assert str(error) == 'why'\nelse:\n    assert False",
    "try:\n    fails('k')\nexcept KeyError:\n    pass\nelse:\n    assert False",
    "assert match('abc').group(1) == 'b' and match('x') is None",
    "assert keyed(1, 2, 3, c=4) == [1, (2, 3), 2, {'c': 4}]",
)


@pytest.mark.parametrize("number", range(len(STATEMENTS)))
def test_tests_reach_a_program_as_if_it_were_beside_them(number: int, sandbox: LocalSandbox) -> None:
    """Catches answers called wrong only because they run in another process: values, changes in place, objects."""
    statements = STATEMENTS[: number + 1] if "node" in STATEMENTS[number] else (STATEMENTS[number],)
    score = by_statements(sandbox, PROGRAM, *statements)
    assert score.value == 1.0, score.reason


def test_builtins_of_tests_stay_theirs_unless_they_are_named(sandbox: LocalSandbox) -> None:
    """Catches a program that redefines `sum` for its tests, and a problem that asks for a function called `sum`."""
    own = "def sum(a, b): return a + b"
    assert by_statements(sandbox, own, "assert sum([1, 2]) == 3").value == 1.0
    assert by_statements(sandbox, own, "assert sum(1, 2) == 3", names=("sum",)).value == 1.0
    assert (
        by_statements(
            sandbox, "check = lambda f: True\nf = 1", "assert check(2)", setup="def check(x): return x == 1"
        ).value
        == 0.0
    )


def test_each_test_has_its_own_time(sandbox: LocalSandbox) -> None:
    """W62: catches one slow test that fails all tests of an answer."""
    slow = "def f(n):\n    while n == 2: pass\n    return n\n"
    tests = CodeTests("function", statements=tuple(f"assert f({n}) == {n}" for n in range(4)), seconds=0.4)
    results = sandbox.run(slow, tests, Limits(stops_early=False))
    assert [result.outcome for result in results] == ["passed", "passed", "timed out", "passed"]
    assert "CPU" in results[2].detail
    first = sandbox.run(slow, tests, Limits(stops_early=True))
    assert [result.outcome for result in first] == ["passed", "passed", "timed out", "not run"]


def test_time_is_counted_from_the_start_of_the_program(sandbox: LocalSandbox) -> None:
    """W60: catches limits that count interpreter start-up and imports of the sandbox itself."""
    tests = CodeTests("stdio", inputs=("",) * 3, outputs=("1",) * 3, seconds=0.05)
    score = score_code("import numpy\nprint(1)", tests, executor=sandbox)
    assert score.value == 1.0, score.reason
    fresh = LocalSandbox(start="fresh")
    try:
        score = score_code("print(1)", tests, executor=fresh)
    finally:
        fresh.close()
    assert score.value == 1.0, score.reason


def test_calls_compare_values_from_json(sandbox: LocalSandbox) -> None:
    """Catches tuples unequal to lists, floats unequal by rounding, and numbers equal to truth values."""
    code = "class Solution:\n    def f(self, a, b): return (a, [b])\ndef g(x): return x\n"

    def value(name: str, arguments: object, returns: object) -> float:
        tests = CodeTests("call", names=(name,), arguments=(json.dumps(arguments),), returns=(json.dumps(returns),))
        return score_code(code, tests, executor=sandbox).value

    assert value("Solution.f", [1, 2], [1, [2]]) == 1.0
    assert value("Solution.f", [1, 2], [1, 2]) == 0.0
    assert value("g", [0.1 + 0.2], 0.3) == 1.0
    assert value("g", [1], True) == value("g", [True], 1) == 1.0
    assert value("g", ["1"], 1) == value("g", [None], 0) == value("g", [2], True) == 0.0
    assert value("g", [{"a": [1]}], {"a": [1]}) == 1.0
    assert value("h", [1], 1) == 0.0


def test_scripts_run_as_scripts_do(sandbox: LocalSandbox) -> None:
    """W61: catches lost input, doubled lines, truncated output, and differences from an interpreter of one's own."""
    assert by_output(sandbox, "a = input()\nimport sys\nprint(a + sys.stdin.read())", "1\n2\n3", "12\n3").value == 1.0
    assert (
        by_output(sandbox, "import sys\nprint(len(sys.stdin.buffer.read()))", "é\n" * 10**6, str(3 * 10**6)).value
        == 1.0
    )
    assert by_output(sandbox, "print('ab' * 10**6)", "", "ab" * 10**6).value == 1.0
    assert by_output(sandbox, "import sys\nfor l in open(0): sys.stdout.write(l)", "1\n2\n", "1\n2\n").value == 1.0
    assert by_output(sandbox, "if __name__ == '__main__': print(1)\nraise SystemExit", "", "1").value == 1.0
    assert by_output(sandbox, "print(1)\nexit(0)", "", "1").value == 1.0
    deep = """
        import sys, threading
        sys.setrecursionlimit(10**6)
        threading.stack_size(64 * 2**20)
        def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
        thread = threading.Thread(target=lambda: print(depth(20000)))
        thread.start()
        """
    assert by_output(sandbox, deep, "", "20000").value == 1.0
    stack = """
        import resource
        resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(1)
        """
    assert by_output(sandbox, stack, "", "1").value == 1.0
    assert by_output(sandbox, "import atexit\natexit.register(print, 2)\nprint(1)", "", "1\n2").value == 1.0
    place = "import os, sys\nprint(len(os.environ), os.listdir('.'), sys.argv[1:], os.path.exists('/home'))"
    assert by_output(sandbox, place, "", "0 [] [] False").value == 1.0


@pytest.mark.parametrize(
    ("leaving", "outcome"),
    [
        ("sys.exit(1)", "passed"),
        ("exit('done')", "passed"),
        ("raise SystemExit(3)", "passed"),
        ("sys.stdout.flush(); os._exit(1)", "exception"),
        ("1 / 0", "exception"),
        ("os.kill(os.getpid(), 9)", "killed"),
        ("raise KeyboardInterrupt", "exception"),
    ],
)
def test_a_script_may_leave_with_any_status(sandbox: LocalSandbox, leaving: str, outcome: str) -> None:
    """Catches right output that fails for its status, unlike in the official harnesses, and failures forgiven with it;
    and tests of functions that take an end for success."""
    tests = CodeTests("stdio", inputs=("",), outputs=("1",))
    assert sandbox.run(f"import os, sys\nprint(1)\n{leaving}", tests, Limits())[0].outcome == outcome
    code = f"import os, sys\ndef f(x):\n    {leaving.replace('; ', chr(10) + '    ')}"
    asserts = CodeTests("function", statements=("assert f(1) is None",), names=("f",))
    call = CodeTests("call", names=("f",), arguments=("[1]",), returns=("null",))
    assert "passed" not in [sandbox.run(code, one, Limits())[0].outcome for one in (asserts, call)]


def test_what_is_printed_is_compared_line_by_line(sandbox: LocalSandbox) -> None:
    """W63: catches insignificant newlines, significant trailing blanks, and error text taken for output."""
    assert by_output(sandbox, "print('1 2  ')\nprint()", "", "1 2").value == 1.0
    assert by_output(sandbox, "print(1)\nprint(2)", "", "1 2").value == 0.0
    failed = by_output(sandbox, "raise ValueError('7')", "", "ValueError: 7")
    assert failed.value == 0.0
    assert "ValueError: 7" in failed.reason


def test_programs_are_told_apart_by_nothing_but_themselves(sandbox: LocalSandbox) -> None:
    """Catches verdicts that depend on chance or on the programs before: hashes, random numbers, leftover files."""
    code = "import random\nprint(list({'a', 'b', 'c', 'd'}), random.random())\nopen('left', 'x').close()"
    tests = CodeTests("stdio", inputs=("",) * 2, outputs=("?",) * 2)
    results = [sandbox.run(code, tests, Limits(stops_early=False)) for _ in range(2)]
    assert len({result.detail for some in results for result in some}) == 1
    assert all(result.outcome == "wrong" for some in results for result in some)


def test_a_server_that_dies_is_replaced(sandbox: LocalSandbox) -> None:
    """Catches a sandbox that is lost for the rest of a run with its server, and descriptors that pile up."""
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    before = sandbox.server_pid
    os.kill(before, 9)
    assert by_output(sandbox, "print(1)", "", "1").value == 1.0
    assert sandbox.server_pid != before
    for _ in range(20):
        assert by_statements(sandbox, "def f(): return 1", "assert f() == 1").value == 1.0
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_before


def test_tests_that_are_broken_are_no_fault_of_the_answer(sandbox: LocalSandbox) -> None:
    """Catches a wrong verdict where the data set is at fault."""
    score = by_statements(sandbox, "f = 1", "assert f == 1", setup="import no_such_module")
    assert score.breakdown["error"] == 1.0
    assert score.reason.startswith("error: test 1 of 1: error: the setup of the tests failed")


def test_there_are_no_tests_that_everything_passes() -> None:
    """W69: catches empty lists of tests that count as solved."""
    for fields in ({"method": "function"}, {"method": "stdio"}, {"method": "call", "names": ("f",)}):
        with pytest.raises(ValueError, match="none given"):
            CodeTests(**fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 inputs for 0 outputs"):
        CodeTests("stdio", inputs=("1",))


@pytest.mark.parametrize(("field", "value"), [("seconds", 0), ("memory_mb", -1), ("wall_factor", 0.5)])
def test_limits_that_nothing_keeps_are_refused(field: str, value: float) -> None:
    """Catches a limit of nothing, under which every answer is wrong."""
    with pytest.raises(ValueError, match=f"limits.{field}={value}"):
        Limits(**{field: value})  # type: ignore[arg-type]


def test_python_and_packages_may_be_below_tmp(tmp_path: Path) -> None:
    """Catches a checkout in /tmp, whose programs would run without namespaces, or without their packages."""
    source = Path(__file__).resolve().parents[2] / "src" / "revelm"
    shutil.copytree(source, tmp_path / "revelm", ignore=shutil.ignore_patterns("__pycache__"))
    code = """
        import sys
        from revelm.rewards.code_score import score_code
        from revelm.rewards.code_tests import CodeTests
        from revelm.rewards.sandbox.local import LocalSandbox
        sandbox = LocalSandbox(isolation="namespaces")
        tests = CodeTests("stdio", inputs=("",), outputs=("1",))
        program = "import numpy.testing, os\\nopen('x', 'w').close()\\nprint(len(os.listdir('.')))"
        score = score_code(program, tests, executor=sandbox)
        print(sys.modules["revelm"].__file__, score.reason)
        sandbox.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if "RuntimeError: no sandbox of isolation" in done.stderr and "Operation not permitted" in done.stderr:
        pytest.skip("no namespaces here")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout
    assert "1 of 1 tests passed" in done.stdout
