"""Rows of programming problems in their public formats, good ones and bad ones."""

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from revelm.rewards.code_tests import CodeTests
from revelm.tasks.code_records import code_tests, question, reference, start
from revelm.tasks.code_statements import function_tests, single_tests
from revelm.tasks.packed_tests import unpacked
from revelm.tasks.problem_files import Row

ASSERTS = ["assert f(1) == 2", "assert f(2) == 3"]
CALLS = {"fn_name": "f", "inputs": [[1], [2]], "outputs": [2, 3]}


def row(**fields: Any) -> Row:
    """The seventh row of a file."""
    return Row("rows.jsonl", 7, 9, fields)


def pack(value: object) -> str:
    """A value as LiveCodeBench packs its hidden tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(value)))).decode()


def contest(kind: str, *pairs: tuple[str, str]) -> list[dict[str, str]]:
    """Tests as LiveCodeBench writes them."""
    return [{"input": given, "output": expected, "testtype": kind} for given, expected in pairs]


def lcb(public: Any, private: Any, **fields: Any) -> Row:
    """A row of LiveCodeBench."""
    name = {"metadata": json.dumps({"func_name": "f"})} if fields.get("starter_code") else {"metadata": "{}"}
    return row(public_test_cases=json.dumps(public), private_test_cases=private, **name, **fields)


FORMATS = {
    "record, function": row(test_method="function", test_list=ASSERTS, test_time_limit=2),
    "record, stdio": row(test_method="stdio", test_input=["1\n"], test_output=["2\n"]),
    "record, without its method": row(test_input=["1\n"], test_output=["2\n"]),
    "rllm, lists": row(tests={"inputs": ["1\n"], "outputs": ["2\n"]}),
    "rllm, pairs": row(tests=[{"input": "1\n", "output": "2\n"}]),
    "rllm, code": row(tests={"functional": "def check(g):\n    assert g(1) == 2\n\n\ncheck(f)"}),
    "deepcoder": row(tests=json.dumps(contest("stdin", ("1\n", "2\n")))),
    "apps, stdio": row(input_output=json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})),
    "apps, lines": row(input_output={"inputs": [["1", "2"]], "outputs": [["3"]]}),
    "apps, function": row(input_output=json.dumps(CALLS)),
    "livecodebench, stdio": lcb(contest("stdin", ("1\n", "2\n")), pack(contest("stdin", ("3\n", "4\n")))),
    "livecodebench, method": lcb(
        contest("functional", ("[1]\n2", "[3]")),
        pack(contest("functional", ('"a"\n{}', "null"))),
        starter_code="class Solution:\n    def f(self, a, b):\n        ",
    ),
    "primeintellect": row(
        verification_info=json.dumps(
            {"language": "python", "test_cases": [{"type": "function_call", "fn_name": "f", "input": [1], "output": 2}]}
        )
    ),
    "primeintellect, by Python": row(
        verification_info=str({"test_cases": [{"type": "stdin_stdout", "input": "1\n", "output": "2\n"}]})
    ),
    "open-r1": row(
        verification_info={
            "language": "python",
            "test_cases": [{"fn_name": "f", "input": "[1]", "output": "2", "type": "function_call"}],
        }
    ),
    "verl": row(reward_model={"style": "rule", "ground_truth": json.dumps(CALLS)}),
    "verl, stdio": row(reward_model={"ground_truth": json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})}),
    "humaneval": row(
        prompt="from x import y\n\n\ndef f(a):\n", entry_point="f", test="def check(g):\n    assert g(1) == 2\n"
    ),
    "mbpp": row(test_list=ASSERTS, code="def f(a):\n    return a + 1\n"),
}
WANTED = {
    "record, function": CodeTests("function", statements=tuple(ASSERTS), names=("f",), seconds=2.0),
    "record, stdio": CodeTests("stdio", inputs=("1\n",), outputs=("2\n",)),
    "apps, lines": ("stdio", ("1\n2",), ("3",)),
    "apps, function": ("call", ("[1]", "[2]"), ("2", "3")),
    "livecodebench, stdio": ("stdio", ("1\n", "3\n"), ("2\n", "4\n")),
    "livecodebench, method": ("call", ("[[1], 2]", '["a", {}]'), ("[3]", "null")),
    "primeintellect": ("call", ("[1]",), ("2",)),
    "verl": ("call", ("[1]", "[2]"), ("2", "3")),
}


def essence(tests: CodeTests) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Method, what goes in and what comes out."""
    return tests.method, tests.inputs or tests.arguments or tests.statements, tests.outputs or tests.returns


