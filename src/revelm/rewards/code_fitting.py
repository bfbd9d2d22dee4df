"""Programs as official harnesses take them: without the examples behind a function, and with ``return`` in scripts.

Both leave a program as it is, to the byte, where they find nothing to do or it is no Python.
"""

import ast
import warnings
from collections.abc import Iterable, Iterator

_MAX_PARSED = 200_000  # characters; more than any program, little enough to parse at once
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def without_examples(program: str) -> str:
    """A program without what only tries its functions out: asserts, calls of ``print``, whatever reads input.

    A function is not wrong for a wrong example behind it, nor for one that waits for input; EvalPlus likewise runs
    imports and definitions alone. Only statements at the top level that share no line with another go, and lines keep
    their numbers.
    """
    tree = parsed_program(program)
    if tree is None:
        return program
    lines = program.split("\n")
    busy = [number for node in tree.body for number in {node.lineno, node.end_lineno or node.lineno}]
    for node in tree.body:
        ends = {node.lineno, node.end_lineno or node.lineno}
        if _is_example(node) and all(busy.count(number) == 1 for number in ends):
            lines[min(ends) - 1 : max(ends)] = [""] * (max(ends) - min(ends) + 1)
    return "\n".join(lines)


def in_a_function(program: str) -> str:
    """A script that says ``return`` outside of any function, put into one; its imports stay in front.

    It is no Python, but APPS and LiveCodeBench run every script in a function, and so take it.
    """
    tree = parsed_program(program)
    if tree is None or is_sound(program):
        return program
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    rest = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    whole = ast.FunctionDef(name="_script", args=nothing, body=rest, decorator_list=[])
    made = ast.Module(body=[*imports, whole], type_ignores=[])
    return f"{ast.unparse(ast.fix_missing_locations(made))}\n_script()\n"


def is_sound(program: str) -> bool:
    """Whether a program is Python that says ``return`` in functions alone."""
    tree = parsed_program(program)
    return tree is not None and not any(isinstance(node, ast.Return) for node in _outside_functions(tree.body))


def parsed_program(program: str) -> ast.Module | None:
    """The syntax tree; None for what is no Python, or far too long."""
    if len(program) > _MAX_PARSED:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of doubtful escapes in strings
            return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a boundary: any text at all
        return None


def _is_example(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assert):
        return True
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if is_call and _called(node.value) == "print":  # type: ignore[attr-defined]
        return True
    is_plain = isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign)
    return is_plain and any(_called(inner) == "input" for inner in _outside_functions([node]))


def _called(node: ast.AST) -> str:
    """The name of what a call calls; "" where it has none."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _outside_functions(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes but those inside of functions and classes."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if not isinstance(node, _FUNCTIONS):
            yield node
            waiting += ast.iter_child_nodes(node)
