"""Values of config.json by type. A field that is null counts as absent; one of the wrong type gives one sentence.

Readers raise KeyError for an absent field without a default and ValueError, which names field and value, for any value
that cannot be; so what they return is safe to compute with.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

Number = TypeVar("Number", int, float)
MAX_LAYERS = 1000  # far beyond every release; what is above is a damaged file


def integer(
    config: Mapping[str, Any], name: str, *, default: int | None = None, least: int = 1, most: int | None = None
) -> int:
    """The integer ``name``, from ``least`` to ``most``."""
    value = config.get(name)
    if value is None:
        return _default(name, default)
    return check_integer(f"config.json: {name}", value, least=least, most=most)


def number(config: Mapping[str, Any], name: str, *, default: float | None = None) -> float:
    """The positive number ``name``."""
    value = config.get(name)
    return _default(name, default) if value is None else check_number(f"config.json: {name}", value)


def flag(config: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """Whether ``name`` is true."""
    value = config.get(name)
    return default if value is None else check_flag(f"config.json: {name}", value)


def integers(config: Mapping[str, Any], name: str, *, default: Sequence[int]) -> list[int]:
    """The list ``name`` of integers of at least 0."""
    value = config.get(name)
    if value is None:
        return list(default)
    if not isinstance(value, list):
        raise ValueError(f"config.json: {name} is {value!r}, must be a list of integers")
    return [check_integer(f"config.json: {name}[{i}]", entry, least=0) for i, entry in enumerate(value)]


def mapping(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object ``name``, empty where it is absent, without its nulls."""
    value = config.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"config.json: {name} is {value!r}, must be an object of fields")
    return {key: entry for key, entry in value.items() if entry is not None}


def check_integer(where: str, value: Any, *, least: int = 1, most: int | None = None) -> int:
    """``value`` when it is an integer in the range; ValueError about ``where`` otherwise."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{where} is {value!r}, must be an integer {bounds}")
    return value


def check_number(where: str, value: Any) -> float:
    """``value`` when it is a finite number above 0; ValueError about ``where`` otherwise."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise ValueError(f"{where} is {value!r}, must be a number above 0")
    return value


def check_flag(where: str, value: Any) -> bool:
    """``value`` when it is true or false; ValueError about ``where`` otherwise."""
    if not isinstance(value, bool):
        raise ValueError(f"{where} is {value!r}, must be true or false")
    return value


def _default(name: str, default: Number | None) -> Number:
    if default is None:
        raise KeyError(name)
    return default
