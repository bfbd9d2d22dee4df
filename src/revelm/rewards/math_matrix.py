r"""Matrices in an answer: read from LaTeX, with the brackets, the factor and the sign of transposition around them.

``\left[\begin{array}{cc} ... \end{array}\right]`` is a matrix like ``\begin{pmatrix} ... \end{pmatrix}``, and
``\frac12 \begin{pmatrix} 2 \\ 4 \end{pmatrix}`` has the entries 1 and 2.
"""

import re
from typing import NamedTuple

from revelm.rewards.math_quantity import read_quantity

_KIND = r"(?:[pbBvV]?(?:small)?matrix|array)"
_MATRIX = re.compile(
    rf"(?P<factor>[^&]*?)(?P<open>[(\[]?)\s*\\begin\{{(?P<kind>{_KIND})\}}(?:\{{[lcr| ]*\}})?"
    r"(?P<body>.*)\\end\{(?P=kind)\}"
    r"\s*(?P<close>[)\]]?)\s*(?P<turned>\^\s*(?:\{\s*(?:T|\\top)\s*\}|T|\\top))?",
    re.DOTALL,
)
_FACTOR = re.compile(r"[-+]|.*\d.*|\\?[a-zA-Z]+")


class Matrix(NamedTuple):
    """The entries of a matrix, row by row, ``width`` to a row; ``bars``: "|" for a determinant."""

    items: tuple[str, ...]
    width: int
    bars: str


def read_matrix(spelled: str) -> Matrix | None:
    """The matrix that a spelling is; None for anything else, and for rows of different lengths."""
    found = _MATRIX.fullmatch(spelled)
    if found is None or r"\begin{" in found["body"] or f"{found['open']}{found['close']}" not in ("", "()", "[]"):
        return None
    rows = [row.strip() for row in re.split(r"\\\\|\\cr(?![a-z])", found["body"]) if row.strip()]
    cells = [[cell.strip() for cell in row.split("&")] for row in rows]
    bars = "|" if found["kind"].lower().startswith("v") else ""
    factor = found["factor"].removesuffix(r"\cdot").rstrip(" *").removesuffix(r"\cdot").strip()
    if len({len(row) for row in cells}) != 1 or (factor and (bars or _FACTOR.fullmatch(factor) is None)):
        return None
    if found["turned"]:
        cells = [list(column) for column in zip(*cells, strict=True)]
    return Matrix(tuple(_times(factor, cell) for row in cells for cell in row), len(cells[0]), bars)


def _times(factor: str, cell: str) -> str:
    """An entry with the factor in front of its matrix, worked out where both are numbers."""
    if factor in ("", "+"):
        return cell
    first, second = read_quantity("-1" if factor == "-" else factor), read_quantity(cell)
    if first is None or second is None:
        return f"{factor}({cell})"
    return str(first.value * second.value)
