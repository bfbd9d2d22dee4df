"""Files as people have them: in shards, under wrong names, with columns and fields that mean something more."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from revelm.data.file_sets import files_of
from revelm.data.learnable import Source, learnable_ids, read_source
from revelm.data.rows import Row, read_rows
from revelm.data.sniff import find_layout, read_sample
from revelm.tasks.math import Math
from tests.tiny_checkpoint import tiny_tokenizer

PAIRS = [{"prompt": str(i), "completion": "yes"} for i in range(3)]


def lines(rows: list[Any]) -> bytes:
    """JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write(file: Path, content: bytes) -> str:
    """A file of these bytes, in a folder of its own if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return str(file)


def learnt(path: str, **settings: Any) -> list[str]:
    """What a file teaches, decoded."""
    tokenizer = tiny_tokenizer()
    found = learnable_ids(Source(path, **settings), tokenizer, size=None, fault=lambda _: "")
    return [tokenizer.decode(list(ids.ids)) for ids in found]


def test_shards_are_one_set(tmp_path: Path) -> None:
    """Catches a data set in several files, as they are published, that has to be put together by hand."""
    for number, row in enumerate(PAIRS):
        write(tmp_path / "shards" / f"train-0000{number}.jsonl", lines([row, row]))
    write(tmp_path / "shards" / "README.md", b"not data")
    for path in (str(tmp_path / "shards"), f"{tmp_path}/shards/train-*.jsonl", f"{tmp_path}/**/*.jsonl"):
        rows = read_rows(path)
        assert [row.fields["prompt"] for row in rows] == ["0", "0", "1", "1", "2", "2"]
        assert rows[3].place == f"{tmp_path}/shards/train-00001.jsonl, row 2 (line 2)"
        assert len(read_rows(path, limit=3)) == 3


def test_sets_of_files_that_say_too_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a test set that is learnt from, because it lies in the folder of the training set."""
    write(tmp_path / "two" / "train-00000-of-00001.jsonl", lines(PAIRS))
    write(tmp_path / "two" / "test-00000-of-00001.jsonl", lines(PAIRS))
    with pytest.raises(ValueError, match=r"holds several sets of files \(test-.*choose by .*'.*/two/train\*\.jsonl'"):
        read_rows(str(tmp_path / "two"))
    write(tmp_path / "mixed" / "a.jsonl", lines(PAIRS))
    write(tmp_path / "mixed" / "dataset_infos.json", b"{}")
    with pytest.raises(ValueError, match="holds several sets of files"):
        read_rows(str(tmp_path / "mixed"))
    with pytest.raises(ValueError, match=r"a folder without files in \.jsonl.* \(folders inside: mixed, two\)"):
        read_rows(str(tmp_path))
    with pytest.raises(ValueError, match=r"data\.path=.*: no file fits this pattern, from /"):
        read_rows("nothing/*.jsonl", field="data.path")
    write(tmp_path / "saved" / "state.json", b"{}")
    write(tmp_path / "saved" / "data-00000-of-00001.arrow", b"")
    with pytest.raises(ValueError, match=r"written by save_to_disk of datasets; write it with to_parquet"):
        read_rows(str(tmp_path / "saved"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files_of("~/two/test-00000-of-00001.jsonl") == [str(tmp_path / "two" / "test-00000-of-00001.jsonl")]
    assert files_of("owner/name") == []


def test_ids_of_files_of_one_name(tmp_path: Path) -> None:
    """Catches problems of two files that have the same id, whose answers would be drawn from the same noise."""
    for name in ("a", "b"):
        write(tmp_path / name / "rows.jsonl", lines([{"question": name, "answer": "1"}]))
    ids = [problem.id for problem in Math(data=f"{tmp_path}/*/rows.jsonl", test_share=0.0).problems("train")]
    assert len(set(ids)) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("packed.jsonl", gzip.compress(lines(PAIRS), mtime=0)),
        ("list.jsonl", json.dumps(PAIRS).encode()),
        ("laid_out.jsonl", b"\n" + json.dumps(PAIRS, indent=2).encode()),
        ("mark.jsonl", b"\xef\xbb\xbf" + lines(PAIRS).replace(b"\n", b"\r\n\r\n")),
        ("lines.json", lines(PAIRS)),
    ],
    ids=["packed", "list", "laid_out", "mark", "lines"],
)
def test_files_under_wrong_names(name: str, content: bytes, tmp_path: Path) -> None:
    """Catches "not UTF-8 text; save it as UTF-8" about a packed file, and a list that is no JSON."""
    assert [dict(row.fields) for row in read_rows(write(tmp_path / name, content))] == PAIRS


