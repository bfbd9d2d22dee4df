"""The tests' side of calls: stand-ins for the functions and objects of a program that runs elsewhere.

A stand-in forwards calls, attributes and iteration. It forwards no comparison and no arithmetic: those would hand the
expected value to the program, or leave the verdict to it. Two stand-ins are equal if they are for the same object.
"""

import builtins
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

from revelm.rewards.sandbox.channel import ClosedError, receive, send
from revelm.rewards.sandbox.plain import Handle, read, write


class ProgramError(Exception):
    """The program raised what is no builtin exception, or left."""


class Remote:
    """A running program, as its tests reach it."""

    def __init__(self, channel: socket.socket) -> None:
        """``channel``: to the program."""
        self._channel = channel
        self._callbacks: list[Callable[..., Any]] = []

    def defined(self) -> dict[str, Any]:
        """What the program has defined, by name. Raises what the program raised, or ClosedError."""
        message = self._hear()
        if message[0] == "raise":
            raise _exception(message[1], message[2])
        return {str(name): self._read(text) for name, text in message[1].items()}

    def request(self, verb: str, number: int, *, detail: Any = None, arguments: Any = ((), {})) -> Any:
        """The value that the program answers with. Raises what it raised, or ClosedError."""
        positional, named = arguments
        self._say([verb, number, detail, write([list(positional), dict(named)], self._outside)])
        while True:
            message = self._hear()
            if message[0] != "call":
                break
            result = self._callbacks[message[1]](*self._read(message[2]))
            self._say(["result", write(result, self._outside)])
        if message[0] == "raise":
            raise _exception(message[1], message[2])
        given = [*positional, *named.values()]
        for place, text in message[2]:
            _become(given[place], self._read(text))
        return self._read(message[1])

    def _hear(self) -> list[Any]:
        try:
            message = json.loads(receive(self._channel))
        except (ValueError, RecursionError) as error:
            raise ClosedError("a message that cannot be read") from error
        if not isinstance(message, list) or not message:
            raise ClosedError("a message that cannot be read")
        return message

    def _say(self, message: list[Any]) -> None:
        send(self._channel, json.dumps(message))

    def _read(self, text: str) -> Any:
        return read(text, self._inside)

    def _inside(self, handle: Handle) -> Any:
        if handle[0] != "h" or not isinstance(handle[1], int):
            raise ValueError("not a handle")
        return StandIn(self, handle[1], str(handle[2]))

    def _outside(self, value: Any) -> Handle:
        if isinstance(value, StandIn):
            return ["h", object.__getattribute__(value, "_number")]
        if callable(value):
            self._callbacks.append(value)
            return ["k", len(self._callbacks) - 1]
        raise TypeError(f"a {type(value).__name__} cannot be passed to the program")


class StandIn:
    """Stands for an object of the program."""

    __slots__ = ("_number", "_remote", "_type")

    def __init__(self, remote: Remote, number: int, kind: str) -> None:
        """``number``: by which the program knows the object; ``kind``: the name of its type."""
        object.__setattr__(self, "_remote", remote)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_type", kind)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """Call the object."""
        return self._remote.request("call", self._number, arguments=(positional, named))

    def __getattr__(self, name: str) -> Any:
        """An attribute of the object."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self._remote.request("get", self._number, detail=name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute of the object."""
        self._remote.request("set", self._number, detail=name, arguments=((value,), {}))

    def __iter__(self) -> Iterator[Any]:
        """The values that the object yields."""
        iterator = self._remote.request("iter", self._number)
        if not isinstance(iterator, StandIn):
            yield from iterator
            return
        number = object.__getattribute__(iterator, "_number")
        while True:
            try:
                value = self._remote.request("next", number)
            except _ExhaustedError:
                return
            yield value

    def __next__(self) -> Any:
        """The next value of an iterator."""
        try:
            return self._remote.request("next", self._number)
        except _ExhaustedError:
            raise StopIteration from None

    def __len__(self) -> int:
        """The object's length."""
        length = self._remote.request("length", self._number)
        return length if isinstance(length, int) else 0

    def __bool__(self) -> bool:
        """An object is true, whatever it says of itself."""
        return True

    def __getitem__(self, key: Any) -> Any:
        """An item of the object."""
        return self._remote.request("item", self._number, arguments=((key,), {}))

    def __str__(self) -> str:
        """The object as text."""
        return str(self._remote.request("text", self._number))

    def __repr__(self) -> str:
        """The object as text for programmers."""
        return str(self._remote.request("repr", self._number))

    def __eq__(self, other: object) -> bool:
        """Whether both stand for the same object."""
        return isinstance(other, StandIn) and self._number == object.__getattribute__(other, "_number")

    def __hash__(self) -> int:
        """By the object stood for."""
        return hash(self._number)


class _ExhaustedError(ProgramError):
    """The program raised StopIteration. Not that itself: it would end loops of the tests early, as if all was well."""


def _exception(name: Any, message: Any) -> Exception:
    """What the program raised, if it is a builtin exception; it says what the program says."""
    text = str(message)
    if name == "StopIteration":
        return _ExhaustedError(text)
    kind = vars(builtins).get(str(name))
    if isinstance(kind, type) and issubclass(kind, Exception) and name != "StopAsyncIteration":
        try:
            return kind(text)
        except TypeError:  # one that wants more than a message
            pass
    return ProgramError(f"{name}: {text}")


def _become(value: Any, new: Any) -> None:
    """Change a collection in place, as the program changed its copy of it."""
    if isinstance(value, list | bytearray) and isinstance(new, list | bytearray):
        value[:] = new
    elif isinstance(value, dict | set) and type(new) is type(value):
        value.clear()
        value.update(new)
    elif type(value).__name__ in ("deque", "ndarray") and type(new) is type(value):
        if type(value).__name__ == "ndarray":
            value[...] = new
        else:
            value.clear()
            value.extend(new)
