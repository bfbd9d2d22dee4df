"""Forms of a function: each is given the tested one as ``f`` and makes another of it, ``g``; NAME is its name."""


def sections(text: str) -> dict[str, str]:
    """Texts by their headings, ``## name``."""
    parts = (part.partition("\n") for part in text.split("## ")[1:])
    return {name: body for name, _, body in parts}


FORMS = sections(
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
