"""Reference programs written otherwise: right, wrong or neither, as the tests have it.

What matters is not whether a variant passes but whether it does so wherever it is judged. One thing in the
text is another (a number, a comparison, an operator, a statement). ``RETURNED``: the tested function returns the same
in another type. The same function by another way, or with something besides, is in `benchmarks.code_forms`, and the
same for programs that read and print in `benchmarks.code_scripts`.
"""

import ast
from collections.abc import Callable, Iterator

from benchmarks.code_forms import FORMS
from benchmarks.code_mutants import tested_names
from benchmarks.code_scripts import SCRIPTS
from revelm.rewards.code_tests import CodeTests
from revelm.tasks.code_statements import parsed

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
