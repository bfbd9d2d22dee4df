"""The hidden tests of LiveCodeBench: base64 of zlib of a pickle of a text, unpacked without running what is in it.

A pickle is a program; this one may only make a text. All of release 6 unpacked is many gigabytes, so tests stay packed
until an answer is judged.
"""

import base64
import io
import json
import pickle
import zlib
from typing import Any

_MAX_BYTES = 2**30
# A damaged pickle can raise nearly anything.
_DAMAGED = (
    *(ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError, RecursionError, TypeError),
    *(ValueError, pickle.UnpicklingError, zlib.error),
)


class _TextUnpickler(pickle.Unpickler):
    """An unpickler for texts, numbers and collections of them: every class is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse whatever is asked for."""
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def unpacked(text: str) -> object:
    """What a packed field holds: JSON as it stands, or packed as in ``code_generation_lite``.

    Raises ValueError for anything else, also for a pickle that wants more than plain values and for more than 1 GiB.
    """
    if text.lstrip()[:1] in ("[", "{"):
        return json.loads(text)
    try:
        unzip = zlib.decompressobj()
        content = unzip.decompress(base64.b64decode(text.encode("ascii"), validate=True), _MAX_BYTES)
        if unzip.unconsumed_tail or not unzip.eof:
            raise ValueError("cut off, or more than 1 GiB")
        value = content.decode("utf-8") if content[:1] in (b"[", b"{") else _TextUnpickler(io.BytesIO(content)).load()
        return json.loads(value) if isinstance(value, str | bytes) else value
    except _DAMAGED as error:  # a boundary: files of others
        raise ValueError(f"neither JSON nor base64 of zlib of a pickled text ({error})") from error