def test_parquet_under_another_name(tmp_path: Path) -> None:
    """Catches the same, and decimals that are no numbers."""
    from decimal import Decimal

    pyarrow.parquet.write_table(pyarrow.table({"question": ["a"], "answer": [Decimal("1.50")]}), tmp_path / "a.json")
    assert learnt(str(tmp_path / "a.json"))[0].endswith("1.5<|im_end|>")
    assert Math(data=str(tmp_path / "a.json"), test_share=0.0).problems("train")[0].reference == "1.5"


def test_what_files_are_not(tmp_path: Path) -> None:
    """Catches errors about columns where the signs between them are meant, and a URL that is "no such file"."""
    with pytest.raises(
        ValueError, match=r"a\.csv, line 1: the header is one column, 'prompt;completion'; save it with"
    ):
        read_rows(write(tmp_path / "a.csv", b"prompt;completion\na;b\n"))
    with pytest.raises(ValueError, match=r"an object over several lines is read from a name in \.json"):
        read_rows(write(tmp_path / "a.jsonl", json.dumps(PAIRS[0], indent=2).encode()))
    with pytest.raises(ValueError, match=r"cannot be read \(No such file or directory\); download it first"):
        read_rows("https://host/a.jsonl")
    with pytest.raises(ValueError, match=r"not UTF-8 text \(byte 37\)"):
        read_rows(write(tmp_path / "b.jsonl", lines(PAIRS[:1]) + b"\xff"))


def test_only_the_rows_that_are_asked_for_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a file that is held in memory several times over, and one that is read whole for its first rows."""
    row = {"prompt": "x" * 500, "completion": "y" * 500}
    path = write(tmp_path / "a.jsonl", lines([row] * 4000) + b"not JSON")
    tracemalloc.start()
    rows, _ = read_source(Source(path, num=10))
    assert (len(rows), tracemalloc.get_traced_memory()[1] < 2**20) == (10, True)
    tracemalloc.stop()
    assert "only the first 10 rows are read (num: null reads all)" in caplog.text


SAID = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]}


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "q", "completion": "r"},
        {"prompt": "q", "response": "r"},
        {"instruction": "q", "input": "", "output": "r"},
        {"question": "q", "answer": "r"},
        SAID,
        {"conversations": [{"from": "human", "value": "q"}, {"from": "chatgpt", "value": "r"}]},
        {"messages": {"role": ["user", "assistant"], "content": ["q", "r"]}},
        {"messages": [{"role": "developer", "content": "Be brief."}, *SAID["messages"]]},
    ],
)
def test_a_column_system_is_shown(fields: dict[str, Any]) -> None:
    """Catches system prompts that are left out in silence, so that the model learns to answer without them."""
    row = Row("f.jsonl", 1, 1, fields | {"system": "Be brief."})
    found = [dict(turn) for turn in read_sample(row, find_layout([row])).messages]
    assert found == [{"role": "system", "content": "Be brief."}, *SAID["messages"]]


def test_turns_before_an_instruction(tmp_path: Path) -> None:
    """Catches the history of a chat that is left out in silence."""
    row = {"instruction": "c?", "input": "", "output": "d", "history": [["a?", "b"]]}
    path = write(tmp_path / "a.jsonl", lines([row, {**row, "history": []}]))
    assert [text.count("<|user|>") for text in learnt(path)] == [2, 1]
    with pytest.raises(ValueError, match=r"row 1 \(line 1\), field 'history': must be a list of pairs of texts, got"):
        learnt(write(tmp_path / "b.jsonl", lines([{**row, "history": ["a"]}])))


@pytest.mark.parametrize("name", ["tool_calls", "reasoning_content"])
def test_what_an_assistant_does_besides_speaking_is_not_dropped(name: str, tmp_path: Path) -> None:
    """Catches calls of tools, and thoughts, without which the answer is another one."""
    turn = {"role": "assistant", "content": "It rains.", name: [{"name": "weather"}]}
    path = write(tmp_path / "a.jsonl", lines([{"messages": [{"role": "user", "content": "q"}, turn]}, SAID]))
    with pytest.raises(ValueError, match=rf"row 1 \(line 1\), field 'messages\.1\.{name}': is not learnt; write it"):
        learnt(path)
    assert len(learnt(path, max_bad_rows=1)) == 1


def test_texts_that_are_null_are_blank(tmp_path: Path) -> None:
    """Catches an empty cell of CSV, which is null, that ends a run where a blank text is left out."""
    assert len(learnt(write(tmp_path / "a.csv", b"id,text\n1,abc\n2,\n3,  \n"))) == 1


def test_a_list_of_truths_teaches_the_first(tmp_path: Path) -> None:
    """Catches verl rows with several right answers that are refused."""
    chat = [{"role": "user", "content": "q"}]
    rows = [{"prompt": chat, "reward_model": {"ground_truth": ["72", "72.0"]}}]
    assert learnt(write(tmp_path / "a.jsonl", lines(rows)))[0].endswith("72<|im_end|>")
