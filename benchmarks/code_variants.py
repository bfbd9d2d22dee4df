"""Reference programs written otherwise: right, wrong or neither, as the tests have it.

What matters is not whether a variant passes but whether it does so wherever it is judged. ``CHANGED``: one thing in the
text is another (a number, a comparison, an operator, a statement). ``RETURNED``: the tested function returns the same
in another type. ``FORMS``: the same function by another way, or with something besides. ``SCRIPTS``: the same for
programs that read and print.
"""

import ast
from collections.abc import Callable, Iterator

from benchmarks.code_mutants import tested_names
from revelm.rewards.code_tests import CodeTests
from revelm.tasks.code_statements import parsed


def _sections(text: str) -> dict[str, str]:
    """Texts by their headings."""
    parts = (part.partition("\n") for part in text.split("## ")[1:])
    return {name: body for name, _, body in parts}


# name -> what a tested function returns in place of ``v``.
RETURNED = {
    "tuple for list": "tuple(v) if type(v) is list else v",
    "list for tuple": "list(v) if type(v) is tuple else v",
    "inner tuples": "[tuple(x) if type(x) is list else x for x in v] if type(v) is list else v",
    "float for int": "float(v) if type(v) is int and abs(v) < 2**53 else v",
    "int for float": "int(v) if type(v) is float and v == v and abs(v) < 2**53 else v",
    "int for bool": "int(v) if type(v) is bool else v",
    "bool for int": "bool(v) if type(v) is int and v in (0, 1) else v",
    "numpy integer": "numpy.int64(v) if type(v) is int and abs(v) < 2**62 else v",
    "numpy float": "numpy.float64(v) if type(v) is float else v",
    "numpy float32": "numpy.float32(v) if type(v) is float else v",
    "numpy bool": "numpy.bool_(v) if type(v) is bool else v",
    "numpy text": "numpy.str_(v) if type(v) is str else v",
    "numpy array": "numpy.array(v) if _is_numbers(v) else v",
    "numpy numbers inside": "[numpy.int64(x) if type(x) is int else x for x in v] if _is_integers(v) else v",
    "generator": "(x for x in v) if type(v) in (list, tuple) else v",
    "map": "map(lambda x: x, v) if type(v) in (list, tuple) else v",
    "reversed": "reversed(v[::-1]) if type(v) in (list, tuple) else v",
    "values of a dictionary": "dict(enumerate(v)).values() if type(v) in (list, tuple) else v",
    "keys of a dictionary": "dict.fromkeys(v).keys() if type(v) in (list, tuple, set) and _is_hashable(v) else v",
    "text of a subclass": "_Text(v) if type(v) is str else v",
    "number of a subclass": "_Number(v) if type(v) is int else v",
    "list of a subclass": "_List(v) if type(v) is list else v",
    "list with methods": "_Stack(v) if type(v) is list else v",
    "dictionary of a subclass": "collections.OrderedDict(v) if type(v) is dict else v",
    "defaultdict": "collections.defaultdict(lambda: 0, v) if type(v) is dict else v",
    "Counter": "collections.Counter(v) if type(v) is dict and all(type(x) is int for x in v.values()) else v",
    "deque": "collections.deque(v) if type(v) is list else v",
    "array": "array.array('q', v) if _is_integers(v) else v",
    "bytes": "v.encode() if type(v) is str else v",
    "Decimal": "decimal.Decimal(v) if type(v) in (int, float) and abs(v) < 2**53 else v",
    "Fraction": "fractions.Fraction(v) if type(v) in (int, float) and abs(v) < 2**53 else v",
    "complex": "complex(v) if type(v) in (int, float) and abs(v) < 2**53 else v",
    "named tuple": "collections.namedtuple('N', [f'x{i}' for i in range(len(v))])(*v) if type(v) is tuple else v",
    "dataclass": "_Boxed(v)",
    "set": "set(v) if type(v) in (list, tuple) and _is_hashable(v) else v",
    "frozen set": "frozenset(v) if type(v) in (list, tuple, set) and _is_hashable(v) else v",
    "list of a set": "list(v) if type(v) in (set, frozenset) else v",
    "enumeration": "enum.IntEnum('E', {'x': v}).x if type(v) is int and abs(v) < 2**62 else v",
    "text for number": "str(v) if type(v) in (int, float) else v",
    "in a list": "[v]",
    "None for false": "None if v is False or v == [] or v == '' else v",
    "not a number": "float('nan') if type(v) is float else v",
    "an exception": "ValueError(v)",
    "nearly": "v * (1 + 1e-9) if type(v) is float else v",
    "nothing for something": "[] if type(v) in (int, float, list, tuple) else v",
    "an equal of everything": "_Equal()",
}
_RETURNING = """

import array, collections, dataclasses, decimal, enum, fractions, numpy

class _Text(str): pass
class _Number(int): pass
class _List(list): pass

class _Stack(list):
    def push(self, x): self.append(x)

@dataclasses.dataclass
class _Boxed:
    inside: object

class _Equal:
    def __eq__(self, other): return True

def _is_numbers(v):
    return type(v) in (list, tuple) and len(v) > 0 and all(type(x) in (int, float, bool) for x in v)

def _is_integers(v):
    return type(v) is list and all(type(x) is int and abs(x) < 2**62 for x in v)

def _is_hashable(v):
    try:
        return set(v) is not None
    except TypeError:
        return False

def _returning(function):
    depth = 0
    def changed(*positional, **named):
        nonlocal depth
        depth += 1
        try:
            v = function(*positional, **named)
        finally:
            depth -= 1
        return v if depth else RETURNED
    return changed

"""
# A function that is given the tested one as ``f`` and makes another of it, ``g``.
FORMS = _sections(
    r"""
## prints
def g(*a, **k):
    print('passed', a)
    return f(*a, **k)
## large output
print('x' * 3000000)
def g(*a, **k):
    return f(*a, **k)
## raises behind
def g(*a, **k):
    f(*a, **k)
    raise ValueError(a)
## raises StopIteration
def g(*a, **k):
    raise StopIteration
## raises AssertionError
def g(*a, **k):
    raise AssertionError
## raises its own
class Own(Exception): pass
def g(*a, **k):
    raise Own(a)
## leaves
import sys
def g(*a, **k):
    sys.exit(0)
## catches its own
def g(*a, **k):
    try:
        raise KeyError('x')
    except KeyError:
        return f(*a, **k)
## empties its arguments
def g(*a, **k):
    v = f(*a, **k)
    for x in a:
        if type(x) in (list, dict, set): x.clear()
    return v
## adds to its arguments
def g(*a, **k):
    v = f(*a, **k)
    for x in a:
        if type(x) is list: x.append(1)
    return v
## changes inside its arguments
def g(*a, **k):
    v = f(*a, **k)
    for x in a:
        for y in x if type(x) is list else ():
            if type(y) is list: y.append(1)
    return v
## returns its argument
def g(*a, **k):
    v = f(*a, **k)
    if a and type(a[0]) is list and type(v) is list:
        a[0][:] = v
        return a[0]
    return v
## copies first
import copy
def g(*a, **k):
    return f(*copy.deepcopy(a), **k)
## counts calls
calls = 0
def g(*a, **k):
    global calls
    calls += 1
    return f(*a, **k) if calls < 2 else None
## remembers
seen = {}
def g(*a, **k):
    key = repr((a, k))
    if key not in seen: seen[key] = f(*a, **k)
    return seen[key]
## default that is changed
def g(*a, _list=[], **k):
    _list.append(1)
    return f(*a, **k)
## same object each time
box = []
def g(*a, **k):
    v = f(*a, **k)
    if type(v) is not list: return v
    box[:] = v
    return box
## object that is called
class Called:
    def __call__(self, *a, **k): return f(*a, **k)
g = Called()
## class with __new__
class g:
    def __new__(cls, *a, **k): return f(*a, **k)
## static method
class Own:
    @staticmethod
    def do(*a, **k): return f(*a, **k)
g = Own.do
## bound method
class Own:
    def do(self, *a, **k): return f(*a, **k)
g = Own().do
## partial
import functools
g = functools.partial(f)
## lambda
g = lambda *a, **k: f(*a, **k)
## cached
import functools
@functools.lru_cache(None)
def g(*a, **k): return f(*a, **k)
## decorated
import functools
def d(h):
    @functools.wraps(h)
    def i(*a, **k): return h(*a, **k)
    return i
g = d(f)
## typed
from typing import Any, List, Optional, TypeVar, Union
T = TypeVar('T')
def g(*a: Any, **k: Optional[Any]) -> Union[Any, List[T]]:
    return f(*a, **k)
## coroutine
async def g(*a, **k): return f(*a, **k)
## run by a loop
import asyncio
async def h(*a, **k): return f(*a, **k)
def g(*a, **k): return asyncio.run(h(*a, **k))
## generator
def g(*a, **k):
    v = f(*a, **k)
    yield from v if type(v) in (list, tuple) else [v]
## deep recursion
import sys
sys.setrecursionlimit(10**6)
def h(n): return 0 if n == 0 else h(n - 1)
def g(*a, **k):
    h(20000)
    return f(*a, **k)
## endless recursion
def h(n): return h(n + 1)
def g(*a, **k):
    try: h(0)
    except RecursionError: pass
    return f(*a, **k)
## thread
import sys, threading
threading.stack_size(2**26)
def g(*a, **k):
    found = []
    t = threading.Thread(target=lambda: found.append(f(*a, **k)))
    t.start(); t.join()
    return found[0]
## pool of threads
from concurrent.futures import ThreadPoolExecutor
def g(*a, **k):
    with ThreadPoolExecutor(2) as pool: return pool.submit(f, *a, **k).result()
## other processes
from multiprocessing import Pool
def h(x): return x + 1
def g(*a, **k):
    with Pool(1) as pool: assert pool.map(h, [1]) == [2]
    return f(*a, **k)
## main that prints
g = f
if __name__ == '__main__':
    print(g(int(input())))
## leaves at its end
import sys
g = f
if True:
    NAME = g
    sys.exit(0)
## reads at its end
g = f
if True:
    NAME = g
    print(input())
## asserts at its end
g = f
assert callable(g)
## fails at its end
g = f
NAME = g
raise ValueError('x')
## names of builtins
list_, len_ = list, len
list = dict = set = tuple = str = int = len = sum = sorted = isinstance = print = None
abs = lambda *_: 0
g = f
## names of modules
math = re = np = numpy = collections = None
g = f
## names of the tests
check = candidate = inputs = results = assertion = inp = exp = i = None
g = f
## random
import random
def g(*a, **k):
    random.seed(1)
    random.random()
    return f(*a, **k)
## clock
import time
def g(*a, **k):
    time.time(), time.perf_counter()
    return f(*a, **k)
## file
import os, tempfile
def g(*a, **k):
    with tempfile.NamedTemporaryFile('w+') as file:
        file.write('x')
    return f(*a, **k)
## environment
import os
def g(*a, **k):
    os.environ['X'] = '1'
    os.environ.get('HOME'), os.getcwd(), os.getpid()
    return f(*a, **k)
## closed output
import sys
def g(*a, **k):
    sys.stdout.flush()
    sys.stderr.write('x')
    return f(*a, **k)
## warns
import warnings
def g(*a, **k):
    warnings.warn('x')
    return f(*a, **k)
## match
def g(*a, **k):
    match a:
        case ():
            return f(**k)
        case _:
            return f(*a, **k)
## walrus
def g(*a, **k):
    if (v := f(*a, **k)) is not None: return v
## exec
scope = {'f': f}
exec('def h(*a, **k): return f(*a, **k)', scope)
g = scope['h']
## global names gone
import functools
g = functools.partial(lambda h, *a, **k: h(*a, **k), f)
del f
"""
)
# A whole script; PROGRAM stands for the text of the reference, INDENTED for the same in a function.
SCRIPTS = _sections(
    r"""
## as main
def main():
INDENTED
    pass
if __name__ == '__main__':
    main()
## leaves at its end
PROGRAM
import sys
sys.exit(0)
## leaves with exit
PROGRAM
exit()
## leaves with a status
PROGRAM
import sys
sys.exit(1)
## fails at its end
PROGRAM
raise ValueError
## lines of stdin
import sys
input = lambda *_: sys.stdin.readline().rstrip('\n')
PROGRAM
## bytes of stdin
import sys
_lines = iter(sys.stdin.buffer.read().decode().splitlines())
input = lambda *_: next(_lines)
PROGRAM
## open(0)
_lines = iter(open(0).read().split('\n'))
input = lambda *_: next(_lines)
PROGRAM
## os.read
import os
_lines = iter(os.read(0, 10**7).decode().split('\n'))
input = lambda *_: next(_lines)
PROGRAM
## asks
_input = input
input = lambda *_: _input('')
PROGRAM
## in a thread
import sys, threading
sys.setrecursionlimit(10**6)
threading.stack_size(2**26)
def main():
INDENTED
    pass
t = threading.Thread(target=main)
t.start()
t.join()
## deep
import sys
sys.setrecursionlimit(10**6)
def h(n): return 0 if n == 0 else h(n - 1)
h(30000)
PROGRAM
## blanks behind
_print = print
def print(*a, end='\n', **k): _print(*a, end=' ' + end, **k)
PROGRAM
## lines of Windows
_print = print
def print(*a, end='\n', **k): _print(*a, end=end.replace('\n', '\r\n'), **k)
PROGRAM
## blank lines behind
PROGRAM
print()
print()
## blank line in front
print()
PROGRAM
## blank in front
print(' ', end='')
PROGRAM
## through bytes
import sys
def print(*a, sep=' ', end='\n', **k): sys.stdout.buffer.write((sep.join(map(str, a)) + end).encode())
PROGRAM
## through write
import sys
def print(*a, sep=' ', end='\n', **k): sys.stdout.write(sep.join(map(str, a)) + end)
PROGRAM
## collected
import sys
_all = []
def print(*a, sep=' ', end='\n', **k): _all.append(sep.join(map(str, a)) + end)
PROGRAM
sys.stdout.write(''.join(_all))
## by an exit function
import atexit
_all = []
_print = print
def print(*a, sep=' ', end='\n', **k): _all.append(sep.join(map(str, a)) + end)
atexit.register(lambda: _print(''.join(_all), end=''))
PROGRAM
## to the error stream
import sys
sys.stderr.write('x' * 100000)
PROGRAM
## large output
print('x' * 3000000)
PROGRAM
## one more line
PROGRAM
print('done')
## no last newline
import sys
_all = []
def print(*a, sep=' ', end='\n', **k): _all.append(sep.join(map(str, a)) + end)
PROGRAM
sys.stdout.write(''.join(_all).rstrip('\n'))
## names of builtins
list_ = 1
PROGRAM
"""
)


