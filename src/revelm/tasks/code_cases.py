"""Tests written as inputs and outputs: what a program reads and prints, or what a function is called with and returns.

Data sets write them in many ways: lists of inputs and of outputs, a list of pairs, JSON in a text, arguments on lines
of their own. All become `CodeTests` of method "stdio" or "call"; without a single test they are an error, since a
program without tests would always be right.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from revelm.data.rows import Row
from revelm.rewards.code_tests import CodeTests
from revelm.rewards.stdout_match import Matching

# What LiveCodeBench, and after it most others, import in front of every answer.
_STARRED = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing"),
)
_MODULES = tuple(name for name in _STARRED if name not in ("builtins", "typing"))
CONTEST_PRELUDE = "\n".join(
    [
        *(f"from {name} import *" for name in _STARRED),
        *(f"import {name}" for name in _MODULES),
        "sys.setrecursionlimit(50_000)\n",
    ]
)
_LIST = re.compile(r"->\s*[\"']?(?:typing\.)?(?:list|tuple|sequence|iterable|optional\[\s*list)\b", re.IGNORECASE)
_STDIO = ("stdin", "stdin_stdout", "stdio")
_CALL = ("functional", "function_call", "call", "function")


@dataclass(frozen=True)
class Ask:
    """What a row says besides its tests.

    ``start``: the beginning of the solution; ``reference``: a solution; ``seconds``: CPU time of one test;
    ``matching``: how output and results are compared.
    """

    start: str = ""
    reference: str = ""
    prelude: str = ""
    seconds: float | None = None
    matching: Matching = "exact"


@dataclass(frozen=True)
class Case:
    """One test; ``kind`` "" where the data set does not say."""

    given: object
    expected: object
    kind: str = ""


def case_tests(row: Row, field: str, cases: Sequence[Case], *, function: str | None, ask: Ask) -> CodeTests:
    """The tests of all ``cases``; of calls of ``function`` where there is one, else of the standard streams.

    Raises ValueError for no cases, kinds that do not fit together, and values that do not fit their kind.
    """
    if not cases:
        raise row.error(field, "holds no tests, so that any program would be right; add some or remove the row")
    kinds = {_kind(row, field, case) for case in cases} - {""}
    is_call = "call" in kinds or (function is not None and not kinds)
    if len(kinds) > 1:
        raise row.error(field, "has tests of the standard streams and tests of a function; keep one kind")
    if is_call and not function:
        raise row.error(field, "tests a function but does not name it; give fn_name")
    if not is_call:
        texts = [(_stream(row, field, case.given), _stream(row, field, case.expected)) for case in cases]
        inputs, outputs = zip(*texts, strict=True)
        asked = CodeTests("stdio", inputs=inputs, outputs=outputs)
    else:
        arguments = tuple(_dumped(row, field, _arguments(row, field, case)) for case in cases)
        values = [_value(case) for case in cases]
        returns = tuple(_dumped(row, field, value) for value in values)
        code = f"{ask.start}\n{ask.reference}"
        may_unwrap = not any(_is_lines(case) for case in cases) and _is_wrapped(values, code)
        names = (called_as(str(function), code),)
        asked = CodeTests("call", arguments=arguments, returns=returns, names=names, may_unwrap=may_unwrap)
    return replace(asked, prelude=ask.prelude, seconds=ask.seconds, matching=ask.matching)


def listed_cases(row: Row, field: str, value: object) -> tuple[list[Case], str | None]:
    """Cases from any of the usual shapes, and the name of the function they call (None: they do not say).

    ``{"inputs": [...], "outputs": [...], "fn_name"}``, a list of ``{"input", "output", "type" or "testtype", "fn_name"
    or metadata.func_name}``, or JSON of either. Raises ValueError for another shape.
    """
    value = from_json(row, field, value)
    if isinstance(value, Mapping) and isinstance(value.get("test_cases"), list | Mapping):
        value = value["test_cases"]
    if isinstance(value, Mapping):
        inputs, outputs = value.get("inputs"), value.get("outputs")
        if not isinstance(inputs, list) or not isinstance(outputs, list):
            raise row.error(
                field, f"expected the lists inputs and outputs, found {', '.join(map(str, value)) or 'none'}"
            )
        if len(inputs) != len(outputs):
            raise row.error(field, f"has {len(inputs)} inputs for {len(outputs)} outputs; make them equal")
        cases = [Case(one, other) for one, other in zip(inputs, outputs, strict=True)]
        return cases, _function(row, field, [value])
    if not isinstance(value, list):
        raise row.error(field, f"expected tests, not {repr(value)[:60]}")
    for number, item in enumerate(value, start=1):
        if not isinstance(item, Mapping) or "input" not in item or "output" not in item:
            raise row.error(field, f"test {number}: expected an object with input and output, not {repr(item)[:60]}")
    cases = [Case(i["input"], i["output"], str(i.get("type") or i.get("testtype") or "")) for i in value]
    return cases, _function(row, field, value)


def from_json(row: Row, field: str, value: object) -> object:
    """``value``, or what it spells where it is a text. Raises ValueError for a text that is not JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise row.error(field, f"not JSON ({error})") from error


