"""What of this machine's Python programs may see: the standard library, and the packages that programs use."""

import sys
from importlib.util import find_spec
from pathlib import Path

DEVICES = ("null", "zero", "full", "random", "urandom")
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache", "/etc/alternatives")
_PACKAGES = (
    *("numpy", "scipy", "sympy", "mpmath", "pandas", "networkx", "sortedcontainers"),
    *("dateutil", "pytz", "tzdata", "six"),  # what pandas cannot be without
)


def visible() -> dict[str, list[str]]:
    """What programs may read beside the standard library, and where they import from."""
    source = Path(__file__).resolve().parents[2]
    needed = [source / "__init__.py", source / "rewards" / "__init__.py", source / "rewards" / "sandbox"]
    folders, places = [str(path) for path in needed], [str(source.parent)]
    for name in _PACKAGES:
        if (spec := find_spec(name)) and spec.origin:
            origin = Path(spec.origin).resolve()
            package = origin.parent if origin.name == "__init__.py" else origin
            libraries = package.parent / f"{name}.libs"
            folders += [str(package), *([str(libraries)] if libraries.is_dir() else [])]
            places.append(str(package.parent))
    standard = [
        path for path in sys.path if path and Path(path).resolve().is_relative_to(Path(sys.base_prefix).resolve())
    ]
    standard = [path for path in standard if not path.endswith(("site-packages", "dist-packages"))]
    return {"folders": folders, "path": list(dict.fromkeys([*standard, *places]))}


def shown(folders: list[str]) -> list[Path]:
    """The system's programs and libraries, Python, and ``folders``: as far as there are such."""
    return [path for path in map(Path, (*_SYSTEM, sys.base_prefix, *folders)) if path.exists()]


def package_folders() -> list[Path]:
    """Where packages are installed beside the standard library: some hold data sets."""
    prefixes = sorted({"/usr", "/usr/local", str(Path(sys.base_prefix).resolve())})
    found = [path for prefix in prefixes for path in Path(prefix).glob("lib*/python3*/*-packages") if path.is_dir()]
    return sorted({path.resolve() for path in found})
