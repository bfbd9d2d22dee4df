"""Official tensor names to parameters and back.

A family's table lists (official, native) prefixes, tried in order; ``{}`` stands for a layer number and is carried
over. ``{expert}`` in an official name says that the native parameter is the stack of one tensor per expert.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

NameTable = tuple[tuple[str, str], ...]
EXPERT = "{expert}"
LAYER = "decoder.layers.{}."
STANDARD: NameTable = (("model.", "decoder."), ("lm_head.", "lm_head."))


def sparse_names(official: str, *, router: str = "gate.", shared: str | None = None) -> NameTable:
    """The usual names of a sparse layer below ``official``, e.g. "model.layers.{}.mlp."."""
    native = f"{LAYER}mlp."
    experts = tuple(
        (f"{official}experts.{EXPERT}.{name}.weight", f"{native}experts.{name}")
        for name in ("gate_proj", "up_proj", "down_proj")
    )
    bias = ((f"{official}{router}expert_bias", f"{native}expert_bias"),)
    extra = ((f"{official}{shared}", f"{native}shared."),) if shared is not None else ()
    return (*experts, *bias, (f"{official}{router}", f"{native}router."), *extra)


@dataclass(frozen=True)
class Piece:
    """The official tensor ``official`` is the native tensor ``native``, or its entry ``index`` along the first axis."""

    official: str
    native: str
    index: int | None = None

    def of(self, state: Mapping[str, Tensor]) -> Tensor:
        """The native tensor's part that this piece is about (a view)."""
        tensor = state[self.native]
        return tensor if self.index is None else tensor[self.index]


def pieces(state: Mapping[str, Tensor], table: NameTable) -> Iterator[Piece]:
    """One piece per official tensor, for every native tensor of ``state``, in its order."""
    for native, tensor in state.items():
        official = official_name(native, table)
        if EXPERT not in official:
            yield Piece(official, native)
            continue
        for i in range(len(tensor)):
            yield Piece(official.replace(EXPERT, str(i)), native, i)


def official_name(native: str, table: NameTable) -> str:
    """The official name of a native tensor; that of a stack of experts still contains ``{expert}``."""
    for official, prefix in table:
        found = _translated(native, prefix, official)
        if found is not None:
            return found
    raise AssertionError(f"parameter {native} has no name in the family's table")


def native_module(official: str, table: NameTable) -> str | None:
    """The native name of an official module or tensor, if the table knows it; stacks of experts have none."""
    for prefix, native in table:
        found = None if EXPERT in prefix else _translated(official, prefix, native)
        if found is not None:
            return found
    return None


def _translated(name: str, source: str, target: str) -> str | None:
    """``name`` with its prefix ``source`` replaced by ``target``, layer number carried over; None without a match."""
    found = re.match(re.escape(source).replace(r"\{\}", r"(\d+)"), name)
    return None if found is None else target.replace("{}", "".join(found.groups())) + name[found.end() :]