def changed(program: str, tests: CodeTests) -> Iterator[tuple[str, str]]:
    """One thing in the tested function (or anywhere in a script) is another: (kind, program)."""
    for kind, is_place, change in _CHANGES:
        tree = parsed(program)
        found = [node for node in _inside(tree, program, tests) if is_place(node)]
        if found:
            change(found[-1])
            yield kind, ast.unparse(tree)


def variants(program: str, tests: CodeTests) -> Iterator[tuple[str, str]]:
    """The program written otherwise: (kind, program)."""
    if tests.method == "stdio":
        indented = "\n".join(f"    {line}" for line in program.split("\n"))
        for kind, text in SCRIPTS.items():
            yield f"script: {kind}", text.replace("INDENTED", indented).replace("PROGRAM", program)
        return
    names = tested_names(program, tests)
    for kind, expression in RETURNED.items():
        wrapped = "".join(f"{name} = _returning({name})\n" for name in names)
        yield f"returns: {kind}", program + _RETURNING.replace("RETURNED", f"({expression})") + wrapped
    functions = [name for name in names if "." not in name]
    for kind, text in FORMS.items():
        if len(functions) == 1:
            body = text.replace("NAME", functions[0])
            yield f"form: {kind}", f"{program}\n\nf = {functions[0]}\n{body}\n{functions[0]} = g\n"