@pytest.mark.parametrize("name", FORMATS)
def test_public_formats_are_told_apart(name: str) -> None:
    """Catches a format that nobody reads, or whose tests are read as those of another kind."""
    tests = code_tests(FORMATS[name])
    wanted = WANTED.get(name)
    if isinstance(wanted, CodeTests):
        assert tests == wanted
    elif wanted is not None:
        assert essence(tests) == wanted
    if tests.method != "stdio":
        assert tests.names == (("Solution.f",) if name == "livecodebench, method" else ("f",))


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (row(test_method="function", test_list=[]), "test_list"),
        (row(test_method="function", test_list=[" "]), "test_list"),
        (row(test_method="stdio", test_input=[], test_output=[]), "test_input"),
        (row(input_output='{"inputs": [], "outputs": []}'), "input_output"),
        (row(tests=[]), "tests"),
        (row(tests={"functional": ""}), "tests"),
        (row(tests={"functional": "import os"}), "tests"),
        (lcb([], "[]"), "public_test_cases"),
        (row(verification_info='{"test_cases": []}'), "verification_info"),
        (row(reward_model={"ground_truth": '{"inputs": [], "outputs": []}'}), "reward_model.ground_truth"),
        (row(test_list=[], code="def f(): ..."), "test_list"),
    ],
)
def test_a_row_without_tests_is_an_error(bad: Row, field: str) -> None:
    """W69: an empty list of tests counts as solved, whatever the program does."""
    with pytest.raises(ValueError, match=rf"rows.jsonl, row 7 \(line 9\), field '{field}'"):
        code_tests(bad)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (row(question="q"), "row 7.*has no tests; expected the fields"),
        (
            row(test_method="sql", test_list=ASSERTS),
            "field 'test_method': 'sql' is not known; expected function or stdio",
        ),
        (row(test_method="function", test_list="assert"), "'test_list': expected a list of statements, not 'assert'"),
        (row(test_method="function", test_list=["f(3) == 9"]), "'test_list': test 1: compares and asserts nothing"),
        (row(tests=["assert f(3)", "f(3) == 9"]), "'tests': test 2: compares and asserts nothing"),
        (row(test_method="function", test_list=["assert f(1) =="]), "field 'test_list': test 1: not Python"),
        (row(test_method="function", test_list=ASSERTS, test_time_limit="2"), "field 'test_time_limit': expected CPU"),
        (row(test_method="stdio", test_input=["1"], test_output=[]), "field 'test_input': has 1 inputs for 0 outputs"),
        (row(test_method="stdio", test_input=[{}], test_output=["1"]), "field 'test_input': expected a text"),
        (row(test_method="stdio", test_output=["1"]), "field 'test_input': expected a list"),
        (row(input_output="{"), "field 'input_output': not JSON"),
        (row(input_output="[1]"), "field 'input_output': test 1: expected an object"),
        (row(input_output={"fn_name": "f", "inputs": [1], "outputs": [1]}), "expected a list of arguments, not 1"),
        (row(tests=[{"input": "1", "output": "2", "type": "sql"}]), "tests of kind 'sql' are not known"),
        (row(tests=contest("functional", ("1", "2"))), "tests a function but does not name it"),
        (row(tests=[*contest("stdin", ("1", "2")), *contest("functional", ("1", "2"))]), "keep one kind"),
        (row(verification_info={"language": "rust", "test_cases": [{}]}), "only Python is run"),
        (lcb(contest("stdin", ("1", "2")), "@@@"), "field 'private_test_cases'|neither JSON"),
        (row(prompt="def g(): ...", entry_point="f", test="x = 1"), "field 'test': defines no function check"),
    ],
)
def test_bad_rows_are_errors_that_name_row_and_field(bad: Row, said: str) -> None:
    """Catches a crash without a place, and a wrong test that no program could pass."""
    with pytest.raises(ValueError, match=said) as caught:
        code_tests(bad)
    assert "rows.jsonl, row 7 (line 9)" in str(caught.value)


@pytest.mark.parametrize("value", [print, Path, [b"x", {"a": object}]], ids=str)
def test_hidden_tests_are_unpacked_without_running_what_is_in_them(value: object) -> None:
    """Catches a data file that runs code of its author when it is read."""
    text = base64.b64encode(zlib.compress(pickle.dumps(value))).decode()
    with pytest.raises(ValueError, match="it asks for"):
        unpacked(text)
    assert unpacked(pack([{"input": "1"}])) == [{"input": "1"}]


@pytest.mark.parametrize("text", ["", "@", "abc=", base64.b64encode(b"x").decode(), pack([1])[:-8], "\ud800", "[1"])
def test_damaged_hidden_tests_are_errors(text: str) -> None:
    """Catches an exception of pickle or zlib where users should read what is wrong with their file."""
    with pytest.raises(ValueError):  # noqa: PT011 - of json or of ours
        unpacked(text)


