"""Rows of programming problems, in the formats they are published in, as tests to run.

Told apart by the fields they have, in this order:

| fields | format |
|---|---|
| `test_method` | code records: `question`, `test_list` and `prefix`, or `test_input` and `test_output` |
| `test_input`, `test_output` | code records of programs alone |
| `public_test_cases`, `private_test_cases` | LiveCodeBench, LiveBench (see `revelm.tasks.livecodebench`) |
| `verification_info` | PrimeIntellect, open-r1 |
| `input_output` | APPS, TACO |
| `reward_model.ground_truth` | verl |
| `tests`, `test_cases` | rllm and DeepCoder: inputs and outputs, pairs of them, or `{"functional": code}` |
| `test`, `entry_point` | HumanEval: `prompt`, and `check` in `test` |
| `test_list` | MBPP: asserts |
"""

import ast
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from revelm.data.rows import Row
from revelm.rewards.code_answer import code_answer, defines
from revelm.rewards.code_tests import CodeTests
from revelm.rewards.stdout_match import Matching
from revelm.tasks.code_cases import CONTEST_PRELUDE, Ask, Case, case_tests, from_json, listed_cases
from revelm.tasks.code_statements import bound_names, function_tests, parsed, single_tests
from revelm.tasks.packed_tests import unpacked

_STARTS = ("prefix", "starter_code", "partial_solution")
_REFERENCES = ("canonical_solution", "gold_standard_solution", "reference_solution", "solutions", "solution", "code")
_QUESTIONS = ("question", "question_content", "problem", "problem_statement", "text", "prompt", "turns")


def code_tests(row: Row) -> CodeTests:
    """The tests of a row in any of the formats above.

    Raises ValueError, which names row and field, for a row without tests, with empty ones, or with wrong ones.
    """
    for fields, read in _FORMATS.items():
        if all(row.get(field) is not None for field in fields):
            try:
                return read(row)
            except ValueError as error:
                raise error if row.place in str(error) else row.error(fields[-1], str(error)) from error
    known = "; ".join(", ".join(fields) for fields in _FORMATS)
    raise ValueError(f"{row.place}: has no tests; expected the fields of one of these formats: {known}")


def question(row: Row) -> str:
    """What is asked: the first of the usual fields. Of a chat, the last message."""
    field = next((name for name in _QUESTIONS if row.get(name) is not None), _QUESTIONS[0])
    value = row.get(field)
    if isinstance(value, list) and value:
        last = value[-1].get("content") if isinstance(value[-1], Mapping) else value[-1]
        if not isinstance(last, str) or not last.strip():
            raise row.error(field, "expected a chat whose last message asks something")
        return last.strip()
    return row.text(field)


def start(row: Row) -> str:
    """The beginning of the solution that the row gives; "" where it gives none."""
    field = next((name for name in _STARTS if row.get(name)), None)
    code = "" if field is None else code_text(row, field)
    return code if "```" not in code else code_answer(code) or ""


def reference(row: Row) -> str:
    """A solution that the row gives, the first one where there are several; "" where it gives none."""
    for field in _REFERENCES:
        value = row.get(field)
        if isinstance(value, str) and value.lstrip()[:1] == "[":
            value = _listed(value)
        if isinstance(value, list):
            value = next((item for item in value if isinstance(item, str)), None)
        if isinstance(value, str) and value.strip():
            return value if "```" not in value else code_answer(value) or ""
    return ""


def code_text(row: Row, field: str) -> str:
    """A field of code as it stands, with its indentation. Raises ValueError where it is no text or empty."""
    row.text(field)
    return str(row.get(field))


def entry_tests(row: Row) -> CodeTests:
    """HumanEval: ``check`` of the test code, called with the function that the prompt begins.

    What the prompt defines in front of that function (imports, helpers) is known to the answer and to the tests.
    """
    name, prompt = row.text("entry_point"), code_text(row, "prompt")
    before = in_front_of(prompt, name)
    setup = f"{before}\n{code_text(row, 'test')}"
    if not defines(setup, "check"):
        raise row.error("test", "defines no function check, which is to be called with the answer's function")
    statements = (f"check({name})",)
    return CodeTests("function", statements=statements, setup=setup, names=(name,), prelude=before)


def in_front_of(code: str, name: str = r"\w+") -> str:
    """What stands in front of the last function or class ``name`` at the top level; "" where there is none."""
    found = list(re.finditer(rf"^(?:async[ \t]+def|def|class)[ \t]+{name}\b", code, re.MULTILINE))
    return code[: found[-1].start()] if found else ""


def assert_tests(row: Row) -> CodeTests:
    """MBPP: a list of asserts; ``test_setup_code`` builds what they use, with the answer's own functions."""
    statements = list(_asserts(row, "test_list"))
    imports = row.get("test_imports")
    setup = "\n".join(map(str, imports)) if isinstance(imports, list) else row.optional_text("test_imports")
    if built := row.optional_text("test_setup_code"):
        statements[0] = f"{built}\n{statements[0]}"
    return _statement_tests(row, statements, setup=setup, ask=Ask(reference=reference(row), start=start(row)))


