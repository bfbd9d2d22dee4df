"""The log of a run: whole rows in metrics.jsonl whatever happens, one writer, and trackers that never end a run."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from revelm.trainers.run_log import Interrupt, RunLog, read_rows
from revelm.trainers.trackers import Trackers
from tests.file_limit import largest_file


def open_log(run: Path, start: int = 0, **changes: Any) -> RunLog:
    """The log of phase rl."""
    return RunLog(run, **{"phase": "rl", "total": 9, "start": start, **changes})


def test_rows_are_json_whatever_the_numbers(tmp_path: Path) -> None:
    """Catches NaN or infinity in a file that is read as JSON, nested ones included."""
    with open_log(tmp_path) as log:
        log.write(1, {"loss": math.nan, "accuracy": {"mean": math.inf, "n": 0}})
    text = (tmp_path / "metrics.jsonl").read_text()
    row = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert row == {"phase": "rl", "step": 1, "loss": None, "accuracy": {"mean": None, "n": 0}}


def test_a_resumed_phase_forgets_its_own_future_only(tmp_path: Path) -> None:
    """Catches rows that a resume repeats staying, and those of another phase with larger steps going."""
    with RunLog(tmp_path, phase="sft", total=50, start=0) as log:
        log.write(50, {"loss": 1.0})
        log.write(50, {"at": "sft", "accuracy": 0.5}, phase="eval")
    with open_log(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(step, {"reward": 0.5})
            log.write(step, {"at": "rl", "accuracy": 0.5}, phase="eval")
    with open_log(tmp_path, start=2):
        pass
    found = [(row["phase"], row.get("at"), row["step"]) for row in read_rows(tmp_path)]
    early = [("rl", None, 1), ("eval", "rl", 1), ("rl", None, 2), ("eval", "rl", 2)]
    assert found == [("sft", None, 50), ("eval", "sft", 50), *early]


def test_a_line_cut_short_is_mended(tmp_path: Path) -> None:
    """Catches a row glued to half a line that a kill left, which loses both, and bytes that are no text."""
    with open_log(tmp_path) as log:
        log.write(1, {"reward": 0.5})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"phase": "rl", "step": 2, "na\xff')
    assert [row["step"] for row in read_rows(tmp_path)] == [1]
    with open_log(tmp_path, start=1) as log:
        log.write(2, {"reward": 0.5})
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2]


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    """Catches a metrics row that vanishes without a word, and an error that does not name the file."""
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    log = RunLog(tmp_path / "other", phase="rl", total=9, start=0)
    log.file = tmp_path / "metrics.jsonl"
    with pytest.raises(OSError, match="disk full") as caught:
        log.write(1, {"loss": 1.0})
    assert caught.value.filename == str(tmp_path / "metrics.jsonl")


def test_what_was_written_before_a_disk_was_full_is_whole(tmp_path: Path) -> None:
    """Catches half a row behind whole ones after a write that failed in its middle."""
    log = open_log(tmp_path)
    log.write(1, {"loss": 1.0})
    before = log.file.read_bytes()
    with largest_file(len(before) + 10), pytest.raises(OSError, match="File too large"):
        log.write(2, {"loss": 0.5})
    assert log.file.read_bytes() == before
    log.write(2, {"loss": 0.5})
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2]


def test_only_the_main_process_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches two processes that write the same rows, or mend the file while the other one writes."""
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"phase": "rl", "step": 7}\n')
    with open_log(tmp_path, is_main=False) as log:
        log.write(1, {"loss": 1.0})
        log.show(1, "loss 1")
        log.say("quiet")
    with open_log(tmp_path / "none", is_main=False) as log:
        log.write(1, {"loss": 1.0})
    assert file.read_text() == '{"phase": "rl", "step": 7}\n'
    assert not (tmp_path / "none").exists()
    assert not capsys.readouterr().err.strip()


class Broken:
    """A tracker whose second row, and everything after it, fails."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def log(self, step: int, metrics: Any) -> None:
        self.calls.append(f"log {step} {metrics}")
        if step > 1:
            raise ConnectionError("no route to host")

    def close(self) -> None:
        self.calls.append("close")


def test_a_tracker_that_fails_is_left_out_and_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a run that dies of its dashboard, one that complains at every step, and healthy trackers cut off."""
    broken, healthy = Broken(), Broken()
    trackers = Trackers({"broken": broken})
    with open_log(tmp_path, trackers=trackers) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": 1.0})
        trackers.found["healthy"] = healthy
        log.write(1, {"loss": 2.0})
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("tracker broken is switched off") == 1
    assert "no route to host" in told
    assert broken.calls == ["log 1 {'rl/loss': 1.0}", "log 2 {'rl/loss': 1.0}"]
    assert healthy.calls == ["log 1 {'rl/loss': 2.0}", "close"]
    assert len(read_rows(tmp_path)) == 4


def test_the_first_interrupt_says_what_a_second_one_does(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches Ctrl-C that seems to do nothing for as long as a step takes, and every process saying so."""
    monkeypatch.delenv("RANK", raising=False)
    interrupt = Interrupt()
    interrupt.request(2, None)
    assert interrupt.is_requested
    assert capfd.readouterr().err == "\nstopping when this step is done; once more stops at once\n"
    with pytest.raises(KeyboardInterrupt):
        interrupt.request(2, None)
    monkeypatch.setenv("RANK", "1")
    Interrupt().request(2, None)
    assert capfd.readouterr().err == ""
