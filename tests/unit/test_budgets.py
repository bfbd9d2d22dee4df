"""The size and shape budgets of the house style, held over every file of the package.

Budgets: a file has at most 300 lines, a function 40 (docstring included) and at most 6 parameters, options are
keyword-only after two parameters, no file is named for what it is not about, nothing probes for attributes.
An allow-list below names what is over budget today, with its present size: it may not grow, and an entry that is no
longer needed fails the test. Nothing is added to it; what outgrows its budget is split.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "revelm"

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
MAX_FUNCTION_LINES_EVER = 80
MAX_PARAMETERS = 6
MAX_POSITIONAL = 4

# "revelm/folder/file.py" -> lines, and "revelm/folder/file.py::Class.function" -> lines
OVERSIZED_FILES: dict[str, int] = {}
OVERSIZED_FUNCTIONS: dict[str, int] = {}

EMPTY_NAMES = {"util", "utils", "common", "helper", "helpers", "misc", "shared", "stuff"}
# The calls of the four interfaces (architecture, section 4), whose parameters keep their documented positions.
INTERFACE_CALLS = {
    *("body", "head", "forward", "__call__"),
    *("propose", "select", "revise"),
    *("prepare", "judge", "credit"),
    *("problems", "prompt", "score", "demonstrations"),
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Found(NamedTuple):
    """One function of the package: where it stands, its dotted name, its node, whether it is a method with self/cls."""

    path: str
    name: str
    node: Function
    is_bound: bool

    @property
    def key(self) -> str:
        return f"{self.path}::{self.name}"

    @property
    def lines(self) -> int:
        return (self.node.end_lineno or self.node.lineno) - self.node.lineno + 1


def sources() -> list[tuple[str, str]]:
    """(path relative to src, text) of every Python file of the package."""
    files = sorted(PACKAGE.rglob("*.py"))
    assert files, f"no Python files below {PACKAGE}"
    return [(path.relative_to(PACKAGE.parent).as_posix(), path.read_text(encoding="utf-8")) for path in files]


def functions_of(path: str, text: str) -> Iterator[Found]:
    def walk(node: ast.AST, prefix: str, *, in_class: bool) -> Iterator[Found]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                is_static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in child.decorator_list)
                yield Found(path, prefix + child.name, child, in_class and not is_static)
                yield from walk(child, f"{prefix}{child.name}.", in_class=False)
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.", in_class=True)
            else:
                yield from walk(child, prefix, in_class=in_class)

    yield from walk(ast.parse(text, filename=path), "", in_class=False)


@cache
def functions() -> tuple[Found, ...]:
    return tuple(found for path, text in sources() for found in functions_of(path, text))


def over_budget(sizes: dict[str, int], *, budget: int, allowed: dict[str, int]) -> list[str]:
    """What is wrong with ``sizes``: over budget and not allowed, grown since it was allowed, or allowed for nothing."""
    wrong = [
        f"{key}: {lines} lines, {allowed.get(key, budget)} allowed"
        for key, lines in sizes.items()
        if lines > allowed.get(key, budget)
    ]
    wrong += [
        f"{key}: within budget or gone, remove it from the allow-list" for key in allowed if sizes.get(key, 0) <= budget
    ]
    return wrong


def parameter_faults(found: Found) -> list[str]:
    arguments = found.node.args
    positional = [*arguments.posonlyargs, *arguments.args][int(found.is_bound) :]
    with_default = positional[len(positional) - len(arguments.defaults) :] if arguments.defaults else []
    faults = []
    if len(positional) + len(arguments.kwonlyargs) > MAX_PARAMETERS:
        faults.append(f"{len(positional) + len(arguments.kwonlyargs)} parameters, {MAX_PARAMETERS} allowed")
    if found.node.name not in INTERFACE_CALLS:
        if len(positional) > MAX_POSITIONAL:
            faults.append(f"{len(positional)} positional parameters, {MAX_POSITIONAL} allowed")
        late = [argument.arg for argument in positional[2:] if argument in with_default]
        if late:
            faults.append(f"option(s) {', '.join(late)} after the second parameter must be keyword-only")
    return [f"{found.key}: {fault}" for fault in faults]


def probes(path: str, text: str) -> list[str]:
    """Calls of ``hasattr`` and of ``getattr`` with a default."""
    return [
        f"{path}:{node.lineno}: {node.func.id}"
        for node in ast.walk(ast.parse(text, filename=path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and (node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) + len(node.keywords) > 2))
    ]


def report(faults: list[str]) -> None:
    if faults:
        pytest.fail("\n".join(["", *faults]), pytrace=False)


def test_files_stay_within_their_budget() -> None:
    """Catches the file that grew a second idea."""
    sizes = {path: text.count("\n") for path, text in sources()}
    report(over_budget(sizes, budget=MAX_FILE_LINES, allowed=OVERSIZED_FILES))


def test_functions_stay_within_their_budget() -> None:
    """Catches the function that does two things, and the allow-list entry that outlived its reason."""
    sizes = {found.key: found.lines for found in functions()}
    report(over_budget(sizes, budget=MAX_FUNCTION_LINES, allowed=OVERSIZED_FUNCTIONS))
    assert all(lines <= MAX_FUNCTION_LINES_EVER for lines in OVERSIZED_FUNCTIONS.values())


def test_functions_take_few_parameters() -> None:
    """Catches the call whose meaning depends on counting commas."""
    report([fault for found in functions() for fault in parameter_faults(found)])


def test_files_are_named_by_their_idea() -> None:
    """Catches the drawer: a file that anything may be thrown into."""
    parts = [(path, part) for path, _ in sources() for part in Path(path).with_suffix("").parts]
    report([f"{path}: '{part}' says nothing about what is inside" for path, part in parts if part in EMPTY_NAMES])


def test_nothing_probes_for_attributes() -> None:
    """Catches code that asks an object what it is instead of declaring what it needs."""
    report([fault for path, text in sources() for fault in probes(path, text)])


def test_budgets_see_what_they_measure() -> None:
    """Catches a walker that overlooks methods, nested and static functions, and so measures nothing."""
    text = (
        "class A:\n"
        "    def f(self, a, b, c=1):\n"
        "        def g(): pass\n"
        "    @staticmethod\n"
        "    def h(a, b, c, d, e): ...\n"
    )
    found = {item.name: item for item in functions_of("a.py", text)}
    assert {name: item.lines for name, item in found.items()} == {"A.f": 2, "A.f.g": 1, "A.h": 1}
    assert parameter_faults(found["A.f"]) == ["a.py::A.f: option(s) c after the second parameter must be keyword-only"]
    assert parameter_faults(found["A.h"]) == ["a.py::A.h: 5 positional parameters, 4 allowed"]
    assert probes("a.py", "hasattr(a, 'b')\ngetattr(a, 'b', None)\ngetattr(a, 'b')\n") == [
        "a.py:1: hasattr",
        "a.py:2: getattr",
    ]


def test_allow_list_can_only_shrink() -> None:
    """Catches an allow-list that lets an entry grow or stay after it was split."""
    sizes = {"grown": 50, "kept": 45, "split": 10}
    assert over_budget(sizes, budget=40, allowed={"grown": 49, "kept": 45, "split": 60, "gone": 60}) == [
        "grown: 50 lines, 49 allowed",
        "split: within budget or gone, remove it from the allow-list",
        "gone: within budget or gone, remove it from the allow-list",
    ]
