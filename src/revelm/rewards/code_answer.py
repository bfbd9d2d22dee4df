r"""The program in an answer: the last code block, as the people who ask for "one Python code block" mean it.

1. Only what follows the last ``</think>`` counts; a thought that never ends (``<think>`` without its end) holds drafts,
   and no answer.
2. An answer that is a Python program as it stands (it parses, and does or defines something) is one, fences in its
   docstrings and all.
3. Else its blocks count, fenced by three or more backticks or tildes (CommonMark 4.5), also behind words on the same
   line, and indented as far as they like. A closing fence is as long as the opening one and indented by at most 3
   blanks more, so that a fence inside a docstring closes nothing; it may stand at the end of the last line of code.
4. Of the blocks marked as Python (``python``, ``py``, ``Python3``, ``{.python}``), or where there are none of those
   without a language: the last complete one; else the one in which the text ends, since a program that was cut off, or
   whose fence was forgotten, is judged by its tests like any other. Blocks in other languages and empty ones are none.

Nothing is put in the place of a missing program: no program is no answer (None), and nothing is run.
"""

import ast
import re
import warnings
from dataclasses import dataclass

_PYTHON = re.compile(r"\{?\s*\.?py(?:thon)?[\d.]*(?![\w+#-])", re.IGNORECASE)
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})(.*)", re.DOTALL)
_BEGUN = re.compile(r"^[ \t]*(?:async[ \t]+def|def|class)[ \t]+(\w+)", re.MULTILINE)
_MAX_BARE = 200_000  # characters; more than any program, little enough to parse at once


@dataclass(frozen=True)
class _Block:
    language: str
    code: str
    is_complete: bool


@dataclass(frozen=True)
class _Opening:
    fence: str
    language: str
    indent: int


def code_answer(text: str) -> str | None:
    """The program in ``text``, without its fence; None where there is none. Never raises."""
    _, end, answer = text.replace("\r\n", "\n").rpartition("</think>")
    if not end and "<think>" in answer:
        return None
    if _is_program(answer):
        return answer
    blocks = _blocks(answer)
    for is_wanted in (_is_python, _is_unmarked):
        found = [block for block in blocks if is_wanted(block) and block.code.strip()]
        complete = [block for block in found if block.is_complete]
        if found:
            return (complete or found)[-1].code
    return None


def completed(program: str, start: str) -> str:
    """``program``, behind ``start`` where it goes on from there.

    ``start``: the beginning of the solution that the prompt gave. A program goes on from it if it is indented, or
    defines none of the functions and classes that it begins.
    """
    if not start.strip() or program.lstrip().startswith(start.strip()):
        return program
    begun = set(_BEGUN.findall(start))
    first = next((line for line in program.split("\n") if line.strip()), "")
    is_whole = not begun.isdisjoint(_BEGUN.findall(program)) or any(defines(program, name) for name in begun)
    is_rest = first[:1] in (" ", "\t") or (bool(begun) and not is_whole)
    return f"{start.rstrip()}\n{program}" if is_rest else program


def defines(program: str, name: str) -> bool:
    """Whether ``program`` seems to define ``name`` at its top level, as a function, a class or a variable."""
    word = rf"{re.escape(name)}\b"
    ways = (
        rf"(?:async[ \t]+def|def|class)[ \t]+{word}",
        rf"{word}[ \t]*(?::|=(?!=))",
        rf"from[ \t].*\bimport\b.*\b{word}",
    )
    return re.search("|".join(f"^{way}" for way in ways), program, re.MULTILINE) is not None


def _is_python(block: _Block) -> bool:
    return _PYTHON.match(block.language) is not None


def _is_unmarked(block: _Block) -> bool:
    return not block.language


def _blocks(text: str) -> list[_Block]:
    """All fenced blocks, in order; one that the text does not end is the last."""
    blocks: list[_Block] = []
    opening: _Opening | None = None
    lines: list[str] = []
    for line in text.split("\n"):
        if opening is None:
            opening = _opening(line)
            continue
        code = _before_end(line, opening)
        if code is None:
            lines.append(line)
            continue
        blocks.append(_block(opening, [*lines, code] if code.strip() else lines, is_complete=True))
        opening, lines = _opening(line) if _starts_another(line) else None, []
    return blocks if opening is None else [*blocks, _block(opening, lines, is_complete=False)]


def _opening(line: str) -> _Opening | None:
    """The fence that a line opens: at its start with any language, or at its end with Python's name."""
    found = _FENCE.match(line)
    if found is not None:
        fence, language = found[1], found[2].strip()
        if fence[0] == "`" and "`" in language:
            return None
        return _Opening(fence, language, len(line) - len(line.lstrip(" \t")))
    before, fence, language = line.rpartition("```")
    is_fence = bool(fence) and "`" not in before and _PYTHON.fullmatch(language.strip()) is not None
    return _Opening(fence, language.strip(), 0) if is_fence else None


def _before_end(line: str, opening: _Opening) -> str | None:
    """The code in front of a closing fence in this line; None where the line closes nothing."""
    found = _FENCE.match(line)
    if found is not None and found[1].startswith(opening.fence):
        indent = len(line) - len(line.lstrip(" \t"))
        return "" if indent <= opening.indent + 3 else None
    code = line.rstrip()
    if opening.fence[0] == "`" and code.endswith(opening.fence) and code.count("`") == len(opening.fence):
        return code.removesuffix(opening.fence)
    return None


def _starts_another(line: str) -> bool:
    """Whether a fence names a language, and so begins a block where the one before was left open."""
    found = _FENCE.match(line)
    return found is not None and _PYTHON.fullmatch(found[2].strip()) is not None


def _block(opening: _Opening, lines: list[str], *, is_complete: bool) -> _Block:
    """A block whose lines lose as many blanks as its fence is indented by."""
    margin = re.compile(rf"[ \t]{{0,{opening.indent}}}")
    code = "\n".join(margin.sub("", line, count=1) for line in lines).rstrip("\n")
    return _Block(opening.language, f"{code}\n" if code else "", is_complete)


def _is_program(text: str) -> bool:
    """Whether a text without fences is a Python program that does more than state values."""
    if len(text) > _MAX_BARE:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of doubtful escapes in strings
            body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a boundary: any text at all
        return False
    return any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in body)
