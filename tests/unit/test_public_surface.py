"""What the package shows to its users, and what importing it costs them. Each check runs in a fresh interpreter."""

import json
import subprocess
import sys
from typing import Any

import pytest

TORCH_FREE = ["core", "data", "rewards", "tasks", "trajectories", "viz"]

IMPORT_ALL = """
import importlib, json, pkgutil, sys
package = importlib.import_module({package!r})
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
print(json.dumps("torch" in sys.modules))
"""

PUBLIC_NAMES = """
import json, types, revelm
names = [name for name in dir(revelm) if not name.startswith("_")]
public = [name for name in names if not isinstance(getattr(revelm, name), types.ModuleType)]
print(json.dumps([list(revelm.__all__), public]))
"""

COMMAND = """
import contextlib, io, json, sys
from revelm.cli.main import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    try:
        code = main({arguments!r})
    except SystemExit as stop:
        code = stop.code
loaded = [name for name in ("torch", "transformers", "datasets", "pyarrow") if name in sys.modules]
print(json.dumps([code, out.getvalue(), loaded]))
"""


def fresh(program: str) -> Any:
    """The JSON that ``program`` prints last, run in an interpreter that has imported nothing yet."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_public_names_are_declared_and_sorted() -> None:
    """Catches a name that leaks out of the package, or one promised in ``__all__`` that cannot be had."""
    declared, public = fresh(PUBLIC_NAMES)
    assert declared == sorted(declared)
    assert sorted(public) == [name for name in declared if not name.startswith("_")]


@pytest.mark.parametrize("arguments", [["--help"], ["ls"], ["rl", "--help"]], ids=" ".join)
def test_words_load_nothing_heavy(arguments: list[str]) -> None:
    """Catches the import that makes `revelm --help` take seconds."""
    code, shown, loaded = fresh(COMMAND.format(arguments=arguments))
    assert code in (0, None)
    assert shown
    assert loaded == []


@pytest.mark.parametrize("folder", TORCH_FREE)
def test_light_folders_import_without_torch(folder: str) -> None:
    """Catches torch coming in through a third party or an ``__init__`` file, which the import contracts cannot see."""
    assert fresh(IMPORT_ALL.format(package=f"revelm.{folder}")) is False
