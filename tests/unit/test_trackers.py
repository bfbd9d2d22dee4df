"""Trackers: refused before a run when they cannot work, the same run of the tool after a resume, the numbers they get.

TensorBoard is the real one. Weights & Biases and Trackio stand behind a boundary: modules of those names write down
what they are told.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from revelm.core.config import Schema, parse_config
from revelm.trainers.trackers import (
    Trackers,
    TrackerSpec,
    check_trackers,
    open_trackers,
    scalars,
)

RECORDER = """
import json
from pathlib import Path
FILE = Path(__file__).with_suffix(".calls")
def tell(name, /, *args, **kwargs):
    with FILE.open("a") as out:
        out.write(json.dumps([name, list(args), kwargs]) + chr(10))
class Run:
    def log(self, metrics): tell("log", metrics)
    def define_metric(self, name, **kwargs): tell("define_metric", name, **kwargs)
    def finish(self): tell("finish")
def init(**kwargs):
    tell("init", **kwargs)
    if kwargs["project"] == "locked":
        raise PermissionError("log in first")
    return Run()
def log(metrics, step): tell("log", metrics, step=step)
def finish(): tell("finish")
"""


class Told(Schema):
    """What a recipe says of trackers."""

    trackers: tuple[TrackerSpec, ...] = ()


Install = Callable[[str], Callable[[], list[Any]]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a recording module on the path; gives back what reads the calls it got."""
    places = tmp_path / "site"
    places.mkdir()
    monkeypatch.syspath_prepend(str(places))
    before = set(sys.modules)

    def put(name: str) -> Callable[[], list[Any]]:
        (places / f"{name}.py").write_text(RECORDER)
        return lambda: [json.loads(line) for line in (places / f"{name}.calls").read_text().splitlines()]

    yield put
    for name in {"wandb", "trackio"} & (set(sys.modules) - before):
        del sys.modules[name]


def specs(*told: Any) -> tuple[TrackerSpec, ...]:
    """Trackers as a recipe gives them."""
    return parse_config(Told, {"trackers": list(told)}).trackers


def write(run: Path, told: tuple[TrackerSpec, ...], *, start: int, steps: range) -> None:
    """One sitting of a run."""
    run.mkdir(parents=True, exist_ok=True)
    trackers = open_trackers(run, told, config=Told(trackers=told), start=start)
    for step in steps:
        assert trackers.log({"phase": "rl", "step": step, "reward": step + 0.5}) == []
    assert trackers.close() == []


def test_a_name_nobody_knows_is_refused_with_the_nearest() -> None:
    """Catches a misspelt tracker that is found out when the run is over."""
    with pytest.raises(ValueError, match=r"trackers\.0\.kind: 'tensorbord' is not known.*'tensorboard'.*wandb"):
        specs("tensorbord")
    with pytest.raises(ValueError, match=r"trackers\.1: projct: unknown field; did you mean 'project'"):
        specs("wandb", {"kind": "tensorboard", "projct": "x"})
    with pytest.raises(ValueError, match="wandb is given twice"):
        check_trackers(specs("wandb", {"kind": "wandb", "project": "x"}))


@pytest.mark.parametrize(
    ("kind", "field", "value", "takers"),
    [
        ("tensorboard", "project", "mine", "trackio and wandb"),
        ("tensorboard", "name", "first", "trackio and wandb"),
        ("tensorboard", "mode", "offline", "wandb"),
        ("trackio", "mode", "offline", "wandb"),
    ],
)
def test_a_field_that_does_nothing_is_refused(kind: str, field: str, value: str, takers: str) -> None:
    """Catches a name that appears nowhere, and numbers that leave the machine in spite of ``offline``."""
    told = rf"trackers: {kind}: {field} '{value}' has no effect on it, only on {takers}; leave it out"
    given = specs({"kind": kind, field: value})
    with pytest.raises(ValueError, match=told):
        check_trackers(given)


def test_saved_trackers_are_read_again() -> None:
    """Catches a configuration that a run saves, with all its defaults, and then refuses."""
    trackio = {"kind": "trackio", "project": "p", "name": "n"}
    for told in specs("tensorboard", trackio, {"kind": "wandb", "mode": "offline"}):
        assert specs(told.model_dump(mode="json")) == (told,)


