"""The examples run as they are written."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_qwen3_becomes_a_block_model(tmp_path: Path) -> None:
    """Catches an example that does not run, or a converted model that does not learn."""
    words = [sys.executable, str(ROOT / "examples" / "convert_qwen3.py"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "family: qwen3 -> sdar" in done.stdout
    first, last = (float(word.split()[0]) for word in done.stdout.split("loss: ")[1].split(" at step 1, "))
    assert last < first / 2
