"""Reveal orders of given texts against a slow reference; their files; rollouts as trace data; the command."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from revelm.cli.main import main
from revelm.core.config import load_config
from revelm.data.trace_rows import TraceRow, holds_traces, read_traces, write_traces
from revelm.models.language_model import LanguageModel
from revelm.objectives.batch import Text
from revelm.objectives.trace_sft import TraceSFT
from revelm.rollout import trace_collection
from revelm.rollout.reveal_order import RevealOrder, reveal_order
from revelm.rollout.trace_collection import collect_traces, collection_settings, finished_rows
from revelm.trainers import sft
from revelm.trainers.config import SFTConfig
from revelm.trajectories.record import NEVER, Event, Trajectory
from revelm.trajectories.store import write_trajectories
from revelm.trajectories.trace_rows import rows_of_records
from tests.full_attention import full_model, records
from tests.models import EOS, MASK, declared_model, sharp_model
from tests.tiny_checkpoint import save_tiny, tiny_model

SIZE = 4


def texts() -> list[Text]:
    rng = np.random.default_rng(5)
    sizes = [(3, 9), (4, 12), (6, 7), (1, 22), (5, 16)]
    return [Text(rng.integers(3, EOS, size=end), start, 100 + key) for key, (start, end) in enumerate(sizes)]


def slow_order(model: LanguageModel, text: Text, how: RevealOrder) -> list[int]:
    """Block after block, step after step, one forward each: the most confident hidden tokens become the text's."""
    start, end, is_block = text.prompt_length, len(text.ids), model.family.attention == "block"
    size = SIZE if is_block else how.block_size or end - start
    ids, found, step = text.ids.tolist(), {}, 0
    first = start // SIZE * SIZE if is_block else start
    for begin in range(first, end, size):
        hidden = list(range(max(start, begin), min(begin + size, end)))
        shown = [*ids[: hidden[0]], *[MASK] * ((begin + size if is_block else end) - hidden[0])]
        while hidden:
            step += 1
            with torch.no_grad():
                logits = model(torch.tensor([shown]))[0]
            logits[:, MASK] = -torch.inf
            chance = logits.softmax(-1)
            sure = {p: float(chance[p].max() if how.order_by == "top" else chance[p, ids[p]]) for p in hidden}
            for p in sorted(hidden, key=lambda p: -sure[p])[: how.tokens_per_step]:
                hidden.remove(p)
                shown[p], found[p] = ids[p], step
    return [found[p] for p in range(start, end)]


@pytest.mark.parametrize("tokens_per_step", [1, 2, 3])
@pytest.mark.parametrize("order_by", ["top", "true"])
@pytest.mark.parametrize(("attention", "window"), [("block", None), ("full", None), ("full", 5)])
@pytest.mark.parametrize("is_shifted", [False, True])
def test_orders_are_those_of_decoding_one_by_one(
    attention: str, window: int | None, order_by: Any, tokens_per_step: int, is_shifted: bool
) -> None:
    """Catches blocks that see each other, pads that are shown or ranked, steps that restart in every block, and a
    confidence of the wrong token; and orders that depend on how texts are batched."""
    model = declared_model(attention, is_shifted=is_shifted)
    how = RevealOrder(tokens_per_step, order_by, window, num_slots=3, max_positions=90)
    expected = [slow_order(model, text, how) for text in texts()]
    for slots, positions in ((3, 90), (1, 1), (16, 10_000)):
        found = reveal_order(model, texts(), replace(how, num_slots=slots, max_positions=positions))
        assert [step.tolist() for step in found] == expected


def test_the_two_orders_differ() -> None:
    """Catches an option that changes nothing."""
    orders = [[s.tolist() for s in reveal_order(sharp_model(), texts(), RevealOrder(1, o))] for o in ("top", "true")]
    assert orders[0] != orders[1]


