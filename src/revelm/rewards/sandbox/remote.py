"""The tests' side of calls: requests to a program that runs elsewhere, and its values and exceptions."""

import builtins
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from revelm.rewards.sandbox.channel import ClosedError, receive, send
from revelm.rewards.sandbox.plain import Handle, read, write
from revelm.rewards.sandbox.stand_in import ExhaustedError, ProgramError, StandIn, awaited

_ENDS = ("StopIteration", "StopAsyncIteration")  # exceptions that would end loops of the tests


class UnpassableError(BaseException):
    """The tests pass to the program what cannot be passed. Not an Exception, which tests may expect."""


class Remote:
    """A running program, as its tests reach it."""

    def __init__(self, channel: socket.socket) -> None:
        """``channel``: to the program."""
        self._channel = channel
        self._callbacks: list[Callable[..., Any]] = []
        self._errors: dict[tuple[type, str], type] = {}
        self._stand_ins: dict[int, StandIn] = {}
        self._coroutines: dict[int, tuple[Any, int]] = {}  # by id, which stays theirs
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
        return self._read(message[1]) if message[3] is None else given[message[3]]

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
            return ExhaustedError(text)
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
        if handle[1] not in self._stand_ins:  # the same for the same object, so that tests may ask for identity
            self._stand_ins[handle[1]] = StandIn(self, handle[1], str(handle[2]))
        found = self._stand_ins[handle[1]]
        if handle[2] != "coroutine":
            return found
        coroutine = awaited(found)
        self._coroutines[id(coroutine)] = coroutine, handle[1]
        return coroutine

    def _outside(self, value: Any) -> Handle:
        if isinstance(value, StandIn):
            return ["h", object.__getattribute__(value, "_number")]
        if id(value) in self._coroutines:
            return ["h", self._coroutines[id(value)][1]]
        is_iterator = isinstance(value, Iterator)
        if not is_iterator and not callable(value):
            raise UnpassableError(f"the tests pass a {type(value).__name__}, which no program can be given")
        self._callbacks.append(partial(_next, value) if is_iterator else value)
        return ["j" if is_iterator else "k", len(self._callbacks) - 1]


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
