"""Reference programs made wrong: what tests worth their name must notice.

- ``empty``: the tested functions do nothing and return None; a program for the standard streams is an empty one;
- ``value``: what the tested function returns is another value of its kind (a number one more, the opposite truth, a
  text or list with one thing more); what a program prints has one character more;
- ``off by one``: the first whole number in the tested function is one more, which may well be the same function.
"""

import ast
import re
from collections.abc import Iterator

from revelm.rewards.code_tests import CodeTests
from revelm.tasks.code_statements import parsed

KINDS = ("empty", "value", "off by one")
_WRONG = """

def _other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float, complex)):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, (list, tuple)):
        return type(value)([*value, 0])
    if isinstance(value, set):
        return value ^ {0}
    if isinstance(value, dict):
        return {**value, "x": 0}
    return 0 if value is None else None


def _mutant(function):
    depth = 0

    def changed(*positional, **named):
        nonlocal depth
        depth += 1
        try:
            value = function(*positional, **named)
        finally:
            depth -= 1
        return value if depth else _other(value)

    return changed

"""
_PRINTING = """
import builtins as _builtins, functools as _functools
print = lambda *values, **options: _builtins.print(*values, "x", **options)
"""


def mutants(program: str, tests: CodeTests) -> Iterator[tuple[str, str]]:
    """(kind, wrong program) for each kind that ``program`` has; as a rule all of ``KINDS``."""
    if tests.method == "stdio":
        yield "empty", "pass\n"
        yield "value", _PRINTING + program
    else:
        names = tested_names(program, tests)
        yield "empty", _emptied(program, names)
        yield "value", program + _WRONG + "".join(f"{name} = _mutant({name})\n" for name in names)
    moved = _off_by_one(program, [] if tests.method == "stdio" else tested_names(program, tests))
    if moved is not None:
        yield "off by one", moved


def tested_names(program: str, tests: CodeTests) -> list[str]:
    """The functions and methods of ``program`` that the tests call: ``f``, ``Solution.f``."""
    text = "\n".join((*tests.statements, tests.setup)) if tests.method == "function" else ""
    roots = {name.partition(".")[0] for name in tests.names or ()}
    found = []
    for node in parsed(program).body:
        if isinstance(node, ast.FunctionDef) and node.name in roots:
            found.append(node.name)
        if isinstance(node, ast.ClassDef) and node.name == "Solution":
            called = re.findall(r"Solution\(\)\.(\w+)", text) or [n.partition(".")[2] for n in tests.names or ()]
            found += [f"Solution.{name}" for name in dict.fromkeys(called)]
    return found


def _emptied(program: str, names: list[str]) -> str:
    tree = parsed(program)
    for node in _functions(tree, names):
        node.body = [ast.Pass()]
    return ast.unparse(tree)


def _off_by_one(program: str, names: list[str]) -> str | None:
    tree = parsed(program)
    places = _functions(tree, names) if names else [tree]
    for place in places:
        for node in (inner for part in place.body for inner in ast.walk(part)):
            if isinstance(node, ast.Constant) and type(node.value) is int:
                node.value += 1
                return ast.unparse(tree)
    return None


def _functions(tree: ast.Module, names: list[str]) -> list[ast.FunctionDef]:
    """The definitions of ``names``; with several of one name, all, since the last counts."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            found.append(node)
        if isinstance(node, ast.ClassDef):
            methods = [inner for inner in node.body if isinstance(inner, ast.FunctionDef)]
            found += [method for method in methods if f"{node.name}.{method.name}" in names]
    return found
