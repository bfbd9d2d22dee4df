"""Functions of users by their address: ``package.module:function``, or ``folder/file.py:function``."""

import sys
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any


@lru_cache(maxsize=256)
def load_function(path: str) -> Callable[..., Any]:
    """The function at ``path``; each file is run once. ValueError for an address that leads to none.

    A module that fails inside itself raises its own error, unchanged, but for one that would end the process.
    """
    place, colon, name = path.rpartition(":")
    if not colon or not place or not name:
        raise ValueError(f"path={path!r}: expected package.module:function or folder/file.py:function")
    try:
        module = _from_file(place, path) if place.endswith(".py") else _from_name(place, path)
    except SystemExit as error:
        remedy = "put what a script does behind `if __name__ == '__main__':`"
        raise ValueError(f"path={path!r}: {place} ends the process where it is imported; {remedy}") from error
    if name not in vars(module):
        raise ValueError(f"path={path!r}: {place} has no function {name!r}")
    found = vars(module)[name]
    if not callable(found) or isinstance(found, type):
        what = "a class; give a function, or an instance that can be called" if isinstance(found, type) else "none"
        raise ValueError(f"path={path!r}: expected a function, {name} is {what}")
    return found  # type: ignore[no-any-return]


def _from_name(place: str, path: str) -> ModuleType:
    try:
        return import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not (place == error.name or place.startswith(error.name + ".")):
            raise
        raise ValueError(f"path={path!r}: no module named {error.name!r}") from error


def _from_file(place: str, path: str) -> ModuleType:
    """The file as a module; under a name of its own, so that it hides no other module."""
    file = Path(place).resolve()
    if not file.is_file():
        raise ValueError(f"path={path!r}: no such file: {file}")
    name = f"revelm_user_{file.stem}_{blake2b(str(file).encode(), digest_size=6).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, file)
    assert spec is not None, "the name ends in .py"
    assert spec.loader is not None, "the name ends in .py"
    module = module_from_spec(spec)
    sys.modules[name] = module  # before it runs, as dataclasses and pickles inside look it up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