def _inside(tree: ast.Module, program: str, tests: CodeTests) -> list[ast.AST]:
    names = set() if tests.method == "stdio" else {name.rpartition(".")[2] for name in tested_names(program, tests)}
    places = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name in names] or [tree]
    return [inner for place in places for part in place.body for inner in ast.walk(part)]


def _swap(pairs: dict[type, type]) -> Callable[[ast.AST], None]:
    def change(node: ast.AST) -> None:
        if isinstance(node, ast.Compare):
            node.ops[0] = pairs[type(node.ops[0])]()
        elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
            node.op = pairs[type(node.op)]()

    return change


_ORDER: dict[type, type] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_SAMENESS: dict[type, type] = {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In}
_ARITHMETIC: dict[type, type] = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Mod: ast.FloorDiv}
_ARITHMETIC |= {ast.FloorDiv: ast.Div, ast.Div: ast.FloorDiv}
_BOOLEAN: dict[type, type] = {ast.And: ast.Or, ast.Or: ast.And}


def _up(node: ast.AST) -> None:
    assert isinstance(node, ast.Constant)
    node.value += 1


def _down(node: ast.AST) -> None:
    assert isinstance(node, ast.Constant)
    node.value -= 1


def _negated(node: ast.AST) -> None:
    assert isinstance(node, ast.If | ast.While | ast.IfExp)
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _gone(node: ast.AST) -> None:
    assert isinstance(node, ast.Return)
    node.value = None