def test_collected_traces_are_learnt() -> None:
    """Catches steps that trace SFT refuses, and more rounds than ceil(block / tokens per step)."""
    samples = texts()
    for model in (sharp_model(), full_model()):
        steps = list(reveal_order(model, samples, RevealOrder()))
        learnt = [replace(s, step=step) for s, step in zip(samples, steps, strict=True)]
        batch = TraceSFT().prepare(learnt, model.family, 0)
        assert len(batch.targets) == sum(len(s.ids) - s.prompt_length for s in samples)
        if model.family.attention == "full":
            assert len(batch.tokens) == sum(-(-(len(s.ids) - s.prompt_length) // 2) for s in samples)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tokens_per_step": 0}, "tokens_per_step is 0"),
        ({"num_slots": 0}, "num_slots is 0"),
        ({"block_size": 0}, "block_size is 0"),
        ({"order_by": "best"}, "order_by is 'best', allowed: 'top', 'true'"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], words: str) -> None:
    """Catches a loop that never ends because nothing is revealed."""
    with pytest.raises(ValueError, match=words):
        RevealOrder(**values)


def test_what_the_model_cannot_do_is_refused() -> None:
    """Catches windows of a model that has blocks, texts that are too long, and weights that are not numbers."""
    with pytest.raises(ValueError, match="block_size is 8, but tiny-block has blocks of 4"):
        list(reveal_order(declared_model("block"), texts(), RevealOrder(block_size=8)))
    with pytest.raises(ValueError, match="takes 300 positions; the model has 256"):
        list(reveal_order(sharp_model(), [Text(np.full(300, 5), 3, 0)], RevealOrder()))
    broken = declared_model("full", is_shifted=False, block_size=6)
    with torch.no_grad():
        before = broken.lm_head.weight.clone()
        broken.lm_head.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="not numbers"):
        list(reveal_order(broken, texts(), RevealOrder()))
    with torch.no_grad():
        broken.lm_head.weight.copy_(before)


