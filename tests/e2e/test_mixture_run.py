"""A run on a mixture of users' files: what it learns from where, stopped in the middle of an epoch and gone on with."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from revelm.cli.main import main
from revelm.core.config import parse_config, read_yaml
from revelm.data.mixture import Mixture
from revelm.trainers.config import SFTConfig
from tests.e2e.test_resume import assert_same_runs, only_first_half, rows, run_sft, sft_values
from tests.tiny_checkpoint import save_tiny


def mixture(folder: Path) -> dict[str, Any]:
    """Three sources of different shapes and kinds, none of whose sizes the number of steps is a multiple of."""
    chats = [
        {"messages": [{"role": "user", "content": f"{i}"}, {"role": "assistant", "content": "a"}]} for i in range(7)
    ]
    pq.write_table(pa.Table.from_pylist(chats), folder / "chats.parquet")
    pairs = "question,answer\r\n" + "".join(f'"{i}+1","{i + 1}"\r\n' for i in range(5))
    (folder / "pairs.csv").write_bytes(b"\xef\xbb\xbf" + pairs.encode())
    text = json.dumps({"text": "to be or not to be " * 12}) + "\n"
    (folder / "text.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    weights = {"chats.parquet": 3, "pairs.csv": 2, "text.jsonl.gz": 1}
    return {"mix": [{"path": str(folder / name), "weight": weight} for name, weight in weights.items()]}


@pytest.mark.parametrize("more", [{}, {"model_type": "Dream"}], ids=["block", "full"])
def test_a_mixture_resumed_is_bit_for_bit(tmp_path: Path, more: dict[str, Any]) -> None:
    """Catches a resumed run that begins its sources anew, or draws them in other proportions or another order."""
    model = save_tiny(tmp_path / "model", num_hidden_layers=1, **more)
    values = {"task": None, "data": mixture(tmp_path)}
    straight = run_sft(sft_values(model, tmp_path / "a", **values))
    only_first_half(straight, tmp_path / "b")
    resumed = run_sft(sft_values(model, tmp_path / "b", resume=True, **values))
    assert_same_runs(straight, resumed, 10)
    assert len({row["loss"] for row in rows(straight)}) == 10
    other = {"mix": [part | {"weight": 1} for part in values["data"]["mix"]]}
    with pytest.raises(ValueError, match=r"resume: data\.mix\.0\.weight is 1"):
        run_sft(sft_values(model, tmp_path / "b", resume=True, **values | {"data": other}))
    (tmp_path / "pairs.csv").write_text((tmp_path / "pairs.csv").read_text().replace("4+1", "5+0"))
    with pytest.raises(ValueError, match="resume: data has not the texts that the run has learnt so far"):
        run_sft(sft_values(model, tmp_path / "b", resume=True, **values))


def test_the_words_of_a_mixture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a recipe that the command line cannot give, and texts that are cut without a word."""
    model = save_tiny(tmp_path / "model", num_hidden_layers=1)
    parts = ", ".join(f"{{path: {part['path']}, weight: {part['weight']}}}" for part in mixture(tmp_path)["mix"])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train: {steps: 3, max_positions: 400}\nbatch_size: 4\n")
    words = [f"model.path={model}", f"data.mix=[{parts}]", "--out", str(tmp_path / "run")]
    assert main(["sft", str(recipe), *words]) == 0
    saved = parse_config(SFTConfig, read_yaml(tmp_path / "run" / "config.yaml")).data
    assert [part.weight for part in saved.mix] == [3.0, 2.0, 1.0]
    places = Mixture((7, 5, 3), saved.shares()).places(0, range(12))
    assert Counter(sum(place >= end for end in (7, 12)) for place in places) == {0: 6, 1: 4, 2: 2}
    (tmp_path / "pairs.csv").write_text("question,answer\n1,2\n2,\n")
    assert main(["sft", str(recipe), *words, "--out", str(tmp_path / "other")]) == 2
    assert "pairs.csv, row 2 (line 3), field 'answer': missing or null" in capsys.readouterr().err
