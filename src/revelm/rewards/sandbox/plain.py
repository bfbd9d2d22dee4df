"""Plain data as JSON text and back: all that may pass between a program and its tests.

The receiving side builds every value itself, from exact types it knows, so that what a program returns is a number, a
text or a collection of such and nothing else: no object with an equality of its own, nothing that runs code. What is
not plain becomes a handle; what it means is up to ``outside`` (when written) and ``inside`` (when read).
"""

import base64
import datetime
import json
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

Handle = list[Any]
_EXACT = 2**53
_COLLECTIONS: dict[str, Any] = {"l": list, "t": tuple, "s": set, "z": frozenset, "q": deque}
_MAPPINGS: dict[str, Callable[[Any], Any]] = {
    "d": dict,
    "C": lambda pairs: Counter(dict(pairs)),
    "o": OrderedDict,
    "K": lambda pairs: dict(pairs).keys(),
    "I": lambda pairs: dict(pairs).items(),
    "V": lambda pairs: dict(pairs).values(),  # equal to no list, as a program's own is
}
_MAPPING_TYPES = ((Counter, "C"), (OrderedDict, "o"), (defaultdict, "e"), (dict, "d"))
_KINDS: tuple[type, ...] = (int, float, str, bool, bytes, list, tuple, set, dict, frozenset, complex, type(None))
_TYPES = {kind.__name__: kind for kind in _KINDS}
_EMPTY: dict[Any, Any] = {}
_KEYS, _VALUES, _ITEMS = type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items())
_NUMPY_KINDS = "biufcSUmM"
_SCALARS = {int, float, str, bool, type(None)}
# What a class defines to be more than the collection it derives from, beside all that has no underscores in front.
_PROTOCOL = {
    "__getitem__",
    "__setitem__",
    "__missing__",
    "__contains__",
    "__iter__",
    "__len__",
    "__call__",
    "__getattr__",
}


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
    mro = kind.__mro__  # not isinstance, which asks the object: it may be lying
    if int in mro:
        number = int.__index__(value)
        return bool(number) if kind is bool else number if -_EXACT < number < _EXACT else ["i", hex(number)]
    if float in mro:
        return float.__float__(value)
    if str in mro:
        return str.__str__(value)
    return _collection_out(value, kind, outside) or _rare_out(value, kind) or outside(value)


def _collection_out(value: Any, kind: type, outside: Callable[[Any], Handle]) -> list[Any] | None:
    fields = vars(kind).get("_fields")
    if tuple in kind.__mro__ and isinstance(fields, tuple) and len(fields) == tuple.__len__(value):
        return ["m", kind.__name__, list(fields), [_out(item, outside) for item in tuple.__iter__(value)]]
    for tag, collection in _COLLECTIONS.items():
        if collection in kind.__mro__:
            if _is_more(kind, collection):
                return None
            items = list(collection.__iter__(value))
            return [tag, items if _are_scalars(items) else [_out(item, outside) for item in items]]
    for mapping, tag in _MAPPING_TYPES:
        if mapping in kind.__mro__:
            if _is_more(kind, mapping):
                return None
            pairs = [[_out(k, outside), _out(v, outside)] for k, v in dict.items(value)]
            factory = value.default_factory if tag == "e" else None
            return [tag, pairs, *(name for name, kind in _TYPES.items() if kind is factory)]
    if kind is _KEYS:
        return ["K", [[_out(key, outside), None] for key in value]]
    if kind is _ITEMS:
        return ["I", [[_out(k, outside), _out(v, outside)] for k, v in value]]
    return ["V", [[place, _out(item, outside)] for place, item in enumerate(value)]] if kind is _VALUES else None


def _is_more(kind: type, collection: type) -> bool:
    """Whether a class derived from ``collection`` has methods of its own: a stack that is a list, say."""
    if kind is collection:
        return False
    own = kind.__mro__[: kind.__mro__.index(collection)]
    return any(name in _PROTOCOL or not name.startswith("_") for one in own for name in vars(one))


def _are_scalars(items: list[Any]) -> bool:
    """Whether all are numbers and texts that JSON holds as they are: much the fastest to tell of them all at once."""
    kinds = set(map(type, items))
    if int in kinds:
        return len(kinds) == 1 and min(items) > -_EXACT and max(items) < _EXACT
    return kinds <= _SCALARS


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
        is_simple = isinstance(value[1], list) and set(map(type, value[1])) <= _SCALARS
        return _COLLECTIONS[tag](value[1] if is_simple else [_in(item, inside) for item in value[1]])
    if tag in _MAPPINGS:
        return _MAPPINGS[tag]([(_in(k, inside), _in(v, inside)) for k, v in value[1]])
    if tag == "e":
        pairs = [(_in(k, inside), _in(v, inside)) for k, v in value[1]]
        return defaultdict(_TYPES[value[2]] if value[2:] else None, pairs)
    if tag == "m":
        return _named(value[1], tuple(value[2]))(*(_in(item, inside) for item in value[3]))
    if tag in ("h", "k", "j", "x"):
        return inside(value)
    return _RARE[tag](*value[1:])


@lru_cache(maxsize=256)
def _named(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields)


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
