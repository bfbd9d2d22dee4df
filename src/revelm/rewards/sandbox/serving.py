"""The program's side of calls: its functions and objects, addressed by name or number, plain values in and out.

Requests are ``[verb, target, detail, arguments]``; replies ``["value", v, changed arguments, which of them it is]``,
``["raise", types, message, arguments]``, or ``["call", number, arguments]``, by which the program calls a function that
the tests handed over; it is told its ``["result", v]`` or what it ``["raise", type, message]``.
"""

import builtins
import json
import operator
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from revelm.rewards.sandbox.channel import ClosedError, receive, send
from revelm.rewards.sandbox.plain import Handle, read, write

_CONVERSIONS: dict[str, Callable[..., Any]] = {"int": int, "float": float, "complex": complex, "round": round}
_MUTABLE = (list, dict, set, bytearray, deque)


class Service:
    """What a program has defined and made, at the service of its tests."""

    def __init__(self, channel: socket.socket) -> None:
        """``channel``: to the tests."""
        self._channel = channel
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}

    def failed(self, error: BaseException) -> None:
        """Tell that the program did not come to its end."""
        self._say(self._raised(error))

    def serve(self, namespace: dict[str, Any]) -> None:
        """Tell what is defined, then answer until the tests hang up."""
        defined = {name: self._encode(value) for name, value in list(namespace.items()) if not name.startswith("__")}
        self._say(["defined", defined])
        while True:
            try:
                request = json.loads(receive(self._channel))
            except ClosedError:
                return
            self._say(self._answer(*request))

    def _answer(self, verb: str, target: int, detail: Any, arguments: str) -> list[Any]:
        try:
            positional, named = read(arguments, self._inside)
            given = [*positional, *named.values()]
            before = [self._encode(value) if _is_mutable(value) else "" for value in given]
            found = self._do(verb, self._objects[target], detail, (positional, named))
            same = next((place for place, one in enumerate(given) if one is found and _is_mutable(one)), None)
            value = "null" if same is not None else self._encode(found)
            after = [self._encode(value) if text else "" for text, value in zip(before, given, strict=True)]
            changed = [[i, a] for i, (a, b) in enumerate(zip(after, before, strict=True)) if a != b]
            return ["value", value, changed, same]
        except BaseException as error:  # noqa: BLE001 - whatever the program raises is its result
            return self._raised(error)

    def _raised(self, error: BaseException) -> list[Any]:
        try:
            return ["raise", _ancestry(type(error)), str(error)[:500], self._encode(list(error.args))]
        except BaseException:  # noqa: BLE001 - an exception of the program's own making
            return ["raise", ["Exception"], "an exception that cannot be shown", "[]"]

    def _do(self, verb: str, target: Any, detail: Any, arguments: tuple[list[Any], dict[str, Any]]) -> Any:
        positional, named = arguments
        actions: dict[str, Callable[[], Any]] = {
            "call": lambda: target(*positional, **named),
            "get": lambda: getattr(target, detail),
            "set": lambda: setattr(target, detail, positional[0]),
            "next": lambda: next(target),
            "iter": lambda: iter(target),
            "length": lambda: len(target),
            "item": lambda: target[positional[0]],
            "put": lambda: operator.setitem(target, *positional),
            "drop": lambda: operator.delitem(target, *positional),
            "equal": lambda: target == positional[0],
            "inside": lambda: _inside_of(target),
            "between": lambda: vars(operator)[detail](target, positional[0]),
            "of one": lambda: (_CONVERSIONS.get(detail) or vars(operator)[detail])(target),
            "truth": lambda: bool(target),
            "hash": lambda: hash(target),
            "reversed": lambda: reversed(target),
            "format": lambda: format(target, positional[0]),
            "issubclass": lambda: issubclass(positional[0], target),
            "await": lambda: _result_of(target),
            "isinstance": lambda: isinstance(positional[0], target),
            "text": lambda: str(target),
            "repr": lambda: repr(target),
        }
        return actions[verb]()

    def _encode(self, value: Any) -> str:
        try:
            return write(value, self._outside)
        except RecursionError:
            return json.dumps(self._outside(value))

    def _outside(self, value: Any) -> Handle:
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)  # kept, so that its id stays its own
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["x", number, _ancestry(value)]
        return ["h", number, type(value).__name__, callable(value)]

    def _inside(self, handle: Handle) -> Any:
        if handle[0] == "h":
            return self._objects[handle[1]]
        if handle[0] == "j":
            return self._pulled(handle[1])
        return lambda *positional: self._call_back(handle[1], positional)

    def _call_back(self, number: int, positional: tuple[Any, ...]) -> Any:
        self._say(["call", number, self._encode(list(positional))])
        while True:
            request = json.loads(receive(self._channel))
            if request[0] == "result":
                return read(request[1], self._inside)
            if request[0] == "raise":
                raise vars(builtins).get(request[1], Exception)(request[2])
            self._say(self._answer(*request))

    def _pulled(self, number: int) -> Iterator[Any]:
        """The values of an iterator of the tests: each comes when it is asked for."""
        while items := self._call_back(number, ()):
            yield items[0]

    def _say(self, message: list[Any]) -> None:
        send(self._channel, json.dumps(message))


def _result_of(coroutine: Any) -> Any:
    import asyncio

    return asyncio.run(coroutine)


def _inside_of(value: Any) -> Any:
    """What is in an object that is a collection with methods of its own; any other object itself."""
    ancestry = type(value).__mro__  # not isinstance, which asks the object
    for kind in (list, tuple, set, frozenset, deque):
        if kind in ancestry:
            return kind(kind.__iter__(value))
    return dict(dict.items(value)) if dict in ancestry else value


def _is_mutable(value: Any) -> bool:
    return isinstance(value, _MUTABLE) or type(value).__name__ == "ndarray"


def _ancestry(kind: type) -> list[str]:
    """The names of a class of exceptions and of those it derives from, up to the first builtin one."""
    names = []
    for one in kind.__mro__:
        names.append(one.__name__)
        if vars(builtins).get(one.__name__) is one:
            break
    return names
