"""What correct programs do that a sandbox may get wrong: objects, exceptions, callbacks, streams, children."""

import json
from collections.abc import Iterator
from textwrap import dedent

import pytest

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


PROGRAM = """
    import json
    from collections import OrderedDict, defaultdict, namedtuple
    from dataclasses import dataclass

    class Cache(OrderedDict):
        def __init__(self, room):
            super().__init__()
            self.room = room
        def read(self, key): return self.get(key, -1)
        def put(self, key, value):
            self[key] = value
            if len(self) > self.room: self.popitem(last=False)

    class Pile(list):
        def push(self, item): self.append(item)

    class Pile2(dict):
        def most(self): return max(self.values())

    class Plain(list):
        def __repr__(self): return "Plain"

    @dataclass
    class Place:
        x: int
        def __getitem__(self, key): return getattr(self, key)
        def __setitem__(self, key, value): setattr(self, key, value)
        def __delitem__(self, key): setattr(self, key, None)

    class Liar:
        __class__ = property(lambda self: list)
    liar = Liar()

    Point = namedtuple("Point", "x y")
    class Refused(ValueError): pass
    class Broke(Exception): pass
    class VeryBroke(Broke): pass

    def read(text): return json.loads(text)
    def refuse(word): raise Refused(word)
    def look(key): return {}[key]
    def ask(money): raise (VeryBroke if money < 0 else Broke)(money)
    def place(x): return Place(x)
    def counts(words):
        found = defaultdict(int)
        for word in words: found[word] += 1
        return found
    def fill(groups): return groups["new"]
    def views(keys, items): return keys & {1}, sorted(items), {2: 3}.keys()
    def values(): return {1: 2}.values()
    def point(): return Point(1, Point(2, 3))
    def plain(): return Plain([1, 2])
    def total(numbers): return sum(numbers)
    def first(numbers): return next(iter(numbers))
    def careful(f, x):
        try: return f(x)
        except ValueError as error: return str(error)
    def careless(f, x): return f(x)
    """
STATEMENTS = (
    "c = Cache(1)\nc.put(1, 2)\nc.put(3, 4)\nassert c.read(1) == -1 and c.read(3) == 4 and len(c) == 1",
    "p = Pile([1])\np.push(2)\nassert list(p) == [1, 2] and p[1] == 2",
    "p = Pile([1])\nassert p == [1] and [1] == p and p != (1,) and p != [2]\np.push(p)\nassert p == [1, p] != [1]",
    "assert Pile2({1: 2}) == {1: 2} and Pile2() != {1: 2} and Pile2({1: Pile([2])}) == {1: [2]}",
    "assert values() != [2] and list(values()) == [2] and len(values()) == 1 and sum(values()) == 2",
    "assert plain() == [1, 2] and point().y.x == 2 and point() == (1, (2, 3))",
    "assert place(1) == Place(1) and place(1) != Place(2) and place(1) != 1 and [place(1)] == [Place(1)]",
    "assert isinstance(place(1), Place) and not isinstance(3, Place) and place.__name__ == 'place'",
    "p = Place(1)\np['x'] = 5\nassert p.x == 5\ndel p['x']\nassert p['x'] is None",
    "assert counts('aab') == {'a': 2, 'b': 1} and counts('')['c'] == 0",
    "from collections import defaultdict\nassert fill(defaultdict(list)) == []",
    "assert views({1: 2}.keys(), {1: 2}.items()) == ({1}, [(1, 2)], {2: 3}.keys())",
    "try:\n    read('{')\nexcept ValueError as error:\n    assert 'line 1' in str(error)\nelse:\n    assert False",
    "try:\n    refuse('no')\nexcept ValueError as error:\n    assert str(error) == 'no'\nelse:\n    assert False",
    "try:\n    refuse('no')\nexcept Refused as error:\n    assert error.args == ('no',)\nelse:\n    assert False",
    "try:\n    look('a')\nexcept KeyError as error:\n    assert error.args == ('a',)\nelse:\n    assert False",
    "try:\n    ask(-1)\nexcept Broke:\n    pass\nelse:\n    assert False",
    "try:\n    ask(1)\nexcept VeryBroke:\n    assert False\nexcept Broke:\n    pass\nelse:\n    assert False",
    "import itertools\nassert total(n for n in range(4)) == 6 and first(itertools.count(5)) == 5",
    "def bad(x):\n    raise ValueError(x)\nassert careful(bad, 'why') == 'why'",
    "def bad(x):\n    raise ValueError(x)\ntry:\n    careless(bad, 1)\nexcept ValueError:\n    x = 1\nassert x == 1",
)