def test_tests_see_the_names_that_they_use_and_no_other() -> None:
    """Catches an answer that defines ``set``, ``isinstance`` or ``math`` and thereby changes what its tests mean."""
    statements = ["assert set(f(math.floor(2.5))) == {g(x) for x in [1]}", "y = f(2)\nassert isinstance(y, list)"]
    tests = function_tests(statements)
    assert tests.names == ("f", "g")
    assert tests.setup == "import math as math"
    assert function_tests(["assert sum(1, 2) == 3"], promised=["sum", "total"]).names == ("sum",)
    assert function_tests(["assert f(helper(1)) == 2"], setup="def helper(x): return x").names == ("f",)
    assert function_tests(["assert queue(1) == 2"]).names == ("queue",)


def test_references_say_what_the_tests_need() -> None:
    """Catches a builtin that a reference redefines and the tests mean (MBPP 126: ``sum``), and a module that only it
    imports."""
    mbpp = row(
        test_list=["assert sum(3, 4) == math.floor(7.5)"], code="import math\n\ndef sum(a, b):\n    return a + b\n"
    )
    tests = code_tests(mbpp)
    assert tests.names == ("sum",)
    assert "import math" in tests.setup
    built = row(
        test_list=["assert depth(root) == 1"],
        test_setup_code="root = Node(1)",
        code="class Node: ...\ndef depth(n): ...",
    )
    tests = code_tests(built)
    assert tests.names == ("Node", "depth")
    assert tests.statements == ("root = Node(1)\nassert depth(root) == 1",)


def test_doubtful_escapes_are_no_error() -> None:
    """Catches a row of MBPP that is refused, or warned about, for a pattern that is written without an r."""
    escaped = row(test_list=["assert f('\\d') == 1"], code="def f(x):\n    return len('\\w') - 1\n")
    assert code_tests(escaped).names == ("f",)


def test_code_of_tests_is_cut_behind_each_test() -> None:
    """Catches a share of tests that can only be all or nothing, and a helper that ends up behind its use."""
    code = "import math\nx = 1\nassert f(x) == 1\n\ndef g(y): return y\ng(2)\nfor i in [1]:\n    assert f(i)\nz = 0\n"
    pieces = single_tests(code)
    assert len(pieces) == 3
    assert pieces[0].startswith("import math\nx = 1\nassert")
    assert pieces[1].startswith("def g")
    assert pieces[2].endswith("z = 0")


@pytest.mark.parametrize(
    ("outputs", "starter", "may_unwrap"),
    [
        ([[True], [False]], "def f(n):\n", True),
        ([[1], [2]], "class Solution:\n    def f(self) -> List[int]:\n", False),
        ([[1, 2], [2]], "", False),
        ([9], "", False),
    ],
)
def test_lists_around_the_results_of_apps_may_be_taken_off(outputs: list[Any], starter: str, may_unwrap: bool) -> None:
    """Catches a right answer that returns True where the file has [True], and one that returns [True]."""
    value = {"fn_name": "f", "inputs": [[0]] * len(outputs), "outputs": outputs}
    tests = code_tests(row(input_output=value, starter_code=starter))
    assert (tests.returns, tests.may_unwrap) == (tuple(map(json.dumps, outputs)), may_unwrap)


def test_formats_are_compared_as_their_harnesses_do() -> None:
    """Catches scores that are not those of the benchmark: another rule for numbers and blanks."""
    lists = {"inputs": ["1"], "outputs": ["2"]}
    cases = [{"input": "1", "output": "2"}]
    assert code_tests(row(input_output=lists)).matching == "apps"
    assert code_tests(row(verification_info={"test_cases": cases})).matching == "stripped"
    assert code_tests(row(tests=lists)).matching == "stripped"
    assert code_tests(row(public_test_cases=cases)).matching == "livecodebench"
    assert code_tests(row(test_method="stdio", test_input=["1"], test_output=["2"])).matching == "exact"


def test_questions_beginnings_and_solutions_are_found() -> None:
    """Catches a solution in a fence that is run with it, and a list of them that is taken for a program."""
    assert question(row(prompt=[{"role": "system", "content": "s"}, {"role": "user", "content": " q "}])) == "q"
    assert question(row(turns=["q"])) == question(row(question_content="q", text="other")) == "q"
    assert start(row(prefix="```python\ndef f(x):\n")) == "def f(x):\n"
    assert start(row(starter_code="")) == ""
    assert reference(row(gold_standard_solution="```python\nx = 1\n```")) == "x = 1\n"
    assert reference(row(solutions=json.dumps(["x = 1\n", "y"]))) == reference(row(solutions=["x = 1\n"])) == "x = 1\n"
    assert reference(row(solutions="[]")) == reference(row(question="q")) == ""
