"""Every diffusion family through the same commands: generate, sft, rl, from a checkpoint in its official layout."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from revelm.cli.main import main
from revelm.models.load import load_model
from tests.families import diffusion_families, save_family

CHAT = {"messages": [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cdcdcdcd"}]}


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The training rows of a run."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["phase"] in ("sft", "rl")]


@pytest.mark.parametrize("name", diffusion_families())
def test_generate_sft_and_rl_run_on_every_family(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a verb that knows only some families: same words, same code path, five steps that learn."""
    model = save_family(name, tmp_path / "model")
    words = ["generate", "--model", str(model), "--prompt", "ab", "--max-new-tokens", "6", "--tokens-per-step", "2"]
    assert main(words) == 0
    assert " steps, " in capsys.readouterr().err

    chats = tmp_path / "chats.jsonl"
    chats.write_text("\n".join([json.dumps(CHAT)] * 4))
    common = ["train.max_positions=2000", "train.steps=5", "optimizer.schedule=constant", "optimizer.warmup_steps=0"]
    recipe = tmp_path / "sft.yaml"
    recipe.write_text(f"model: {{path: {model}}}\ndata: {{path: {chats}}}\nout: {tmp_path / 'sft'}\nbatch_size: 16\n")
    assert main(["sft", str(recipe), *common, "train.steps=5", "optimizer.learning_rate=0.01"]) == 0
    learnt = rows_of(tmp_path / "sft")
    assert all(math.isfinite(row["loss"]) for row in learnt)
    # Per hidden token: the loss itself weighs few tokens by 1/t, and five of those are mostly noise.
    falls = [row["nll"] for row in learnt]
    assert len(falls) == 5
    assert falls[-1] < falls[0] - 0.05

    recipe = tmp_path / "rl.yaml"
    recipe.write_text(f"model: {{path: {tmp_path / 'sft'}}}\ntask: tests.toy_tasks:Parity\nout: {tmp_path / 'rl'}\n")
    rollouts = ["problems_per_step=2", "group_size=4", "max_new_tokens=6", "rule={kind: static, tokens_per_step: 2}"]
    settings = ["objective={kind: trace_rl, shrinkage: 2}", "optimizer.learning_rate=0.001", "eval.num_problems=1"]
    assert main(["rl", str(recipe), *common, *(f"rollout.{word}" for word in rollouts), *settings]) == 0
    trained = rows_of(tmp_path / "rl")
    assert [row["step"] for row in trained] == [1, 2, 3, 4, 5]
    assert all(math.isfinite(row["loss"]) for row in trained if "loss" in row)
    assert any("loss" in row for row in trained)
    assert load_model(tmp_path / "rl").family == load_model(model).family