def rows() -> list[TraceRow]:
    rng = np.random.default_rng(0)
    return [TraceRow(rng.integers(0, 99, 5 + i), 2 + i % 2, np.arange(1, 4 + i - i % 2, dtype=np.int32), i, {"a": 1})
            for i in range(4)]  # fmt: skip


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl"])
def test_traces_come_back_from_disk(name: str, tmp_path: Path) -> None:
    """Catches ids that become other types, rows that change places, and half-written files."""
    write_traces(tmp_path / "deep" / name, rows())
    assert holds_traces(tmp_path / "deep" / name)
    for one, other in zip(read_traces(tmp_path / "deep" / name), rows(), strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        assert one.step.tolist() == other.step.tolist()
        assert (one.ids.dtype, one.step.dtype) == (np.int64, np.int32)
        assert (one.prompt_length, one.source, one.settings) == (other.prompt_length, other.source, other.settings)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == [name]


def test_bad_files_of_traces_are_named(tmp_path: Path) -> None:
    """Catches rows that fail later, in the middle of training, and trajectories taken for traces."""
    with pytest.raises(ValueError, match=r"a file of traces ends in .parquet or .jsonl"):
        read_traces(tmp_path / "x.csv")
    with pytest.raises(FileNotFoundError, match="no such trace file"):
        read_traces(tmp_path / "x.parquet")
    good = {"ids": [1, 2, 3], "prompt_length": 1, "step": [1, 2]}
    for change, words in (
        ({"step": [1]}, "row 2: step has 1 entries for 2 response tokens"),
        ({"step": [1, 1.5]}, "row 2: step holds 1.5, expected integers alone"),
        ({"step": [1, True]}, "row 2: step holds True, expected integers alone"),
        ({"step": [1, None]}, "row 2: step holds None, expected integers alone"),
        ({"step": 12}, "row 2: step is '12', expected a list of integers"),
        ({"step": [1, 2**31]}, "row 2: .*out of bounds"),
        ({"ids": [1, "2", 3]}, "row 2: ids holds '2', expected integers alone"),
        ({"ids": "123"}, "row 2: ids is '123', expected a list of integers"),
        ({"prompt_length": 1.0}, r"row 2: prompt_length holds 1\.0, expected integers alone"),
        ({"prompt_length": "1"}, "row 2: prompt_length holds '1'"),
        ({"source": 0.5}, r"row 2: source holds 0\.5"),
        ({"settings": "3"}, "row 2: settings is '3', expected an object"),
        ({"settings": '{"block_size": "4"}'}, "row 2: settings.block_size is '4', expected a whole number from 1"),
        ({"settings": '{"block_size": 0}'}, "row 2: settings.block_size is 0"),
        ({"step": [0, 1]}, "row 2: step has the entry 0; steps count from 1"),
        ({"prompt_length": 3}, "row 2: prompt_length is 3 of 3 ids, which leaves no response"),
        ({"ids": [1, -2, 3]}, "row 2: ids has the entry -2"),
        ({"ids": ["a", 1, 2]}, "row 2: "),
        ({"settings": "{"}, "row 2: "),
    ):
        (tmp_path / "x.jsonl").write_text(json.dumps(good) + "\n" + json.dumps({**good, **change}) + "\n")
        with pytest.raises(ValueError, match=words):
            read_traces(tmp_path / "x.jsonl")
    for text, words in (("", "empty"), ("{\n", "row 1: not valid JSON"), ("3\n", "row 1: needs 'ids'")):
        (tmp_path / "x.jsonl").write_text(text)
        with pytest.raises(ValueError, match=words):
            read_traces(tmp_path / "x.jsonl")
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        read_traces(tmp_path / "x.parquet")
    pq.write_table(pa.table({"ids": [[1]]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="lacks the column 'prompt_length'"):
        read_traces(tmp_path / "x.parquet")
    write_trajectories(tmp_path / "x.parquet", records()[:1])
    with pytest.raises(ValueError, match=r"holds trajectories.*--from"):
        read_traces(tmp_path / "x.parquet")


class StoppedError(Exception):
    """An interruption in the middle of a collection."""


def test_an_interrupted_collection_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches work that is lost or done twice, and orders that depend on where the first run stopped."""
    samples, how, out = texts(), RevealOrder(num_slots=2), tmp_path / "t.parquet"
    settings = collection_settings(how, "m", sharp_model().family)
    whole = collect_traces(
        sharp_model(), samples, tmp_path / "w.parquet", how=how, settings=settings, report=lambda *_: None
    )
    monkeypatch.setattr(trace_collection, "CHUNK", 1)

    def stop(done: int, total: int) -> None:
        assert (done, total) == (2, 5)
        raise StoppedError

    with pytest.raises(StoppedError):
        collect_traces(sharp_model(), samples, out, how=how, settings=settings, report=stop)
    assert [row.source for row in read_traces(out)] == [100, 101]
    asked = []

    def watched(model: Any, open_samples: list[Text], settled: RevealOrder) -> Iterator[np.ndarray]:
        asked.extend(s.key for s in open_samples)
        return reveal_order(model, open_samples, settled)

    monkeypatch.setattr(trace_collection, "reveal_order", watched)
    told: list[tuple[int, int]] = []
    found = collect_traces(
        sharp_model(), samples, out, how=how, settings=settings, report=lambda *numbers: told.append(numbers)
    )
    assert asked == [102, 103, 104]
    assert told == [(4, 5), (5, 5)]
    for one, other, again in zip(found, whole, read_traces(out), strict=True):
        assert one.source == other.source == again.source
        assert one.step.tolist() == other.step.tolist() == again.step.tolist()


def test_a_file_of_something_else_is_not_continued(tmp_path: Path) -> None:
    """Catches a mixture of traces: of two models, two settings or two data files."""
    family = sharp_model().family
    out, settings = tmp_path / "t.jsonl", collection_settings(RevealOrder(), "m", family)
    text = texts()[0]
    assert finished_rows(out, texts(), settings) == []
    write_traces(out, [TraceRow(text.ids, 3, np.ones(6, dtype=np.int32), text.key, settings)])
    assert len(finished_rows(out, texts(), settings)) == 1
    with pytest.raises(ValueError, match=r"collected with .*'tokens_per_step': 2.* now .*'tokens_per_step': 3"):
        finished_rows(out, texts(), collection_settings(RevealOrder(3), "m", family))
    with pytest.raises(ValueError, match="another text for row 100 of the data"):
        finished_rows(out, [replace(text, ids=text.ids + 1)], settings)


def scored(record: Trajectory, score: float | None) -> Trajectory:
    return replace(record, info={} if score is None else {"score": score})


def test_rollouts_become_traces_by_id() -> None:
    """Catches answers that were cut, wrong, partly given or never finished among the data, and tokens behind a stop."""
    good = [scored(r, 1.0) for r in records() if r.finish_reason == "stop"]
    cut = [scored(r, 1.0) for r in records() if r.finish_reason == "length"]
    given = replace(good[0], step=np.where(np.arange(len(good[0].step)) == 0, 0, good[0].step).astype(np.int32))
    found, dropped = rows_of_records([*good, *cut, given, scored(good[0], 0.5)])
    assert dropped == {"ended with 'length'": len(cut), "has given tokens": 1, "scored too low": 1}
    for row, record in zip(found, good, strict=True):
        assert row.ids.tolist() == [*record.prompt_ids.tolist(), *record.response_ids.tolist()]
        assert row.step.tolist() == record.step[: record.stop_length].tolist()
        assert NEVER not in row.step
    with pytest.raises(ValueError, match="record 0 has no score"):
        rows_of_records([scored(good[0], None)])
    assert len(rows_of_records([scored(good[0], None)], min_score=None)[0]) == 1


def test_an_edited_token_counts_from_its_last_edit() -> None:
    """Catches contexts in which a token stands that was only written later."""
    record = next(r for r in records() if r.finish_reason == "stop" and r.block_size == len(r.step) and r.num_steps > 3)
    place = int(np.flatnonzero(record.step[: record.stop_length] == 1)[0])
    edit = Event(3, place, int(record.completion_ids[place]), -1.0, "edit", 5)
    found, _ = rows_of_records([scored(replace(record, edits=(edit,)), 1.0)])
    assert found[0].step[place] == 3
    assert record.step[place] == 1


def chats(path: Path, num: int) -> Path:
    lines = [{"prompt": f"{i}+{i}=?", "completion": f"{2 * i}."} for i in range(num)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_command_collects_skips_and_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches rows that are asked twice, a limit that is ignored, errors behind the loading of weights, and rollouts
    that go through text."""
    model, data, out = save_tiny(tmp_path / "m"), chats(tmp_path / "c.jsonl", 5), tmp_path / "t.parquet"
    words = ["trace", "collect", "--model", str(model), "--data", str(data), "--out", str(out)]
    assert main([*words, "--limit", "2"]) == 0
    first = read_traces(out)
    assert [row.source for row in first] == [1, 2]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["2 of 2 texts", "5 of 5 texts"]
    assert captured.out.splitlines()[-1] == f"{out}: 5 traces"
    assert [row.step.tolist() for row in read_traces(out)][:2] == [row.step.tolist() for row in first]
    assert read_traces(out)[0].settings["tokens_per_step"] == 2
    assert read_traces(out)[0].settings["block_size"] == SIZE
    assert main([*words, "--tokens-per-step", "3"]) == 2
    assert "holds traces collected with" in capsys.readouterr().err
    assert main(["trace", "collect", "--data", str(data), "--out", str(out)]) == 2
    assert "--model: missing" in capsys.readouterr().err
    assert main([*words, "--limit", "0"]) == 2
    assert "--limit: 0, must be at least 1" in capsys.readouterr().err
    file = tmp_path / "r.parquet"
    write_trajectories(file, [scored(r, float(i % 2)) for i, r in enumerate(records())])
    kept = [r for i, r in enumerate(records()) if i % 2 and r.finish_reason == "stop"]
    assert main(["trace", "collect", "--from", str(file), str(file), "--out", str(tmp_path / "f.jsonl")]) == 0
    told = f"{2 * len(kept)} traces of {2 * len(records())} answers\n"
    assert capsys.readouterr().out == f"{tmp_path / 'f.jsonl'}: {told}"
    assert [len(row.step) for row in read_traces(tmp_path / "f.jsonl")] == 2 * [r.stop_length for r in kept]
    assert main(["trace", "collect", "--from", str(file), "--out", str(out), "--min-score", "7"]) == 2
    assert "none of 14 answers is fit to learn; lower --min-score" in capsys.readouterr().err


def test_prompts_with_responses_are_chats(tmp_path: Path) -> None:
    """Catches traces without a stop, and orders of other ids than `revelm sft` learns from the same file."""
    model, found = save_tiny(tmp_path / "m"), []
    for name in ("response", "completion"):
        data, out = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.parquet"
        data.write_text(json.dumps({"prompt": "a", name: "b"}))
        assert main(["trace", "collect", "--model", str(model), "--data", str(data), "--out", str(out)]) == 0
        found.append(read_traces(out)[0].ids.tolist())
    assert found[0] == found[1]
    assert found[0][-1] == tiny_model().family.stop_ids[0]


def sft_error(folder: Path, row: dict[str, Any], *words: str) -> str:
    """How ``revelm sft`` refuses a file of one good trace and ``row``, before it needs weights."""
    model = folder / "model"
    if not model.is_dir():
        (save_tiny(model) / "model.safetensors").unlink()
    good = {"ids": [3, 4, 5, 6], "prompt_length": 1, "step": [1, 2, 3]}
    (folder / "x.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(good | row)}\n")
    base = [f"model.path={model}", f"data.path={folder / 'x.jsonl'}", f"out={folder / 'run'}", "train.steps=1"]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is returned
        sft.run(load_config(SFTConfig, None, [*base, *words]))
    return str(caught.value)


def test_rows_that_no_model_can_learn_are_named(tmp_path: Path) -> None:
    """Catches a mask in a response, whose loss is infinite, and orders of other blocks behind good rows."""
    family = tiny_model().family
    masked = sft_error(tmp_path, {"ids": [3, 4, family.mask_id, 6]})
    assert f"x.jsonl, row 2 has the token id {family.mask_id} in its response" in masked
    other = {"settings": json.dumps({"block_size": 2 * SIZE})}
    told = sft_error(tmp_path, other, "objective=trace_sft")
    assert f"sample 1: its order was collected in blocks of {2 * SIZE}" in told
    assert f"has blocks of {SIZE}" in told


def test_chats_are_no_traces(tmp_path: Path) -> None:
    """Catches a data file of chats that is read as one of orders, and an unreadable one that ends in a traceback."""
    for text in ('{"prompt": "a", "completion": "b"}', '{"ids": [1]', "[1]", ""):
        (tmp_path / "x.jsonl").write_text(text)
        assert not holds_traces(tmp_path / "x.jsonl")
    assert not holds_traces(tmp_path / "nowhere.jsonl")


def test_trace_sft_of_chats_is_refused_before_weights_are_loaded(tmp_path: Path) -> None:
    """Catches a run that loads its model for minutes, to find that its samples have no order."""
    (save_tiny(tmp_path / "model") / "model.safetensors").unlink()
    (tmp_path / "x.jsonl").write_text('{"prompt": "a", "completion": "b"}')
    words = [f"model.path={tmp_path / 'model'}", f"data.path={tmp_path / 'x.jsonl'}", f"out={tmp_path / 'run'}"]
    config = load_config(SFTConfig, None, [*words, "train.steps=1", "objective=trace_sft"])
    with pytest.raises(ValueError, match="revelm trace collect"):
        sft.run(config)
