"""The tests' side of calls: stand-ins for the functions and objects of a program that runs elsewhere.

A stand-in forwards calls, attributes, items and iteration. It forwards no comparison with a value of the tests and no
arithmetic: those would hand the expected value to the program, or leave the verdict to it. Two stand-ins are as equal
as the program says: where a test compares two objects that the program has made, it decides in any case.
"""

import builtins
import json
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from revelm.rewards.sandbox.channel import ClosedError, receive, send
from revelm.rewards.sandbox.plain import Handle, read, write

_COLLECTIONS = (list, tuple, set, frozenset, dict, deque)
_ENDS = ("StopIteration", "StopAsyncIteration")  # exceptions that would end loops of the tests


class ProgramError(Exception):
    """The program raised what is no builtin exception, or left."""


class UnpassableError(Exception):
    """The tests pass to the program what cannot be passed."""


class Remote:
    """A running program, as its tests reach it."""

    def __init__(self, channel: socket.socket) -> None:
        """``channel``: to the program."""
        self._channel = channel
        self._callbacks: list[Callable[..., Any]] = []
        self._errors: dict[tuple[type, str], type] = {}
        self.is_lost = False

    def defined(self) -> dict[str, Any]:
        """What the program has defined, by name. Raises what the program raised, or ClosedError."""
        message = self._hear()
        if message[0] == "raise":
            raise self._exception(*message[1:])
        return {str(name): self._read(text) for name, text in message[1].items()}

    def request(self, verb: str, number: int, *, detail: Any = None, arguments: Any = ((), {})) -> Any:
        """The value that the program answers with. Raises what it raised, or ClosedError."""
        positional, named = arguments
        self._say([verb, number, detail, write([list(positional), dict(named)], self._outside)])
        while True:
            message = self._hear()
            if message[0] != "call":
                break
            self._say(self._called_back(message[1], self._read(message[2])))
        if message[0] == "raise":
            raise self._exception(*message[1:])
        given = [*positional, *named.values()]
        for place, text in message[2]:
            _become(given[place], self._read(text))
        return self._read(message[1])

    def _called_back(self, number: int, arguments: list[Any]) -> list[Any]:
        """What a function of the tests says. A failed assert in it is not for the program to catch."""
        try:
            return ["result", write(self._callbacks[number](*arguments), self._outside)]
        except (AssertionError, ClosedError, UnpassableError):
            raise
        except Exception as error:  # noqa: BLE001 - code from a data set, whose exceptions the program may expect
            return ["raise", type(error).__name__, str(error)]

    def _hear(self) -> list[Any]:
        self.is_lost = True  # until the message is there: tests may catch what is raised here
        try:
            message = json.loads(receive(self._channel))
        except (ValueError, RecursionError) as error:
            raise ClosedError("a message that cannot be read") from error
        if not isinstance(message, list) or not message:
            raise ClosedError("a message that cannot be read")
        self.is_lost = False
        return message

    def _say(self, message: list[Any]) -> None:
        text = json.dumps(message)
        self.is_lost = True
        send(self._channel, text)
        self.is_lost = False

    def _read(self, text: str) -> Any:
        return read(text, self._inside)

    def _exception(self, names: Any, message: Any, arguments: Any) -> Exception:
        """What the program raised; it says what the program says."""
        text = str(message)
        if names[0] == "StopIteration":
            return _ExhaustedError(text)
        kind = self._error_class(names)
        if kind is ProgramError:
            return ProgramError(f"{names[0]}: {text}")
        try:
            found = kind(*self._read(arguments))
        except Exception:  # noqa: BLE001 - one that wants other arguments, or arguments that are none
            return ProgramError(f"{names[0]}: {text}")
        assert isinstance(found, Exception)
        return found

    def _error_class(self, names: Sequence[Any]) -> type:
        """The builtin exception ``names[-1]`` or what stands for the program's own that derive from it."""
        kind = vars(builtins).get(str(names[-1]))
        is_known = isinstance(kind, type) and issubclass(kind, Exception) and names[-1] not in _ENDS
        found: type = kind if isinstance(kind, type) and is_known else ProgramError
        if found is ProgramError:
            return found
        for name in reversed(names[:-1]):
            found = self._errors.setdefault((found, str(name)), type(str(name), (found,), {}))
        return found

    def _inside(self, handle: Handle) -> Any:
        if handle[0] == "x":
            return self._error_class(handle[2])
        if handle[0] != "h" or not isinstance(handle[1], int):
            raise ValueError("not a handle")
        return StandIn(self, handle[1], str(handle[2]))

    def _outside(self, value: Any) -> Handle:
        if isinstance(value, StandIn):
            return ["h", object.__getattribute__(value, "_number")]
        is_iterator = isinstance(value, Iterator)
        if not is_iterator and not callable(value):
            raise UnpassableError(f"the tests pass a {type(value).__name__}, which no program can be given")
        self._callbacks.append(partial(_next, value) if is_iterator else value)
        return ["j" if is_iterator else "k", len(self._callbacks) - 1]


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
        if name.startswith("__") and name != "__name__":
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

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set an item of the object."""
        self._remote.request("put", self._number, arguments=((key, value), {}))

    def __delitem__(self, key: Any) -> None:
        """Delete an item of the object."""
        self._remote.request("drop", self._number, arguments=((key,), {}))

    def __instancecheck__(self, instance: Any) -> bool:
        """Whether an object of the program is of this class of the program."""
        if not isinstance(instance, StandIn):
            return False
        return self._remote.request("isinstance", self._number, arguments=((instance,), {})) is True

    def __str__(self) -> str:
        """The object as text."""
        return str(self._remote.request("text", self._number))

    def __repr__(self) -> str:
        """The object as text for programmers."""
        return str(self._remote.request("repr", self._number))

    def __eq__(self, other: object) -> bool:
        """Whether both are the program's, and equal as it says: nothing it could not say of what it makes anyway.

        A collection of the tests is compared, here, with what is in the object where that is a collection too.
        """
        if isinstance(other, _COLLECTIONS):
            inside = self._remote.request("inside", self._number)
            return not isinstance(inside, StandIn) and inside == other
        if not isinstance(other, StandIn) or self._remote is not object.__getattribute__(other, "_remote"):
            return False
        if self._number == object.__getattribute__(other, "_number"):
            return True
        return self._remote.request("equal", self._number, arguments=((other,), {})) is True

    def __hash__(self) -> int:
        """By the object stood for."""
        return hash(self._number)


class _ExhaustedError(ProgramError):
    """The program raised StopIteration. Not that itself: it would end loops of the tests early, as if all was well."""


def _next(iterator: Iterator[Any]) -> list[Any]:
    """The next value, in a list; an empty one behind the last."""
    for value in iterator:
        return [value]
    return []


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