def _left_out(node: ast.AST) -> None:
    assert isinstance(node, ast.For | ast.If | ast.While)
    node.body[-1] = ast.Pass()


_CHANGES: list[tuple[str, Callable[[ast.AST], bool], Callable[[ast.AST], None]]] = [
    ("last number + 1", lambda n: isinstance(n, ast.Constant) and type(n.value) is int, _up),
    ("last number - 1", lambda n: isinstance(n, ast.Constant) and type(n.value) is int, _down),
    ("< for <=", lambda n: isinstance(n, ast.Compare) and type(n.ops[0]) in _ORDER, _swap(_ORDER)),
    ("== for !=", lambda n: isinstance(n, ast.Compare) and type(n.ops[0]) in _SAMENESS, _swap(_SAMENESS)),
    ("+ for -", lambda n: isinstance(n, ast.BinOp | ast.AugAssign) and type(n.op) in _ARITHMETIC, _swap(_ARITHMETIC)),
    ("and for or", lambda n: isinstance(n, ast.BoolOp), _swap(_BOOLEAN)),
    ("condition negated", lambda n: isinstance(n, ast.If | ast.IfExp), _negated),
    ("returns nothing", lambda n: isinstance(n, ast.Return) and n.value is not None, _gone),
    ("statement left out", lambda n: isinstance(n, ast.For | ast.If | ast.While), _left_out),
]
