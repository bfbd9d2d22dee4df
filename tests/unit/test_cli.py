"""The command line: words to calls, and mistakes to one line."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from revelm.cli.evaluate import result_table
from revelm.cli.main import build_parser, main
from revelm.cli.train import overrides
from revelm.data.tokenizer import build_tiny_tokenizer, save_tokenizer
from revelm.trajectories.record import Trajectory
from revelm.trajectories.store import write_trajectories

VERBS = ["quickstart", "plan", "sft", "rl", "eval", "generate", "trace view", "trace collect", "ls"]


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The single line on stderr of a command that must fail with exit code 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_of_every_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a % in a help text, and verbs without help."""
    with pytest.raises(SystemExit) as caught:
        main([*verb.split(), "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: revelm {verb}".rstrip())


def test_help_is_light() -> None:
    """Catches a module-level import that makes --help slow."""
    code = (
        "import sys\nfrom revelm.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_runs_as_a_module() -> None:
    """Catches an exit code that is lost on the way to the shell."""
    run = subprocess.run([sys.executable, "-m", "revelm", "ls", "tasks"], check=False, capture_output=True, text=True)
    assert run.returncode == 0
    assert ["chain", "revelm.tasks.chain:Chain"] in [line.split() for line in run.stdout.splitlines()]
    assert (
        subprocess.run([sys.executable, "-m", "revelm", "trace", "view", "no"], check=False, stderr=-3).returncode == 2
    )


def test_overrides_stand_anywhere() -> None:
    """Catches argparse taking overrides only before the first option."""
    from revelm.cli.main import _parse

    words = _parse(["rl", "r.yaml", "a=1", "--out", "x y", "b.c=2", "--resume", "d=3"])
    assert words.recipe == "r.yaml"
    assert overrides(words) == ["a=1", "b.c=2", "d=3", 'out="x y"', "resume=true"]
    assert _parse(["eval", "--model", "m", "task=chain"]).overrides == ["task=chain"]


@pytest.mark.parametrize(
    "words", ["sft r.yaml --set a.b=1", "sft r.yaml --a.b=1", "rl r.yaml --a.b 1", "rl r.yaml --out x a.b 1"]
)
def test_options_that_are_fields_say_how_fields_are_changed(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a user of other trainers who is told that an argument is wrong, and not what is right."""
    with pytest.raises(SystemExit):
        main(words.split())
    assert "; fields of a recipe are changed by a.b=value, without dashes" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["nope", "", "ls --x", "ls a=b", "rl r.yaml --out x stray", "sft", "ls nothing"])
def test_wrong_words_exit_with_usage(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches stray words that are silently dropped."""
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2
    assert "usage: revelm" in capsys.readouterr().err


def test_listing(capsys: pytest.CaptureFixture[str]) -> None:
    """Catches an axis that is left out, and a long name that runs into the class behind it."""
    assert main(["ls"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{axis}:\n" in printed for axis in ("models", "objectives", "tasks", "rules"))
    assert all(len(line.split()) == 2 for line in printed.splitlines() if line.startswith(" "))


def test_user_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches tracebacks for what a user can mend."""
    missing = tmp_path / "none.parquet"
    assert error_of(capsys, "trace", "view", str(missing)).startswith("revelm: error: ")
    (tmp_path / "file").touch()
    assert "none" in error_of(capsys, "generate", "--model", str(tmp_path / "none"), "--prompt", "x")
    assert "temperature" in error_of(capsys, "generate", "--model", "x", "--prompt", "x", "--temperature", "-1")


def test_debug_shows_where_an_error_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches the way out for developers being closed."""
    monkeypatch.setenv("REVELM_DEBUG", "1")
    with pytest.raises(ValueError, match="does not exist"):
        main(["trace", "view", "none.parquet"])


def test_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches Ctrl-C ending in a traceback, or as a success."""

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("revelm.cli.listing.call", interrupt)
    assert main(["ls"]) == 130
    assert capsys.readouterr().err == "revelm: interrupted\n"


def trajectory() -> Trajectory:
    """Four tokens of the tiny tokenizer, one of them never revealed."""
    reals = np.full(4, -0.5)
    return Trajectory(
        prompt_ids=np.array([4, 10, 2, 5], dtype=np.int32),
        completion_ids=np.array([20, 21, 2, 1], dtype=np.int32),
        step=np.array([1, 1, 2, -1], dtype=np.int32),
        forward=np.array([1, 1, 2, -1], dtype=np.int32),
        logprob=reals,
        logprob_t1=reals,
        confidence=reals + 1,
        num_steps=2,
        block_size=4,
        grid_offset=0,
        stop_length=3,
        finish_reason="stop",
        rule={"kind": "dynamic", "threshold": 0.9},
        sampling={"temperature": 1.0},
    )


def test_trace_view(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a page that needs a checkpoint, or does not find the one of its own run."""
    file = tmp_path / "run" / "trajectories" / "step-1.parquet"
    write_trajectories(file, [trajectory(), trajectory()])
    assert main(["trace", "view", str(file), "--index", "1"]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == file.with_name("step-1-1.html")
    assert "shown as ids" in page.read_text(encoding="utf-8")
    save_tokenizer(build_tiny_tokenizer([], 262), tmp_path / "run" / "checkpoint-1")
    (tmp_path / "run" / "LATEST").write_text("checkpoint-1\n")
    assert main(["trace", "view", str(file), "--out", str(tmp_path / "a.html")]) == 0
    assert "shown as ids" not in (tmp_path / "a.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert "holds 2 trajectories, allowed 0..1" in error_of(capsys, "trace", "view", str(file), "--index", "2")


def test_result_table_shows_intervals_and_groups() -> None:
    """Catches brackets eaten as markup, and groups left out."""
    accuracy = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 100}
    part = {"accuracy": accuracy, "tokens_per_forward": {"mean": 1.5, "low": 1.0, "high": 2.0, "n": 100}}
    setting = part | {"tokens_per_second": 812.4, "groups": {"seen": part, "unseen": part}}
    out = io.StringIO()
    Console(file=out, width=100).print(result_table({"settings": {"dynamic": setting}}))
    text = out.getvalue()
    assert "0.500 [0.400, 0.600]" in text
    assert all(word in text for word in ("unseen", "1.50", "812", "100"))


def test_parser_knows_every_verb() -> None:
    """Catches a verb file that is not enrolled."""
    text = build_parser().format_help()
    assert all(verb.split()[0] in text for verb in VERBS)