def _record(row: Row) -> CodeTests:
    method = row.text("test_method") if row.has("test_method") else "stdio"
    begun = start(row)
    ask = Ask(begun, reference(row), in_front_of(begun), _seconds(row))
    if method == "function":
        return _statement_tests(row, _asserts(row, "test_list"), setup="", ask=ask)
    if method == "stdio":
        given, expected = row.get("test_input"), row.get("test_output")
        for field, value in (("test_input", given), ("test_output", expected)):
            if not isinstance(value, list):
                raise row.error(field, f"expected a list of texts, not {repr(value)[:60]}")
        cases, _ = listed_cases(row, "test_input", {"inputs": given, "outputs": expected})
        return case_tests(
            row, "test_input", [Case(c.given, c.expected, "stdio") for c in cases], function=None, ask=ask
        )
    raise row.error("test_method", f"{method!r} is not known; expected function or stdio")


def _contest(row: Row) -> CodeTests:
    """LiveCodeBench: public and hidden tests; LiveBench keeps the rest of the row in ``original_json``."""
    cases: list[Case] = []
    for field in ("public_test_cases", "private_test_cases"):
        value = row.get(field)
        cases += listed_cases(row, field, unpacked(value) if isinstance(value, str) and value.strip() else value or [])[
            0
        ]
    metadata = from_json(row, "metadata", row.get("metadata") or _original(row).get("metadata") or {})
    function = metadata.get("func_name") if isinstance(metadata, Mapping) else None
    code = f"{row.optional_text('starter_code')}\n{_original(row).get('starter_code') or ''}\n{start(row)}"
    ask = Ask(code, prelude=CONTEST_PRELUDE, matching="livecodebench")
    return case_tests(row, "public_test_cases", cases, function=function, ask=ask)


def _original(row: Row) -> Mapping[str, object]:
    found = row.get("original_json")
    found = from_json(row, "original_json", found) if isinstance(found, str) else found
    return found if isinstance(found, Mapping) else {}


def _cases_of(field: str, matching: Matching = "stripped") -> Callable[[Row], CodeTests]:
    """A reader of tests in ``field``, in any of the usual shapes; in PrimeIntellect's rows also written by Python."""

    def read(row: Row) -> CodeTests:
        value = row.get(field)
        if isinstance(value, str) and value.lstrip()[:2] == "{'":
            value = ast.literal_eval(value)
        value = from_json(row, field, value)
        ask = Ask(start(row), reference(row), CONTEST_PRELUDE, matching=matching)
        if isinstance(value, Mapping) and (code := value.get("functional") or value.get("assert_case")):
            statements = tuple(map(str, code)) if isinstance(code, list) else single_tests(str(code))
            return _statement_tests(row, statements, setup="", ask=ask)
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return _statement_tests(row, _asserts(replace(row, fields={field: value}), field), setup="", ask=ask)
        if isinstance(value, Mapping) and str(value.get("language", "python")).lower() not in ("python", "python3"):
            raise row.error(field, f"is about {value['language']!r}; only Python is run")
        cases, function = listed_cases(row, field, value)
        return case_tests(row, field, cases, function=function, ask=ask)

    return read


def _statement_tests(row: Row, statements: "list[str] | tuple[str, ...]", *, setup: str, ask: Ask) -> CodeTests:
    """Tests of statements. What the reference imports and they use, such as ``math``, is imported for them."""
    promised = set[str]()
    if ask.reference.strip():
        body = parsed(ask.reference).body
        imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        setup = "\n".join([setup, *(ast.unparse(node) for node in imports if not _is_future(node))])
        promised = bound_names(ask.reference) - bound_names(setup)
    promised |= _begun(ask.start)
    return function_tests(statements, setup=setup, promised=promised, prelude=ask.prelude, seconds=ask.seconds)


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _begun(code: str) -> set[str]:
    """Names of the functions and classes that the beginning of a solution begins."""
    words = [line.replace("(", " ").replace(":", " ").split() for line in code.split("\n")]
    return {line[1] for line in words if len(line) > 1 and line[0] in ("def", "class")}


def _asserts(row: Row, field: str) -> tuple[str, ...]:
    """Statements, at least one. Raises ValueError for none: every program would be right."""
    value = row.get(field)
    value = from_json(row, field, value) if str(value).lstrip()[:1] == "[" else value
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise row.error(field, f"expected a list of statements, not {repr(value)[:60]}")
    statements = tuple(str(item) for item in value if item.strip())
    if not statements:
        raise row.error(field, "holds no tests, so that any program would be right; add some or remove the row")
    for number, statement in enumerate(statements, start=1):
        try:
            last = parsed(statement).body[-1:]
        except ValueError as error:
            raise row.error(field, f"test {number}: {error}") from error
        if last and isinstance(last[0], ast.Expr) and isinstance(last[0].value, ast.Compare):
            reason = "compares and asserts nothing, so that any program would be right; write assert in front of it"
            raise row.error(field, f"test {number}: {reason}")
    return statements


def _seconds(row: Row) -> float | None:
    value = row.get("test_time_limit")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise row.error("test_time_limit", f"expected CPU seconds above 0, not {value!r}")
    return float(value)


def _listed(text: str) -> object:
    """The list that a text spells as JSON; else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


_FORMATS: Mapping[tuple[str, ...], Callable[[Row], CodeTests]] = {
    ("test_method",): _record,
    ("test_input", "test_output"): _record,
    ("public_test_cases",): _contest,
    ("verification_info",): _cases_of("verification_info"),
    ("input_output",): _cases_of("input_output", "apps"),
    ("reward_model.ground_truth",): _cases_of("reward_model.ground_truth"),
    ("tests",): _cases_of("tests"),
    ("test_cases",): _cases_of("test_cases"),
    ("entry_point", "test"): entry_tests,
    ("test_list",): assert_tests,
}