CLASSES = """
    import asyncio, contextlib, dataclasses, enum
    class V:
        def __init__(self, x, y): self.x, self.y = x, y
        def __add__(self, other): return V(self.x + other.x, self.y + other.y)
        def __neg__(self): return V(-self.x, -self.y)
        def __abs__(self): return (self.x**2 + self.y**2) ** 0.5
        def __eq__(self, other): return (self.x, self.y) == (other.x, other.y)
        def __lt__(self, other): return self.x < other.x
        def __hash__(self): return hash((self.x, self.y))
        def __bool__(self): return self.x != 0
        def __int__(self): return self.x
        def __iter__(self): return iter((self.x, self.y))
        def __contains__(self, item): return True
        def __reversed__(self): return iter((self.y, self.x))
        def __format__(self, spec): return spec + str(self.x)
        def __sub__(self, other): return 0
        __radd__ = __rsub__ = __mul__ = __sub__
        def __enter__(self): return 5
        def __exit__(self, *_): return True
    class W(V): pass
    @contextlib.contextmanager
    def block(): yield 7
    async def later(x):
        await asyncio.sleep(0)
        return x + 1
    @dataclasses.dataclass(order=True)
    class D: a: int
    one = V(1, 2)
    def single(): return one
    def same(x): return x
    class Shelf(list):
        def top(self): return self[-1]
"""
OF_CLASSES = (
    "assert V(1, 2) + V(3, 4) == V(4, 6) and (-V(1, 2)).x == -1 and abs(V(3, 4)) == 5.0",
    "assert V(1, 2) < V(2, 0) and max(V(1, 2), V(0, 1)) == V(1, 2) and sorted([D(2), D(1)]) == [D(1), D(2)]",
    "assert V(1, 0) and not V(0, 1) and not Shelf() and int(V(3, 1)) == 3 and f'{V(3, 1):>}' == '>3'",
    "assert len({V(1, 2), V(1, 2)}) == 1 and {V(1, 2): 3}[V(1, 2)] == 3",
    "assert 2 in V(1, 2) and 3 not in V(1, 2) and 4 in Shelf([4]) and list(reversed(V(1, 2))) == [2, 1]",
    "assert issubclass(W, V) and not issubclass(V, W) and vars(V(1, 2)) == {'x': 1, 'y': 2}",
    "assert single() is single() and single() is not V(1, 2) and same(one) is one",
    "items = [1]\nassert same(items) is items and same((1,)) == (1,)",
    "with V(1, 2) as five, block() as seven: assert (five, seven) == (5, 7)",
    "import asyncio\nassert asyncio.run(later(1)) == 2",
    "import asyncio\nasync def f(): return await asyncio.gather(later(1), later(2))\nassert asyncio.run(f()) == [2, 3]",
)


@pytest.mark.parametrize("statement", OF_CLASSES)
def test_classes_are_what_they_are(statement: str, sandbox: LocalSandbox) -> None:
    """Catches right classes called wrong: operators, order, truth, hashes, blocks, coroutines, identity."""
    score = score_code(dedent(CLASSES), CodeTests("function", statements=(statement,)), limits=LIMITS, executor=sandbox)
    assert score.value == 1.0, score.reason


@pytest.mark.parametrize(
    "statement",
    [
        "assert abs(V(1, 2) - 3.5) < 1e-6",
        "assert 3.5 - V(1, 2) == 0",
        "assert sum([V(1, 2)]) == 0",
        "assert V(1, 2) * 3 == 0",
        "assert V(1, 2) < 3 or V(1, 2) > 3",
        "assert 3 in V(1, 2)",
        "with V(1, 2): assert False",
        "with V(1, 2): raise ValueError",
    ],
)
def test_objects_do_not_decide_over_values_of_tests(statement: str, sandbox: LocalSandbox) -> None:
    """Catches an operator of the program that is given what is expected, and a block that takes back a failed test."""
    score = score_code(dedent(CLASSES), CodeTests("function", statements=(statement,)), limits=LIMITS, executor=sandbox)
    assert score.value == 0.0


@pytest.mark.parametrize("statement", STATEMENTS)
def test_objects_and_exceptions_are_what_they_are(statement: str, sandbox: LocalSandbox) -> None:
    """Catches correct programs called wrong: classes made of collections, exceptions, iterators, callbacks."""
    tests = CodeTests("function", statements=(statement,))
    score = score_code(dedent(PROGRAM), tests, limits=LIMITS, executor=sandbox)
    assert score.value == 1.0, score.reason


def test_exceptions_of_a_program_that_is_started_again(sandbox: LocalSandbox) -> None:
    """Catches names that stand for the classes of a program that a slow test has ended."""
    code = dedent(PROGRAM) + "\ndef spin():\n    while True: pass\n"
    expected = "try:\n    refuse('no')\nexcept Refused:\n    pass"
    tests = CodeTests("function", statements=(expected, "spin()", expected), seconds=0.3)
    results = sandbox.run(code, tests, Limits(stops_early=False))
    assert [result.outcome for result in results] == ["passed", "timed out", "passed"]


