"""Which program an answer holds."""

import time

import pytest

from revelm.rewards.code_answer import code_answer, completed, defines

DOCSTRING = 'def f():\n    """\n    ```\n    f(1)\n    ```\n    """\n    return 2\n'


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("a\n```python\nx = 1\n```\nb\n```py\ny = 2\n```\nend", "y = 2\n"),
        ("```Python3\nx = 1\n```", "x = 1\n"),
        ('```python title="a"\nx = 1\n```', "x = 1\n"),
        ("```{.python}\nx = 1\n```", "x = 1\n"),
        ("~~~python\nx = 1\n~~~", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```python\nx()\n```\nOutput:\n```\n3\n```", "x()\n"),
        ("```python\nx()\n```\nRun it:\n```bash\npython x.py\n```", "x()\n"),
        ("```cpp\nint x;\n```", None),
        ("```pycon\n>>> 1\n1\n```", None),
        ("```python\n\n```", None),
        ("```python\nx = 1\n```\n```python\n```", "x = 1\n"),
        ("```python\r\nx = 1\r\n```\r\n", "x = 1\n"),
        ("Here it is: ```python\nx = 1\n```", "x = 1\n"),
        ("```python\ndef f():\n    return 1```\nDone.", "def f():\n    return 1\n"),
        ("1. so\n   ```python\n   def f():\n       return 1\n   ```\n2. end", "def f():\n    return 1\n"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        (f"```python\n{DOCSTRING}```", DOCSTRING),
        ("```python\nx = 1\n```python\ny = 2\n```", "y = 2\n"),
        ("```text\nx = 1\n```", "x = 1\n"),
        ("```solution\nx = 1\n```\n```\ny = 2\n```", "y = 2\n"),
        ('```json\n{"a": 1}\n```', None),
        ("```bash\npip install x\n```", None),
    ],
)
def test_the_last_block_of_python_is_the_program(text: str, program: str | None) -> None:
    """Catches an example of output that counts as the program, and fences of models that are not those of a book."""
    assert code_answer(text) == program


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nx = 1\ny =", "x = 1\ny =\n"),
        ("```python\nx = 1\n```\nBetter:\n```python\ny = 2\n", "x = 1\n"),
        ("Input:\n```\n3\n```\n```python\nx = 1\n", "x = 1\n"),
    ],
)
def test_a_block_without_an_end_counts_where_there_is_no_whole_one(text: str, program: str) -> None:
    """Catches a forgotten fence that costs a right answer, and a half second try that hides a whole first one."""
    assert code_answer(text) == program


F = "def f(x):\n    return 1\n"
USE = "Use it:\n```python\nprint(f(3))\n```"


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{F}```\n{USE}",
        f"```python\ndef f(x): return 0\n```\nBetter:\n```python\n{F}```\n{USE}",
        f"```python\ndef helper(): ...\n```\n```\n{F}```\n{USE}",
        f"```python\nf = 1\n```\n```python\n{F}```\n```python\ndef f(x):\n    ret",
        f"Here it is:\n\n{F}\nThis works, since it's constant.",
        f"Here it is:\n{F}Done",
        f"[BEGIN]\n{F}[DONE]",
        f"I define f(x).\n{F}",
    ],
)
def test_what_defines_the_function_is_the_program(text: str) -> None:
    """Catches right answers that are lost: behind them stands an example of their use, or sentences around them."""
    assert code_answer(text, ["f"]) == F


def test_sentences_are_no_program() -> None:
    """Catches text that is run because it begins as code does."""
    for text in (
        "def f is hard to write. I give up.",
        "Let f = 3, as asked.",
        "from f we see\nclass f is hard",
        USE[:7],
    ):
        assert code_answer(text, ["f"]) is None
    assert code_answer(f"Here it is:\n{F}", ["g"]) is None
    began = time.process_time()
    for text in ("def f(\n" * 10**4, "def f(x):\n    return (1\n" * 10**4, "f = 1\n(" * 10**4):
        assert code_answer(text, ["f"]) is None
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("<think>```python\nx = 1\n```</think>\nNo idea.", None),
        ("<think>```python\nx = 1\n```", None),
        ("a draft: ```python\nx = 1\n```\n</think>\n```python\ny = 2\n```", "y = 2\n"),
    ],
)
def test_thoughts_hold_no_answer(text: str, program: str | None) -> None:
    """Catches a draft that is judged in place of the answer."""
    assert code_answer(text) == program


@pytest.mark.parametrize(
    "text", ["def f():\n    return 1", "print(1)", "import os", "for i in []:\n    pass", DOCSTRING]
)
def test_an_answer_may_be_a_program_as_it_stands(text: str) -> None:
    """Catches code without a fence that counts as no answer."""
    assert code_answer(text) == text


EMPTY = ("", " ", "None", "-0", "1234\n" * 999, "I give up.", "Paris", "{" * 5000, "\x00", "\ud800")
LONG = ("(" * 10**5, "`" * 10**6, "```" * 10**5, "-" * 10**5 + "1", "```python\n" * 10**4, ("x" * 99 + "```") * 10**4)


@pytest.mark.parametrize("text", [*EMPTY, *LONG], ids=lambda text: repr(text[:12]))
def test_no_text_raises_or_takes_long_and_none_is_made_up(text: str) -> None:
    """W63: a sentence in the place of a missing program is run, and its error compared with what is expected."""
    began = time.process_time()
    found = code_answer(text)
    assert time.process_time() - began < 2.0
    assert found is None


START = "from math import pi\n\n\ndef area(r):\n"


@pytest.mark.parametrize(
    ("program", "whole"),
    [
        ("    return pi * r * r\n", f"{START}    return pi * r * r\n"),
        (f"{START}    return 1\n", f"{START}    return 1\n"),
        ("def area(r):\n    return 3\n", "def area(r):\n    return 3\n"),
        ("return 3\n", f"{START}    return 3\n"),
        ("x = r\nreturn x\n", f"{START}    x = r\n    return x\n"),
        ("x = r\n    return x\n", f"{START}    x = r\n    return x\n"),
        ("return (\n", f"{START}return (\n"),
    ],
)
def test_a_program_may_go_on_from_the_beginning_that_was_given(program: str, whole: str) -> None:
    """Catches an answer that completes the function, as it was asked to, and is run without its head."""
    assert completed(program, START) == whole


def test_definitions_are_seen() -> None:
    """Catches a name that only stands in a call taken for its definition."""
    for code in (
        "def f(x): ...",
        "class f:",
        "f = lambda x: x",
        "async def f(): ...",
        "from m import g, f",
        "f: int = 1",
    ):
        assert defines(f"import m\n{code}\n", "f"), code
    for code in ("f(1)", "ff = 1", "    def f(x): ...", "f == 1", "import f2"):
        assert not defines(f"import m\n{code}\n", "f"), code
