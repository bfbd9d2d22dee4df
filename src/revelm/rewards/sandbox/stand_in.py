"""Stand-ins, in the process of the tests, for the functions and objects of a program that runs elsewhere.

A stand-in forwards calls, attributes, items, iteration, conversions and truth. It forwards no comparison with a value
of the tests, no containment of one and no arithmetic with one: those would hand the expected value to the program, or
leave the verdict to it (``abs(f(x) - 3.5) < 1e-6``). What the program says of two of its own objects counts: where a
test compares those, it decides in any case.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

_COLLECTIONS = (list, tuple, set, frozenset, dict, deque)
BETWEEN = (
    *("lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"),
    *("and_", "or_", "xor", "lshift", "rshift"),
)
OF_ONE = ("neg", "pos", "invert", "abs", "index", "int", "float", "complex", "round")
_SHOWN = ("__name__", "__qualname__", "__dict__", "__annotations__")


class ProgramError(Exception):
    """The program raised what is no builtin exception, or left."""


class ExhaustedError(ProgramError):
    """The program raised StopIteration. Not that itself: it would end loops of the tests early, as if all was well."""


class Requests(Protocol):
    """A running program."""

    def request(self, verb: str, number: int, *, detail: Any = None, arguments: Any = ((), {})) -> Any:
        """The value that the program answers with. Raises what it raised, or ClosedError."""
        ...


class StandIn:
    """Stands for an object of the program."""

    __slots__ = ("_number", "_remote", "_type")

    def __init__(self, remote: Requests, number: int, kind: str) -> None:
        """``number``: by which the program knows the object; ``kind``: the name of its type."""
        object.__setattr__(self, "_remote", remote)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_type", kind)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """Call the object."""
        return self._remote.request("call", self._number, arguments=(positional, named))

    def __getattr__(self, name: str) -> Any:
        """An attribute of the object."""
        if name.startswith("__") and name not in _SHOWN:
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
            except ExhaustedError:
                return
            yield value

    def __next__(self) -> Any:
        """The next value of an iterator."""
        try:
            return self._remote.request("next", self._number)
        except ExhaustedError:
            raise StopIteration from None

    def __len__(self) -> int:
        """The object's length."""
        length = self._remote.request("length", self._number)
        return length if isinstance(length, int) else 0

    def __bool__(self) -> bool:
        """Whether the object is true, as it says itself: it could as well be True."""
        return self._remote.request("truth", self._number) is True

    def __reversed__(self) -> Iterator[Any]:
        """The values of the object, from the last."""
        return iter(self._remote.request("reversed", self._number))

    def __contains__(self, item: Any) -> bool:
        """Whether an item is in the object: in what it holds or yields, whatever it says of it."""
        inside = self._inside()
        return item in (iter(self) if isinstance(inside, StandIn) else inside)

    def __enter__(self) -> Any:
        """What the object gives for a block."""
        return self._remote.request("get", self._number, detail="__enter__")()

    def __exit__(self, *_: object) -> None:
        """The end of a block. The object is not told of exceptions, and cannot take back a failed assert."""
        self._remote.request("get", self._number, detail="__exit__")(None, None, None)

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
            inside = self._inside()
            return not isinstance(inside, StandIn) and bool(inside == other)
        if not isinstance(other, StandIn) or self._remote is not object.__getattribute__(other, "_remote"):
            return False
        if self._number == object.__getattribute__(other, "_number"):
            return True
        return self._remote.request("equal", self._number, arguments=((other,), {})) is True

    def __hash__(self) -> int:
        """As the object says."""
        return hash(self._remote.request("hash", self._number))

    def __format__(self, spec: str) -> str:
        """The object in a text."""
        return str(self._remote.request("format", self._number, arguments=((spec,), {})))

    def __subclasscheck__(self, subclass: Any) -> bool:
        """Whether a class of the program derives from this class of the program."""
        if not isinstance(subclass, StandIn):
            return False
        return self._remote.request("issubclass", self._number, arguments=((subclass,), {})) is True

    def _inside(self) -> Any:
        """What is in the object where it is a collection; else the object."""
        return self._remote.request("inside", self._number)


def awaited(coroutine: StandIn) -> Any:
    """A coroutine of the program as one of the tests; the program runs it when it is awaited."""
    remote, number = (object.__getattribute__(coroutine, name) for name in ("_remote", "_number"))

    async def run() -> Any:
        return remote.request("await", number)

    return run()


def _between(name: str) -> Callable[[StandIn, Any], Any]:
    """An operator of two objects of the program."""

    def operate(self: StandIn, other: Any) -> Any:
        if not isinstance(other, StandIn):
            return NotImplemented
        return self._remote.request("between", self._number, detail=name, arguments=((other,), {}))

    return operate


def _of_one(name: str) -> Callable[[StandIn], Any]:
    """An operator or conversion of one object of the program."""

    def operate(self: StandIn) -> Any:
        return self._remote.request("of one", self._number, detail=name)

    return operate


for _name in BETWEEN:
    setattr(StandIn, f"__{_name.rstrip('_')}__", _between(_name))
for _name in OF_ONE:
    setattr(StandIn, f"__{_name}__", _of_one(_name))
