"""Tests written as Python statements: cut into single tests, and what they need from the program and from elsewhere.

Of what an answer defines, its tests see the names they use for it, and no other: an answer that defines ``set``,
``isinstance`` or ``math`` changes nothing for them. Such a name is one that the statements use and do not bind
themselves, that the trusted setup does not define, and that is no builtin, unless the problem itself says that the
program defines it (its reference does, or the beginning that the prompt gives).
"""

import ast
import builtins
import sys
import warnings
from collections.abc import Iterable, Sequence

from revelm.rewards.code_tests import CodeTests

_BUILTINS = frozenset(vars(builtins))
_USUAL_MODULES = {"np": "numpy", "numpy": "numpy", "pd": "pandas", "pandas": "pandas"}


def function_tests(
    statements: Sequence[str],
    *,
    setup: str = "",
    promised: Iterable[str] = (),
    prelude: str = "",
    seconds: float | None = None,
) -> CodeTests:
    """Tests of method "function" whose names are worked out from ``statements``.

    ``setup``: trusted code that runs first; ``promised``: what the program is known to define, builtins or not.
    Modules that the statements use without an import are imported by the setup. Raises ValueError for statements that
    are not Python (SyntaxError's message), and for none.
    """
    tree = parsed("\n".join(statements))
    used, own = _free(tree), bound_names(setup)
    modules = {name: _USUAL_MODULES.get(name, name) for name in used - own - set(promised) if _is_module(name, tree)}
    imports = [f"import {module} as {name}" for name, module in sorted(modules.items())]
    names = (used - own - set(modules) - _BUILTINS) | (used & set(promised))
    setup = "\n".join([*imports, setup] if setup else imports)
    return CodeTests(
        "function",
        statements=tuple(statements),
        setup=setup,
        names=tuple(sorted(names)),
        prelude=prelude,
        seconds=seconds,
    )


def single_tests(code: str) -> tuple[str, ...]:
    """Code cut behind each test at its top level: an assert, a call, or a loop or block that holds asserts.

    What stands in between (imports, helpers, values) belongs to the test behind it; code without a test gives none.
    Raises ValueError as `function_tests` does.
    """
    pieces: list[list[str]] = []
    waiting: list[str] = []
    for node in parsed(code).body:
        waiting.append(ast.unparse(node))
        if _is_test(node):
            pieces.append(waiting)
            waiting = []
    if pieces:
        pieces[-1] += waiting
    return tuple("\n".join(piece) for piece in pieces)


def parsed(code: str) -> ast.Module:
    """The syntax tree. Raises ValueError, in a line, for what is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of doubtful escapes in strings
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # a boundary: code of others
        raise ValueError(f"not Python ({error})") from error


def bound_names(code: str) -> set[str]:
    """Names that trusted ``code`` defines at its top level."""
    return _bound(parsed(code).body) if code.strip() else set()


def _free(tree: ast.Module) -> set[str]:
    """Names that code reads and does not bind anywhere in it."""
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return read - _bound(ast.walk(tree))


def _bound(nodes: Iterable[ast.AST]) -> set[str]:
    """Names bound by these nodes and, for assignments, loops and the like, inside their targets."""
    names = set[str]()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.For | ast.With | ast.If | ast.Try):
            targets = (inner for inner in ast.walk(node) if isinstance(inner, ast.Name))
            names.update(inner.id for inner in targets if not isinstance(inner.ctx, ast.Load))
    return names


def _is_test(node: ast.stmt) -> bool:
    """Whether a statement at the top level checks something."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    is_block = isinstance(node, ast.For | ast.While | ast.With | ast.If | ast.Try)
    return isinstance(node, ast.Assert) or is_call or is_block


def _is_module(name: str, tree: ast.Module) -> bool:
    """Whether the statements use ``name`` as a module only: it is one, and always stands in front of a dot."""
    if name not in sys.stdlib_module_names and name not in _USUAL_MODULES:
        return False
    nodes = list(ast.walk(tree))
    dotted = sum(isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == name for n in nodes)
    return dotted == sum(isinstance(node, ast.Name) and node.id == name for node in nodes)
