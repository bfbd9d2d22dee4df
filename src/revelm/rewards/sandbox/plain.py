"""Plain data as JSON text and back: all that may pass between a program and its tests.

The receiving side builds every value itself, from exact types it knows, so that what a program returns is a number, a
text or a collection of such and nothing else: no object with an equality of its own, nothing that runs code. What is
not plain becomes a handle; what it means is up to ``outside`` (when written) and ``inside`` (when read).
"""

import base64
import datetime
import json
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

Handle = list[Any]
_EXACT = 2**53
_COLLECTIONS: dict[str, Any] = {"l": list, "t": tuple, "s": set, "z": frozenset, "q": deque}
_MAPPINGS: dict[str, Callable[[Any], Any]] = {
    "d": dict,
    "C": lambda pairs: Counter(dict(pairs)),
    "o": OrderedDict,
    "e": lambda pairs: defaultdict(None, pairs),
}
_MAPPING_TYPES = ((Counter, "C"), (OrderedDict, "o"), (defaultdict, "e"), (dict, "d"))
_KINDS: tuple[type, ...] = (int, float, str, bool, bytes, list, tuple, set, dict, frozenset, complex, type(None))
_TYPES = {kind.__name__: kind for kind in _KINDS}
_NUMPY_KINDS = "biufcSUmM"


def write(value: Any, outside: Callable[[Any], Handle]) -> str:
    """``value`` as JSON text. ``outside`` gives the handle of what is not plain. RecursionError: it is too deep."""
    return json.dumps(_out(value, outside))


def read(text: str, inside: Callable[[Handle], Any]) -> Any:
    """The value of a text by ``write``, or by an enemy. ValueError, TypeError and others for what is no such text."""
    return _in(json.loads(text), inside)


def _out(value: Any, outside: Callable[[Any], Handle]) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str or kind is float:
        return value
    if isinstance(value, int):
        number = int.__index__(value)
        return bool(number) if kind is bool else number if -_EXACT < number < _EXACT else ["i", hex(number)]
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    for tag, collection in _COLLECTIONS.items():
        if isinstance(value, collection):
            return [tag, [_out(item, outside) for item in collection.__iter__(value)]]
    for mapping, tag in _MAPPING_TYPES:
        if isinstance(value, mapping):
            return [tag, [[_out(k, outside), _out(v, outside)] for k, v in dict.items(value)]]
    return _rare_out(value, kind) or outside(value)


def _rare_out(value: Any, kind: type) -> list[Any] | None:
    if kind in (bytes, bytearray):
        return ["b" if kind is bytes else "B", base64.b64encode(value).decode()]
    if kind is complex:
        return ["c", value.real, value.imag]
    if kind is range:
        return ["r", *(hex(n) for n in (value.start, value.stop, value.step))]
    if kind is Decimal:
        return ["D", str(value)]
    if kind is Fraction:
        return ["F", hex(value.numerator), hex(value.denominator)]
    if kind in (datetime.date, datetime.datetime, datetime.time):
        return [{"date": "yd", "datetime": "ydt", "time": "yt"}[kind.__name__], value.isoformat()]
    if kind is datetime.timedelta:
        return ["ytd", value.days, value.seconds, value.microseconds]
    if value is Ellipsis or value is NotImplemented:
        return ["u", "Ellipsis" if value is Ellipsis else "NotImplemented"]
    if isinstance(value, type) and _TYPES.get(value.__name__) is value:
        return ["T", value.__name__]
    return _numpy_out(value)


def _numpy_out(value: Any) -> list[Any] | None:
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray | numpy.generic) or value.dtype.kind not in _NUMPY_KINDS:
        return None
    tag = "n" if isinstance(value, numpy.ndarray) else "N"
    return [tag, value.dtype.str, list(value.shape), base64.b64encode(value.tobytes()).decode()]


def _in(value: Any, inside: Callable[[Handle], Any]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise ValueError("not a plain value")
    tag = value[0]
    if tag in _COLLECTIONS:
        return _COLLECTIONS[tag]([_in(item, inside) for item in value[1]])
    if tag in _MAPPINGS:
        return _MAPPINGS[tag]([(_in(k, inside), _in(v, inside)) for k, v in value[1]])
    if tag in ("h", "k"):
        return inside(value)
    return _RARE[tag](*value[1:])


def _numpy_in(dtype: str, shape: list[int], data: str) -> Any:
    import numpy

    kind = numpy.dtype(dtype)
    if kind.kind not in _NUMPY_KINDS or kind.hasobject:
        raise ValueError(f"dtype {dtype!r}")
    return numpy.frombuffer(base64.b64decode(data), dtype=kind).reshape(shape).copy()


_RARE: dict[str, Callable[..., Any]] = {
    "i": lambda text: int(text, 16),
    "b": base64.b64decode,
    "B": lambda text: bytearray(base64.b64decode(text)),
    "c": complex,
    "r": lambda *numbers: range(*(int(n, 16) for n in numbers)),
    "D": Decimal,
    "F": lambda top, bottom: Fraction(int(top, 16), int(bottom, 16)),
    "yd": datetime.date.fromisoformat,
    "ydt": datetime.datetime.fromisoformat,
    "yt": datetime.time.fromisoformat,
    "ytd": datetime.timedelta,
    "u": lambda name: {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}[name],
    "T": lambda name: _TYPES[name],
    "n": _numpy_in,
    "N": lambda dtype, shape, data: _numpy_in(dtype, shape, data)[()],
}
