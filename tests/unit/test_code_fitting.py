"""What is made of a program before it is run, and values that calls return."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from revelm.rewards.code_fitting import in_a_function, without_examples
from revelm.rewards.sandbox.values import is_right_value
from revelm.rewards.stdout_match import Matching

F = "import sys\nsys.setrecursionlimit(9999)\n\ndef f(x):\n    assert x\n    return x\n"


@pytest.mark.parametrize(
    "example",
    [
        "assert f(1) == 2",
        "assert f(\n    1\n) == 2, 'no'",
        "print(f(3))",
        "n = int(input())\nprint(f(n))",
        "a, b = map(int, input().split())",
        "input()",
    ],
)
def test_examples_behind_a_function_are_left_out(example: str) -> None:
    """Catches a right function that fails for a wrong example behind it, or one that waits for input."""
    blank = "\n" * example.count("\n")
    assert without_examples(f"{F}{example}\nlast = 1\n") == f"{F}{blank}\nlast = 1\n"


@pytest.mark.parametrize(
    "program",
    [
        F,
        "table = [1]\nfor i in range(3):\n    assert i < 3\n    table.append(i)\nread = lambda: input()\n",
        "x = 1; assert x == 2\n",
        "assert (1 ==\n  2); x = 1\n",
        "def f(:",
        "print('x' " * 9,
        "s = '\\d'\n",
    ],
)
def test_everything_else_stays_to_the_byte(program: str) -> None:
    """Catches code that is changed: what fills a table, shares a line, or is no Python at all."""
    assert without_examples(program) == program
    assert in_a_function(program) == program


def test_scripts_may_return() -> None:
    """Catches programs that the harnesses of APPS and LiveCodeBench take, and whose authors were right."""
    program = "import math\nfor i in range(3):\n    if i == 1:\n        return\n    print(math.floor(i))\n"
    with pytest.raises(SyntaxError):
        compile(program, "", "exec")
    made = in_a_function(program)
    compile(made, "", "exec")
    assert made.startswith("import math\n\ndef _script():\n")
    assert made.endswith("\n_script()\n")


@pytest.mark.parametrize(
    ("matching", "value", "expected", "is_right"),
    [
        ("exact", (1, (2, 3)), [1, [2, 3]], True),
        ("exact", True, 1, True),
        ("exact", 1, True, True),
        ("exact", 2, True, False),
        ("exact", Decimal(9), 9, True),
        ("exact", Fraction(9, 1), 9, True),
        ("exact", Fraction(9, 2), 4, False),
        ("exact", 9 + 0j, 9, True),
        ("exact", 0.1 + 0.2, 0.3, True),
        ("exact", 10**400, 1.5, False),
        ("exact", "1", 1, False),
        ("exact", [1], 1, False),
        ("exact", 1, [1], False),
        ("livecodebench", (1, 2), [1, 2], True),
        ("livecodebench", [(1, 2)], [[1, 2]], False),
        ("livecodebench", 1, True, True),
        ("livecodebench", 3.0, 3, True),
        ("livecodebench", 0.1 + 0.2, 0.3, False),
        ("livecodebench", {1: 2}, {"1": 2}, False),
    ],
)
def test_values_of_calls(matching: Matching, value: Any, expected: Any, is_right: bool) -> None:
    """Catches scores that are not those of the benchmark's own harness: tuples, truth values, other numbers."""
    assert is_right_value(value, expected, matching=matching) is is_right


def test_a_list_around_a_result_is_taken_off_or_not() -> None:
    """Catches a function that returns what the file of APPS says and fails for it."""
    assert is_right_value(True, [True], may_unwrap=True)
    assert is_right_value([True], [True], may_unwrap=True)
    assert not is_right_value(1, [1, 2], may_unwrap=True)
    assert not is_right_value(False, [True], may_unwrap=True)
