"""Names and specs to components."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from revelm.core import registry
from revelm.core.registry import build, names, resolve


@dataclass(frozen=True)
class Sample:
    """A component as a user would write it."""

    clip: float = 0.2
    num: int = 3
    sizes: tuple[int, ...] = (1, 2)
    path: str | None = None
    threshold: float = 0.9

    def __post_init__(self) -> None:
        if self.num < 1:
            raise ValueError(f"num is {self.num}, must be at least 1")


@dataclass(frozen=True)
class Demanding:
    """A component with a field that has no default."""

    size: int


HERE = f"{__name__}:Sample"


def test_builds_a_class_outside_the_tree() -> None:
    """Catches a registry that only knows its own names."""
    assert build("tasks", {"kind": HERE, "num": 5, "sizes": [4, 5], "clip": 1}) == Sample(1.0, 5, (4, 5))


def test_a_registered_name_may_stand_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a name that works in a table but not as a bare string."""
    monkeypatch.setitem(registry.TASKS, "sample", HERE)
    assert build("tasks", "sample") == Sample()
    assert "sample" in names("tasks")
    assert resolve("tasks", "sample") is Sample


def test_unknown_field_names_the_nearest_one() -> None:
    """Catches silently ignored typing mistakes."""
    with pytest.raises(ValueError, match=r"^objective\.clipp: unknown field; did you mean 'clip'\? known: clip, num, "):
        build("objectives", {"kind": HERE, "clipp": 0.1})
    with pytest.raises(ValueError, match=r"^rl\.loss\.zzz: unknown field; known: clip"):
        build("objectives", {"kind": HERE, "zzz": 0.1}, field="rl.loss")
    with pytest.raises(
        ValueError, match=r"task\.a: .*; task\.b: .* known: [^:]*; task=.* begins with its defaults, where"
    ):
        build("tasks", {"kind": "chain", "a": 1, "b": 2})


@pytest.mark.parametrize(
    ("field", "value"),
    [("num", "abc"), ("num", "3"), ("num", True), ("num", 1.5), ("clip", "x"), ("sizes", ["a"]), ("path", 3)],
)
def test_wrong_types_are_refused(field: str, value: object) -> None:
    """Catches lax conversion: "3" for an integer, true for 1."""
    with pytest.raises(ValueError, match=rf"^task\.{field}.*, got "):
        build("tasks", {"kind": HERE, field: value})


def test_own_checks_of_a_component_are_reported_with_its_address() -> None:
    """Catches an error from __post_init__ that does not say which component it is about."""
    with pytest.raises(ValueError, match=r"^task: num is 0, must be at least 1$"):
        build("tasks", {"kind": HERE, "num": 0})


def test_missing_required_field() -> None:
    """Catches a TypeError with a Python signature in it where a user forgot a field."""
    with pytest.raises(ValueError, match=r"^task\.size: required, but not given$"):
        build("tasks", {"kind": f"{__name__}:Demanding"})


def test_synonyms_are_renamed_and_never_given_twice() -> None:
    """Catches recipes written in the field's other words being refused, or one value silently winning."""
    assert build("rules", {"kind": HERE, "dynamic_threshold": 0.5}).threshold == 0.5
    with pytest.raises(ValueError, match="threshold: given twice"):
        build("rules", {"kind": HERE, "dynamic_threshold": 0.5, "threshold": 0.6})


def test_unknown_kind() -> None:
    """Catches a KeyError where a list of names belongs."""
    with pytest.raises(ValueError, match=r"task\.kind: 'chian' is not known; did you mean 'chain'\? known: .*chain, "):
        build("tasks", "chian")
    with pytest.raises(ValueError, match=r"a function in a file is \{kind: function, path: my_rewards\.py:kind\}"):
        build("rewards", "my_rewards.py:kind")
    with pytest.raises(ValueError, match="no module named 'nowhere'"):
        build("tasks", "nowhere.mod:Thing")
    with pytest.raises(ValueError, match="has no class 'Nothing'"):
        build("tasks", f"{__name__}:Nothing")
    with pytest.raises(ValueError, match="not a dataclass"):
        build("tasks", "json:JSONDecoder")
    with pytest.raises(ValueError, match=r"task\.kind: required"):
        build("tasks", {"num": 1})
    with pytest.raises(ValueError, match="did you mean 'tasks'"):
        names("task")


def test_tables_need_no_torch() -> None:
    """Catches an import that makes --help slow."""
    code = "import sys, revelm.core.registry, revelm.core.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