def test_a_missing_package_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an ImportError hours into a run, and a folder of that name taken for the package."""
    (tmp_path / "trackio").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    for name in ("trackio", "tensorboard"):  # what another test has imported would be found
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ValueError, match="trackio needs the package 'trackio', which is not installed; pip install"):
        check_trackers(specs("trackio"))
    with pytest.raises(ValueError, match=r"tensorboard needs the package 'tensorboard'.*revelm\[train\]"):
        open_trackers(tmp_path, specs("tensorboard"), config=Told(), start=0)
    assert not (tmp_path / "trackers.json").exists()


def test_tensorboard_goes_on_where_the_checkpoint_is(tmp_path: Path) -> None:
    """Catches steps that stand twice after a resume, a second curve for the same run, numbers under another name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, specs("tensorboard"), start=0, steps=range(1, 6))
    write(tmp_path, specs("tensorboard"), start=3, steps=range(4, 7))
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    points = [(event.step, event.value) for event in found.Scalars("rl/reward")]
    assert points == [(step, step + 0.5) for step in range(1, 7)]
    assert "config/text_summary" in found.Tags()["tensors"]


def test_tensorboard_begins_anew_without_a_checkpoint(tmp_path: Path) -> None:
    """Catches steps of a run that was killed before its first checkpoint, beside those of the next attempt."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, specs("tensorboard"), start=0, steps=range(1, 6))
    write(tmp_path, specs("tensorboard"), start=0, steps=range(1, 3))
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("rl/reward")] == [1, 2]


def test_wandb_goes_on_with_the_same_run(tmp_path: Path, install: Install) -> None:
    """Catches a resumed run that appears as a second one, and options that are not handed on."""
    calls = install("wandb")
    told = specs({"kind": "wandb", "project": "p", "mode": "offline"})
    write(tmp_path / "mine", told, start=0, steps=range(1, 3))
    write(tmp_path / "mine", told, start=1, steps=range(2, 3))
    write(tmp_path / "other", told, start=0, steps=range(0))
    first, second, third = (kwargs for name, _, kwargs in calls() if name == "init")
    assert first == second
    assert first["id"] != third["id"]
    assert {k: first[k] for k in ("project", "name", "mode", "resume")} == {
        "project": "p",
        "name": "mine",
        "mode": "offline",
        "resume": "allow",
    }
    assert first["config"]["trackers"][0]["kind"] == "wandb"
    assert [args[0] for name, args, _ in calls() if name == "log"][:2] == [
        {"rl/reward": 1.5, "step": 1},
        {"rl/reward": 2.5, "step": 2},
    ]
    assert ["define_metric", ["*"], {"step_metric": "step"}] in calls()
    assert sum(name == "finish" for name, _, _ in calls()) == 3


def test_trackio_tells_runs_of_one_name_apart(tmp_path: Path, install: Install) -> None:
    """Catches two runs in folders named alike that write into one run of the tool."""
    calls = install("trackio")
    for folder, start in (("a/rl", 0), ("b/rl", 0), ("a/rl", 1)):
        write(tmp_path / folder, specs("trackio"), start=start, steps=range(start + 1, 3))
    names = [kwargs["name"] for name, _, kwargs in calls() if name == "init"]
    assert names[0] == names[2] != names[1]
    assert all(name.startswith("rl-") for name in names)
    assert [kwargs["step"] for name, _, kwargs in calls() if name == "log"] == [1, 2, 1, 2, 2]


def test_a_tracker_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path, install: Install) -> None:
    """Catches a login that is missing found out from an empty dashboard, and trackers left open by the error."""
    calls = {name: install(name) for name in ("trackio", "wandb")}
    told = specs("trackio", {"kind": "wandb", "project": "locked"})
    with pytest.raises(ValueError, match=r"wandb could not be opened \(PermissionError: log in first\)"):
        open_trackers(tmp_path, told, config=Told(), start=0)
    assert calls["trackio"]()[-1][0] == "finish"


def test_rows_become_flat_finite_numbers() -> None:
    """Catches NaN, text and nested tables handed to tools that take numbers, and settings that share one curve."""
    row = {"phase": "eval", "at": "rl", "step": 3, "setting": "dynamic", "accuracy": {"mean": 0.5, "low": 0.25, "n": 4}}
    parts = {"seconds": {"rollout": 2, "update": None}, "loss": math.nan, "note": "x"}
    assert scalars(row | parts) == {
        "eval/dynamic/accuracy": 0.5,
        "eval/dynamic/accuracy/low": 0.25,
        "eval/dynamic/seconds/rollout": 2.0,
    }
    assert scalars({"phase": "sft", "step": 1, "loss": 2}) == {"sft/loss": 2.0}
    assert Trackers({}).log({"phase": "sft", "step": 1}) == []
