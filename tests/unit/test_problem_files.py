"""Rows from files of every format and from the hub: what is read, and how what cannot be read is worded."""

import csv
import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from revelm.data.hub_records import parse_reference
from revelm.data.rows import Row, read_rows
from revelm.tasks.problem_files import find_fields, row_ids
from tests.hub_cache import cache_data_set, offline

ROWS: list[dict[str, Any]] = [
    {"question": 'a, "b"\nc', "answer": "012", "reward_model": {"ground_truth": "7", "style": "rule"}},
    {"question": "ü🙂", "answer": "1\u2028", "reward_model": {"ground_truth": "8", "style": "rule"}},
]
PLAIN = [{name: row[name] for name in ("question", "answer")} for row in ROWS]


def as_lines(rows: Sequence[Any]) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"


def as_csv(rows: Sequence[dict[str, str]]) -> str:
    quoted = [["question", "answer"], *([row["question"], row["answer"]] for row in rows)]
    return "".join(",".join('"' + cell.replace('"', '""') + '"' for cell in line) + "\r\n" for line in quoted)


def columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def write(folder: Path, name: str, content: str | bytes) -> str:
    file = folder / name
    data = content if isinstance(content, bytes) else content.encode()
    file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(file)


TEXTS: dict[str, Callable[[], str]] = {
    "rows.jsonl": lambda: as_lines(PLAIN),
    "rows.jsonl.gz": lambda: as_lines(PLAIN),
    "ROWS.JSONL": lambda: as_lines(PLAIN),
    "crlf.jsonl": lambda: "\ufeff" + as_lines(PLAIN).replace("}\n", "}\r\n\r\n"),
    "rows.json": lambda: json.dumps(PLAIN, indent=1),
    "rows.json.gz": lambda: json.dumps(PLAIN),
    "bom.json": lambda: "\ufeff" + json.dumps(PLAIN),
    "data.json": lambda: json.dumps({"version": 2, "data": PLAIN}),
    "only.json": lambda: json.dumps({"examples": PLAIN}),
    "columns.json": lambda: json.dumps(columns(PLAIN)),
    "lines.json": lambda: as_lines(PLAIN),
    "rows.csv": lambda: as_csv(PLAIN),
    "rows.csv.gz": lambda: "\ufeff" + as_csv(PLAIN),
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    """Catches a leading zero that is lost, a line that ends inside a text, and a mark of the byte order in a name."""
    rows = read_rows(write(tmp_path, name, TEXTS[name]()))
    assert [dict(row.fields) for row in rows] == PLAIN
    assert [row.number for row in rows] == [1, 2]
    assert row_ids(rows, "t") == tuple(f"t:{name.partition('.')[0]}:{number}" for number in (1, 2))


def test_parquet_with_nested_columns(tmp_path: Path) -> None:
    """Catches columns of records and lists that are flattened or turned into text: verl's files have them."""
    file = tmp_path / "rows.parquet"
    table = pyarrow.Table.from_pylist([{**row, "tests": [{"in": "1"}], "bits": b"\xff", "x": None} for row in ROWS])
    pyarrow.parquet.write_table(table, file)
    rows = read_rows(str(file))
    assert [row.text("reward_model.ground_truth") for row in rows] == ["7", "8"]
    assert rows[0].fields["tests"] == [{"in": "1"}]
    assert rows[0].place == f"{file}, row 1"
    with pytest.raises(ValueError, match=r"rows\.parquet, row 2, field 'bits': expected text, not b"):
        rows[1].text("bits")


def test_fields_inside_fields() -> None:
    """Catches a dot in a column's name that is taken for a path, and a path that ends in something else."""
    row = Row("f.jsonl", 3, 4, {"a": {"b": {"c": "1"}, "n": None}, "a.x": "2", "t": "3"})
    assert (row.text("a.b.c"), row.text("a.x"), row.text("t")) == ("1", "2", "3")
    assert find_fields(row, [("a.q",), ("t.x",), ("a.n", "a.b.c")]) == ("a.n", "a.b.c")
    assert not any(row.has(field) for field in ("a.q", "t.x", "a.b.c.d", ".a", "a.", ""))
    for field in ("a.q", "t.x", "a.b.c.d"):
        with pytest.raises(
            ValueError, match=r"f\.jsonl, row 3 \(line 4\), field '.*': missing; the row has: a, a\.x, t"
        ):
            row.text(field)


def test_text_that_need_not_be_there() -> None:
    """Catches "nan" or "None" shown as a solution."""
    row = Row("f.jsonl", 1, 1, {"a": float("nan"), "b": None, "c": " ", "d": " 7 ", "e": []})
    assert [row.optional_text(field) for field in "abcdx"] == ["", "", "", "7", ""]
    with pytest.raises(ValueError, match="expected text"):
        row.optional_text("e")


def test_a_field_of_a_megabyte(tmp_path: Path) -> None:
    """Catches the 128 KiB that Python's reader of CSV allows, and a limit that stays raised for others."""
    before = csv.field_size_limit()
    for name, content in (("big.csv", as_csv), ("big.jsonl", as_lines)):
        rows = [{"question": "x" * 2**20, "answer": "7"}]
        (row,) = read_rows(write(tmp_path, name, content(rows)))
        assert row.fields == rows[0]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", r"data='.*a\.txt': expected a file name that ends in one of \.jsonl, \.json, \.csv, "),
        ("a.parquet.gz", "x", r"expected a file name that ends in"),
        ("a.jsonl", b"\xff\xfe{", r"data=.*: not UTF-8 text \(byte 0\); save it as UTF-8"),
        ("a.jsonl", "version https://git-lfs.github.com/spec/v1\n", r"placeholder of git-lfs.*run `git lfs pull`"),
        ("a.parquet", "version https://git-lfs.github.com/spec/v1\n", r"placeholder of git-lfs"),
        ("a.parquet", b"PAR1xxPAR1", r"not a Parquet file, or a damaged one"),
        ("a.parquet", b"", r"not a Parquet file, or a damaged one"),
        ("a.json", "", r"has no rows"),
        ("a.json", "[]", r"has no rows"),
        ("a.jsonl", "\n \n", r"has no rows"),
        ("a.csv", "a,b\n", r"has no rows"),
        ("a.csv", "a,b,a\n1,2,3\n", r"a\.csv, line 1: the header has 'a' twice; rename one"),
        ("a.csv", "a,b\n1,2\n3\n", r"a\.csv, row 2 \(line 3\): has 1 values, the header has 2 \(a, b\)"),
        ("a.json", "[1]", r"a\.json, row 1: expected a JSON object, not 1"),
        ("a.json", "3", r"a\.json: expected a list of objects, .* not 3"),
        ("a.json", '{"a": [1, 2], "b": [1]}', r"a\.json: expected a list of objects"),
        ("a.json", '[{"a": 1},', r"a\.json: not JSON \("),
        ("a.json", "[" * 100_000, r"a\.json: not JSON \("),
        ("a.jsonl", '{"a": 1}\n{"a": ' + "9" * 5000 + "}", r"a\.jsonl, row 2 \(line 2\): not JSON"),
        ("a.json", '{"a": 1}\n{"a"\n', r"a\.json, row 2 \(line 2\): not JSON \(.* at character \d\)"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    """Catches an error of a library, without the file's name and without a remedy."""
    with pytest.raises(ValueError, match=message):
        read_rows(write(tmp_path, name, content))


def test_files_that_are_not_there_or_not_whole(tmp_path: Path) -> None:
    """Catches a path with a typing error that is looked up on the hub, and half a download."""
    with pytest.raises(ValueError, match=r"data='data/none\.jsonl': cannot be read \(No such file"):
        read_rows("data/none.jsonl")
    with pytest.raises(ValueError, match=r"data='': expected a file name"):
        read_rows("")
    for text in ("rows", "a/b/c", "../a", "~/a", "a/b[c", "a/b:"):
        with pytest.raises(ValueError, match=r"expected a file name .*, or a data set of the hub, owner/name:config"):
            read_rows(text)
    packed = gzip.compress(as_lines(PLAIN).encode())
    for content in (packed[:20], b"no gzip", packed[:15] + b"xxxx" + packed[19:]):
        (tmp_path / "a.jsonl.gz").write_bytes(content)
        with pytest.raises(ValueError, match=r"not a whole gzip file \(.*\); fetch it again"):
            read_rows(str(tmp_path / "a.jsonl.gz"))


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    """Catches text that no tokenizer takes and no file can hold, found hours later."""
    file = write(tmp_path, "a.jsonl", '{"a": "ok \\ud83d", "b": "\\ud83d\\ude42"}')
    (row,) = read_rows(file)
    assert row.text("b") == "🙂"
    with pytest.raises(ValueError, match=r"row 1 \(line 1\), field 'a': character 4 is half of one"):
        row.text("a")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("openai/gsm8k:main[test]", ("openai/gsm8k", None, "main", "test")),
        ("a/b", ("a/b", None, None, None)),
        ("a/b.c-d_e[train]", ("a/b.c-d_e", None, None, "train")),
        ("a/b@refs/convert/parquet:x-1[v_2]", ("a/b", "refs/convert/parquet", "x-1", "v_2")),
        ("a/b/c", None),
        ("a", None),
        ("./a/b", None),
        ("./a", None),
        ("a/b[]", None),
        ("a/b@:c", None),
    ],
)
def test_the_notation_of_the_hub(text: str, parts: tuple[str | None, ...] | None) -> None:
    """Catches a path that is asked of the hub, and a part that is read as another one."""
    found = parse_reference(text)
    assert (None if found is None else (found.name, found.revision, found.config, found.split)) == parts