def test_what_no_program_can_be_given_is_no_fault_of_the_program(sandbox: LocalSandbox) -> None:
    """Catches tests that a correct program cannot pass, called a wrong answer."""
    tests = CodeTests("function", statements=("class A: pass\nf(A())",))
    score = score_code("def f(x): return x", tests, limits=LIMITS, executor=sandbox)
    assert (
        score.reason == "error: test 1 of 1: error: UnpassableError: the tests pass a A, which no program can be given"
    )


@pytest.mark.parametrize(
    ("body", "expected", "is_right"),
    [
        ("np.int64(3)", 3, True),
        ("[np.int64(3), np.bool_(True), np.float32(0.5)]", [3, True, 0.5], True),
        ("np.int64(3)", True, False),
        ("3.0", 3, True),
        ("2.9999999999", 3, True),
        ("1234567890123.0 + 1", 1234567890123, False),
        ("1234567890123.0 + 1", 1234567890123.0, True),
        ("True", 1.0, True),
        ("Decimal(3)", 3, True),
        ("float('nan')", 1.0, False),
        ("10 ** 400", 1.5, False),
    ],
)
def test_numbers_of_calls(body: str, expected: object, is_right: bool, sandbox: LocalSandbox) -> None:
    """Catches numbers of numpy called wrong, and answers near a large whole number called right."""
    tests = CodeTests("call", names=("f",), arguments=("[]",), returns=(json.dumps(expected),))
    code = f"from decimal import Decimal\nimport numpy as np\ndef f(): return {body}"
    assert score_code(code, tests, limits=LIMITS, executor=sandbox).value == is_right


def test_tests_may_report(sandbox: LocalSandbox) -> None:
    """Catches tests of unittest that fail whatever the program is, for want of a stream to report to."""
    statement = """
import unittest
class Test(unittest.TestCase):
    def test(self): self.assertEqual(f(3), 9)
suite = unittest.defaultTestLoader.loadTestsFromTestCase(Test)
assert unittest.TextTestRunner().run(suite).wasSuccessful()
"""
    tests = CodeTests("function", statements=(statement,), names=("f",))
    for body, is_right in (("x * x", 1.0), ("x", 0.0)):
        code = f"def f(x): return {body}"
        assert score_code(code, tests, limits=LIMITS, executor=sandbox).value == is_right


SCRIPTS = {
    "the first stream": "import io, sys\nsys.stdout = io.StringIO()\nprint(1)\nsys.__stdout__.write('9')",
    "a stream of its own": "out = open(1, 'w')\nout.write('9')",
    "bytes of its own": "import os\nout = os.fdopen(1, 'wb')\nout.write(b'9')",
    "a stream by its name": "print(9 if open('/dev/stdin').read() == '' else 0, file=open('/dev/stdout', 'w'))",
    "streams in place of streams": "import sys\nassert 'x' in sys.stdout.mode or 'r' not in sys.stdout.mode\nprint(9)",
    "names of streams": "import sys\nprint(len(sys.stdin.name + sys.stdin.mode + sys.stdout.mode))",
    "closed": "import sys\nprint(9)\nsys.stdout.close()",
    "its file": "import os\nprint(9, end=__file__[:0])",
    "a child": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(9)'], check=True)",
    "a pool": "from multiprocessing import Pool\nwith Pool(2) as pool: print(sum(pool.map(int, '45')))",
    "a mark in front": "\ufeffprint(9)",
    "tables": "import pandas\nprint(pandas.Series([4, 5]).sum())",
    "annotations": "from __future__ import annotations\ndef f(x: Unknown): return x\nprint(f(9))",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_that_print_in_other_ways(name: str, sandbox: LocalSandbox) -> None:
    """Catches output that is lost at the end, and what a script may expect of an interpreter."""
    tests = CodeTests("stdio", inputs=("",), outputs=("9",), prelude="import math")
    score = score_code(SCRIPTS[name], tests, limits=LIMITS, executor=sandbox)
    assert score.value == 1.0, score.reason


def test_hashes_are_the_same_for_all_servers(sandbox: LocalSandbox) -> None:
    """Catches verdicts that depend on which worker reaches them: sets of texts in another order."""
    other = LocalSandbox(isolation=sandbox.isolation)
    try:
        code, tests = "print(hash('a'))", CodeTests("stdio", inputs=("",), outputs=("?",))
        assert sandbox.run(code, tests, LIMITS)[0].detail == other.run(code, tests, LIMITS)[0].detail
    finally:
        other.close()


def test_fresh_interpreters_are_as_forks_are() -> None:
    """Catches scripts that only run where the server has made things ready: `exit`, several threads."""
    code = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
barrier = Barrier(10)
with ThreadPoolExecutor(10) as pool:
    print(sum(pool.map(lambda n: barrier.wait(5) * 0 + n, range(10))))
exit(0)
"""
    fresh = LocalSandbox(start="fresh")
    try:
        score = score_code(code, CodeTests("stdio", inputs=("",), outputs=("45",)), limits=LIMITS, executor=fresh)
    finally:
        fresh.close()
    assert score.value == 1.0, score.reason
