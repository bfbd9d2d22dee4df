"""The harness's own command line with our model: started as a user starts it, without a network."""

import json
import os
import sys
from pathlib import Path
from subprocess import run

import pytest

from tests.lm_eval_files import GSM8K, HELLASWAG, HUMANEVAL, write_rows
from tests.tiny_checkpoint import save_tiny

pytest.importorskip("lm_eval", reason="the extra 'eval' is not installed")
pytestmark = pytest.mark.slow


def test_the_command_runs_every_local_task(tmp_path: Path) -> None:
    """Catches a model or a task that the harness does not know, and results that are not written."""
    model = save_tiny(tmp_path / "model", max_position_embeddings=512)
    (tmp_path / "text.txt").write_text("To be, or not to be.\n\nThat is the question.\n", encoding="utf-8")
    rows = write_rows(tmp_path / "gsm8k.jsonl", GSM8K)
    metadata = {
        "gsm8k": rows,
        "gsm8k_train": rows,
        "hellaswag": write_rows(tmp_path / "hellaswag.jsonl", HELLASWAG),
        "humaneval": write_rows(tmp_path / "humaneval.jsonl", HUMANEVAL),
        "text": str(tmp_path / "text.txt"),
    }
    tasks = ["gsm8k_local", "hellaswag_local", "humaneval_local", "text_local"]
    words = [
        *(sys.executable, "-m", "revelm.eval.lm_eval", "--model", "revelm"),
        *("--model_args", f"pretrained={model},rule=static,num_samples=8", "--device", "cpu"),
        *("--tasks", *tasks, "--metadata", json.dumps(metadata), "--gen_kwargs", "max_gen_toks=8"),
        *("--num_fewshot", "1", "--output_path", str(tmp_path / "out"), "--log_samples"),
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = run(words, env={**os.environ, **offline}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    assert sorted(found["results"]) == sorted(tasks)
    assert found["config"]["revelm"]["rule"] == {"kind": "static"}
    assert len(list((tmp_path / "out").rglob("samples_*.jsonl"))) == len(tasks)