ASK = """
import json, sys
from revelm.data.rows import read_rows
from revelm.tasks.problem_files import row_ids
answers = []
for name in json.loads(sys.argv[1]):
    try:
        rows = read_rows(name)
        answers.append([[dict(row.fields) for row in rows], row_ids(rows, "t")[0], rows[0].place])
    except ValueError as error:
        answers.append(str(error))
assert not {"torch", "transformers"} & set(sys.modules)
print(json.dumps(answers))
"""


def test_rows_of_the_hub(tmp_path: Path) -> None:
    """Catches a wrong split or configuration, torch loaded by the way, and errors without name, reason or remedy."""
    splits = {"train": [{"question": "a", "x": {"y": [1]}}], "test": [{"question": "b", "x": {"y": [2]}}]}
    cache_data_set(tmp_path, "owner/name", splits, config="main")
    cache_data_set(tmp_path, "owner/single", {"test": [{"question": "c"}]}, config="default")
    asked = ["owner/name:main[test]", "owner/single", "owner/name:main", "owner/name:main[dev]", "owner/no:x[test]"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ASK, json.dumps(asked)],
        capture_output=True,
        text=True,
        env=offline(tmp_path),
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    named, single, unclear, unknown, absent = json.loads(done.stdout)
    assert named == [splits["test"], "t:name.main.test:1", "owner/name:main[test], row 1"]
    assert single == [[{"question": "c"}], "t:single:1", "owner/single, row 1"]
    assert unclear == "data='owner/name:main': has the splits train, test; name one, as owner/name:main[train]"
    assert unknown.startswith("data='owner/name:main[dev]': could not be read from the hub (Unknown split")
    assert absent == (
        "data='owner/no:x[test]': is not in the local cache, and the hub cannot be reached from here; "
        "connect to it, or give data=FILE, a copy of its rows"
    )