def called_as(function: str, code: str) -> str:
    """How tests call ``function``: by its name, or as a method of ``Solution`` where ``code`` has such a class."""
    return f"Solution.{function}" if re.search(r"^class\s+Solution\b", code, re.MULTILINE) else function


def _function(row: Row, field: str, items: Sequence[Mapping[str, object]]) -> str | None:
    """The one function that the tests name."""
    found = set[str]()
    for item in items:
        metadata = item.get("metadata")
        inner = metadata.get("func_name") if isinstance(metadata, Mapping) else None
        name = item.get("fn_name") or item.get("func_name") or inner
        if name:
            found.add(str(name))
    if len(found) > 1:
        raise row.error(field, f"calls several functions ({', '.join(sorted(found))}); keep one")
    return found.pop() if found else None


def _kind(row: Row, field: str, case: Case) -> str:
    """ "stdio", "call", or "" where the case does not say."""
    if case.kind in _STDIO:
        return "stdio"
    if case.kind in _CALL:
        return "call"
    if case.kind:
        known = ", ".join((*_STDIO, *_CALL))
        raise row.error(field, f"tests of kind {case.kind!r} are not known; known: {known}")
    return ""


def _stream(row: Row, field: str, value: object) -> str:
    """What is read or printed; a list is its lines."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(line, str | int | float) for line in value):
        return "\n".join(map(str, value))
    if isinstance(value, int | float):
        return str(value)
    raise row.error(field, f"expected a text that is read or printed, not {repr(value)[:60]}")


def _arguments(row: Row, field: str, case: Case) -> list[object]:
    """The arguments of a call: a list as it stands or as JSON, or one JSON value a line ("functional")."""
    value = case.given
    try:
        if isinstance(value, str):
            value = [json.loads(line) for line in value.split("\n")] if _is_lines(case) else json.loads(value)
    except (ValueError, RecursionError) as error:
        raise row.error(field, f"expected arguments as JSON, not {str(case.given)[:60]!r} ({error})") from error
    if not isinstance(value, list):
        raise row.error(field, f"expected a list of arguments, not {repr(value)[:60]}")
    return value


def _is_lines(case: Case) -> bool:
    """Whether the case is written as LiveCodeBench does: one JSON value a line, and JSON as the result."""
    return case.kind == "functional"


def _value(case: Case) -> object:
    """What a call returns."""
    if not _is_lines(case) or not isinstance(case.expected, str):
        return case.expected
    try:
        return json.loads(case.expected)
    except (ValueError, RecursionError):
        return case.expected


def _is_wrapped(values: list[object], code: str) -> bool:
    """Whether every value may have a list of one around it, which APPS writes for most functions but not for all.

    Where each is a list of one it may be, unless the function is annotated as returning a list.
    """
    return all(isinstance(value, list) and len(value) == 1 for value in values) and not _LIST.search(code)


def _dumped(row: Row, field: str, value: object) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise row.error(field, f"not a plain value ({error})") from error
