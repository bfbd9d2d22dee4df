r"""The program in an answer: the code block that people mean who ask for "one Python code block".

1. Only what follows the last ``</think>`` counts; a thought that never ends (``<think>`` without its end) holds drafts,
   and no answer.
2. An answer that is a Python program as it stands (it parses, and does or defines something) is one, fences in its
   docstrings and all.
3. Else its blocks count, fenced by three or more backticks or tildes (CommonMark 4.5), also behind words on the same
   line, and indented as far as they like. A closing fence is as long as the opening one and indented by at most 3
   blanks more, so that a fence inside a docstring closes nothing; it may stand at the end of the last line of code.
4. Of the blocks marked as Python (``python``, ``py``, ``Python3``, ``{.python}``), or where there are none of those
   without a language, or where there are none of those either in any other that are Python all the same: the last
   complete one; else the one in which the text ends, since a program that was cut off, or whose fence was forgotten, is
   judged by its tests like any other. Empty ones are none.
5. Where it is known what the program has to define, the last complete block that defines most of it goes before: one
   that only shows how to call the function is no answer. Without any block, code among sentences counts too.

Nothing is put in the place of a missing program: no program is no answer (None), and nothing is run.
"""

import ast
import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from textwrap import indent

from revelm.rewards.code_fitting import is_sound, parsed_program

_PYTHON = re.compile(r"\{?\s*\.?py(?:thon)?[\d.]*(?![\w+#-])", re.IGNORECASE)
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})(.*)", re.DOTALL)
_BEGUN = re.compile(r"^[ \t]*(?:async[ \t]+def|def|class)[ \t]+(\w+)", re.MULTILINE)
_CODE_LINE = re.compile(r"(?:async[ \t]+def|def|class|import|from)[ \t]+\w|@\w|\w+[ \t]*=(?!=)")
_MAX_ATTEMPTS = 30  # at finding where code among sentences begins and ends
_MAX_BARE = 100_000  # characters


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


def code_answer(text: str, names: Collection[str] = ()) -> str | None:
    """The program in ``text``, without its fence; None where there is none. Never raises.

    ``names``: functions and classes that it has to define, where that is known.
    """
    _, end, answer = text.replace("\r\n", "\n").rpartition("</think>")
    if not end and "<think>" in answer:
        return None
    if _is_program(answer):
        return _without_sentences(answer)
    blocks = [block for block in _blocks(answer) if block.code.strip()]
    if (defining := _defining(blocks, names)) is not None:
        return defining.code
    for is_wanted in (_is_python, _is_unmarked, _is_python_all_the_same):
        found = [block for block in blocks if is_wanted(block)]
        complete = [block for block in found if block.is_complete]
        if found:
            return (complete or found)[-1].code
    return None if blocks else _among_sentences(answer, names)


def completed(program: str, start: str) -> str:
    """``program``, behind ``start`` where it goes on from there.

    ``start``: the beginning of the solution that the prompt gave. A program goes on from it if it is indented, or
    defines none of the functions and classes that it begins. A rest that is Python there only once its lines, or the
    first of them, are indented is indented.
    """
    if not start.strip() or program.lstrip().startswith(start.strip()):
        return program
    begun = set(_BEGUN.findall(start))
    first = next((line for line in program.split("\n") if line.strip()), "")
    is_whole = not begun.isdisjoint(_BEGUN.findall(program)) or any(defines(program, name) for name in begun)
    is_rest = first[:1] in (" ", "\t") or (bool(begun) and not is_whole)
    if not is_rest:
        return program
    head = start.rstrip()
    last = head.rpartition("\n")[2]
    margin = last[: len(last) - len(last.lstrip())] + ("    " if last.endswith(":") else "")
    ways = [f"{head}\n{rest}" for rest in (program, margin + program, indent(program, margin))]
    return next((way for way in ways if is_sound(way)), ways[0])


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


def _is_python_all_the_same(block: _Block) -> bool:
    return block.is_complete and _is_program(block.code)


def _defining(blocks: Sequence[_Block], names: Collection[str]) -> _Block | None:
    """The last complete block that defines most of ``names``; None where none defines any."""
    found: _Block | None = None
    most = 0
    for block in blocks:
        is_candidate = block.is_complete and (_is_python(block) or _is_unmarked(block))
        number = sum(defines(block.code, name) for name in names) if is_candidate else 0
        if number >= max(most, 1):
            found, most = block, number
    return found


def _among_sentences(text: str, names: Collection[str]) -> str | None:
    """The first lines that are a program and define one of ``names``."""
    if len(text) > _MAX_BARE or not any(defines(text, name) for name in names):
        return None
    lines = text.split("\n")
    attempts = _MAX_ATTEMPTS
    for first in [number for number, line in enumerate(lines) if _CODE_LINE.match(line)]:
        last = len(lines)
        while last > first and attempts > 0:
            attempts -= 1
            code = "\n".join(lines[first:last])
            if parsed_program(code) is None:
                last = first + _broken_line(code) - 1
            elif any(defines(code, name) for name in names):
                return _without_sentences(code)
            else:
                break
    return None


def _broken_line(code: str) -> int:
    """The number of the line in which code stops being Python, from 1; 1 where that is not told."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of doubtful escapes in strings
            ast.parse(code)
    except SyntaxError as error:
        return min(error.lineno or 1, code.count("\n") + 1)
    except (ValueError, RecursionError, MemoryError):  # a boundary: any text at all
        return 1
    return 1


def _without_sentences(program: str) -> str:
    """A program without words at its beginning and end that happen to be Python: ``[BEGIN]``, ``Done``, ``Note: x``."""
    tree = parsed_program(program)
    kept = [] if tree is None else [node for node in tree.body if not _is_sentence(node)]
    if tree is None or not kept or (kept[0] is tree.body[0] and kept[-1] is tree.body[-1]):
        return program
    lines = program.split("\n")
    first = 0 if kept[0] is tree.body[0] else tree.body[tree.body.index(kept[0]) - 1].end_lineno or 0
    return "\n".join([*lines[first : kept[-1].end_lineno], ""])


def _is_sentence(node: ast.stmt) -> bool:
    is_value = isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call | ast.Constant)
    return is_value or (isinstance(node, ast.AnnAssign) and node.value is None)


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
    tree = parsed_program(text)
    return tree is not None and any(
        not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in tree.body
    )
