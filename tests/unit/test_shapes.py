"""Users' files of every shape and kind: what their rows say, which shape counts, and how bad ones are worded."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers.processors import TemplateProcessing

from revelm.core.types import Demonstration
from revelm.data.learnable import Source, learnable_ids, read_source
from revelm.data.rows import Row
from revelm.data.sample_ids import Ids
from revelm.data.shapes import Format, Pair, Plain, Sample
from revelm.data.sniff import NAMED, find_layout, read_sample
from revelm.data.tokenizer import END, build_tiny_tokenizer, encode_demonstration, encode_text
from tests.hub_cache import cache_data_set
from tests.tiny_checkpoint import tiny_tokenizer

ASKED, ANSWERED = '1 + 1,\n"ü"?', "two 🙂"
USER, ASSISTANT = {"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWERED}
CHAT = (USER, ASSISTANT)
SYSTEM = {"role": "system", "content": "s"}
SHAREGPT = [{"from": "human", "value": ASKED}, {"from": "gpt", "value": ANSWERED}]
PARTS = [{"type": "text", "text": ANSWERED[:2]}, {"type": "text", "text": ANSWERED[2:]}]
VERL = {
    "data_source": "d",
    "prompt": [SYSTEM, USER],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": ANSWERED},
    "extra_info": {"index": 3, "split": "train"},
}
WORKED = VERL | {"extra_info": {"index": 3, "answer": ANSWERED}, "reward_model": {"ground_truth": "2", "style": "rule"}}
CODE = {"question": ASKED, "test_time_limit": 1, "completion": ANSWERED}

# Rows, the shape they have, and the chat they say.
ROWS: dict[str, tuple[dict[str, Any], str, Sequence[Any]]] = {
    "messages": ({"messages": list(CHAT)}, "messages", CHAT),
    "conversations": ({"conversations": SHAREGPT}, "messages", CHAT),
    "prompt completion": ({"prompt": ASKED, "completion": ANSWERED}, "prompt_completion", CHAT),
    "chat lists": ({"prompt": [SYSTEM, USER], "completion": [ASSISTANT]}, "prompt_completion", (SYSTEM, *CHAT)),
    "list and text": ({"prompt": [SYSTEM, USER], "completion": ANSWERED}, "prompt_completion", (SYSTEM, *CHAT)),
    "response list": ({"prompt": [USER], "response": ANSWERED}, "prompt_response", CHAT),
    "instruction": ({"instruction": ASKED, "input": "", "output": ANSWERED}, "instruction", CHAT),
    "ground truth": ({"question": ASKED, "ground_truth_answer": ANSWERED}, "question_answer", CHAT),
    "answer": ({"question": ASKED, "answer": ANSWERED}, "question_answer", CHAT),
    "solution": ({"problem": ASKED, "answer": "2", "solution": ANSWERED}, "question_answer", CHAT),
    "worked": ({"question": ASKED, "ground_truth_answer": "2", "response": ANSWERED}, "question_answer", CHAT),
    "verl": (VERL, "verl", (SYSTEM, *CHAT)),
    "verl, worked": (WORKED, "verl", (SYSTEM, *CHAT)),
    "code, function": (CODE | {"test_method": "function", "test_list": ["assert f()"], "prefix": ""}, "code", CHAT),
    "code, stdio": (CODE | {"test_method": "stdio", "test_input": ["1"], "test_output": ["2"]}, "code", CHAT),
    "mbpp": ({"text": ASKED, "code": ANSWERED, "task_id": 2, "test_list": ["assert f()"]}, "code", CHAT),
}


def as_json(rows: Sequence[Any]) -> str:
    return json.dumps(rows, ensure_ascii=False)


def as_lines(rows: Sequence[Any]) -> str:
    return "".join(as_json(row) + "\n" for row in rows)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lists and objects as JSON, null as nothing."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({k: as_json(v) if isinstance(v, list | dict) else v for k, v in row.items()})
    return file.getvalue()


def as_parquet(rows: Sequence[Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return file.getvalue()


KINDS: dict[str, Callable[[Any], str | bytes]] = {
    "rows.jsonl": as_lines,
    "rows.jsonl.gz": as_lines,
    "crlf.jsonl": lambda rows: "\ufeff" + as_lines(rows).replace("}\n", "}\r\n"),
    "rows.json": as_json,
    "rows.csv": as_csv,
    "bom.csv.gz": lambda rows: "\ufeff" + as_csv(rows),
    "rows.parquet": as_parquet,
}


def write(folder: Path, name: str, rows: Sequence[Any]) -> str:
    """A file of ``rows``, of the kind that its name says."""
    content = KINDS[name](rows)
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(folder / name)


def row(path: str = "a.jsonl", **fields: Any) -> Row:
    """The second row of a file, which stands in line 3."""
    return Row(path, 2, 3, fields)


def sniffed(fields: Mapping[str, Any], name: str | None = None) -> Sample:
    """What a file of one row says."""
    found = row(**fields)
    return read_sample(found, find_layout([found], name))


def no_fault(ids: Ids) -> str:
    """Every sample can be learnt."""
    return ""


def learnt(path: str, size: int | None = None, **settings: Any) -> list[Ids]:
    """The samples of a file, for the tiny tokenizer."""
    return list(learnable_ids(Source(path, **settings), tiny_tokenizer(), size=size, fault=no_fault))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("case", ROWS)
def test_every_shape_says_the_same_in_every_kind_of_file(case: str, name: str, tmp_path: Path) -> None:
    """Catches a shape that only JSON can hold, columns of Parquet that are null, and quotes of CSV taken for text."""
    fields, shape, chat = ROWS[case]
    rows, layout = read_source(Source(write(tmp_path, name, [fields, fields])))
    assert layout[0].name == shape
    for found in rows:
        sample = read_sample(found, layout)
        assert isinstance(sample, Demonstration)
        assert sample.messages == tuple(chat)
        assert sample.kind == "file"


@pytest.mark.parametrize("name", KINDS)
def test_plain_texts_in_every_kind_of_file(name: str, tmp_path: Path) -> None:
    """Catches texts that lose spaces at their ends, orders that CSV makes a text of, and prompts taken for chats."""
    (tmp_path / "t").mkdir()
    rows, layout = read_source(Source(write(tmp_path / "t", name, [{"text": f" {ASKED}\n", "id": 1}])))
    assert read_sample(rows[0], layout) == Plain(f" {ASKED}\n")
    fields = {"prompt": "a", "response": "[b]", "step_map": [0, 2, 1]}
    rows, layout = read_source(Source(write(tmp_path, name, [fields])))
    assert read_sample(rows[0], layout) == Pair("a", "[b]", (0, 2, 1))


def test_the_hub_is_a_kind_of_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a data set that is read otherwise than the file it was made of."""
    splits = {"train": [ROWS["chat lists"][0]] * 3, "test": [ROWS["chat lists"][0]]}
    cache_data_set(tmp_path, "owner/chats", splits, config="default")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    assert [found.number for found in read_source(Source("owner/chats:default[train[1:]]"))[0]] == [1, 2]
    rows, layout = read_source(Source("owner/chats:default[train]", num=2))
    assert [read_sample(found, layout).messages for found in rows] == [(SYSTEM, *CHAT)] * 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({"messages": 1, "prompt": 1, "completion": 1, "text": 1}, "messages"),
        ({"prompt": 1, "chosen": 1, "rejected": 1, "messages": 1}, "messages"),
        ({"prompt": 1, "completion": 1, "response": 1, "answer": 1}, "prompt_completion"),
        ({"prompt": 1, "response": 1, "question": 1, "answer": 1}, "prompt_response"),
        ({"prompt": 1, "chosen": 1, "rejected": 1, "answer": 1}, "chosen"),
        ({"question": 1, "answer": 1, "test_method": 1}, "code"),
        ({"prompt": 1, "reward_model": 1, "answer": 1}, "verl"),
        ({"problem": 1, "solution": 1, "text": 1}, "question_answer"),
        ({"prompt": 1, "solution": 1}, "question_answer"),
        ({"instruction": 1, "input": 1, "output": 1, "text": 1}, "instruction"),
        ({"text": 1, "messages": None, "prompt": float("nan")}, "text"),
    ],
)
def test_the_first_shape_of_the_list_counts(fields: dict[str, Any], shape: str) -> None:
    """Catches a file that is read as another shape from one release to the next."""
    assert find_layout([row(**dict.fromkeys(fields)), row(**fields)])[0].name == shape


def test_an_unknown_file_says_what_is_understood() -> None:
    """Catches an error that leaves the user to guess how columns must be called."""
    with pytest.raises(ValueError, match=r"^a\.jsonl: has the columns input, out, and none .*messages \+?.*columns"):
        find_layout([row(input="a", out="b", text=None)])
    with pytest.raises(ValueError, match=r"columns input, .*\(text: text\)"):
        find_layout([row(input="a")], "text")
    with pytest.raises(ValueError, match="format: 'texts' is not known; did you mean 'text'"):
        find_layout([row(text="a")], "texts")
    with pytest.raises(ValueError, match="columns none"):
        find_layout([row(text=None)])
    assert set(get_args(Format)) == set(NAMED)


def test_a_format_that_is_told_counts() -> None:
    """Catches a shape that cannot be asked for because another one comes first."""
    both = {"messages": list(CHAT), "text": "t", "prompt": "p", "response": "r"}
    assert sniffed(both, "text") == Plain("t")
    assert sniffed(both, "rendered") == Pair("p", "r")
    told = sniffed(both, "prompt_completion")
    assert isinstance(told, Demonstration)
    assert [message["content"] for message in told.messages] == ["p", "r"]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ASKED, "chosen": ANSWERED, "rejected": "x"},
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [ASSISTANT]},
        {"prompt": ASKED, "chosen": list(CHAT), "rejected": list(CHAT)},
        {"chosen": list(CHAT), "rejected": list(CHAT)},
    ],
)
def test_preferences_are_learnt_when_it_is_said_which(fields: dict[str, Any]) -> None:
    """Catches rejected answers that are learnt, and a question that is asked twice."""
    with pytest.raises(ValueError, match=r"are preferences; to learn the chosen answers give format: chosen"):
        sniffed(fields)
    found = sniffed(fields, "chosen")
    assert isinstance(found, Demonstration)
    assert found.messages == CHAT


def test_what_is_asked_and_answered() -> None:
    """Catches an input that is left out or stands without its instruction, numbers as JSON has them, and parts."""
    alpaca = sniffed({"instruction": "Add.", "input": "1, 2", "output": "3"})
    dolly = sniffed({"instruction": "Add.", "context": "1, 2", "response": "3", "category": "qa"})
    assert dolly == alpaca
    swift = sniffed({"query": ASKED, "response": ANSWERED, "history": [["a", "b"]]})
    assert isinstance(swift, Demonstration)
    assert [message["content"] for message in swift.messages] == ["a", "b", ASKED, ANSWERED]
    number = sniffed({"question": "q", "answer": [27.0, 28]})
    parts = sniffed({"messages": [USER, {"role": "assistant", "content": PARTS, "name": None}]})
    for found, asked, answered in ((alpaca, "Add.\n\n1, 2", "3"), (number, "q", "27"), (parts, ASKED, ANSWERED)):
        assert isinstance(found, Demonstration)
        assert [message["content"] for message in found.messages] == [asked, answered]
    written = sniffed({"prompt": "[1, 2]", "completion": '[{"role": "user"}]'})
    assert isinstance(written, Demonstration)
    assert [message["content"] for message in written.messages] == ["[1, 2]", '[{"role": "user"}]']
    kind = sniffed({"messages": list(CHAT), "kind": "worked"})
    assert isinstance(kind, Demonstration)
    assert kind.kind == "worked"


GOOD = {name: fields for name, (fields, _, _) in ROWS.items()} | {"text": {"text": "t"}}
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("messages", {"messages": []}, "'messages': must be a list of at least one message, got []"),
    ("messages", {"messages": "hello"}, "'messages': must be a list of at least one message, got 'hello'"),
    ("messages", {"messages": [3]}, "'messages.0': must be an object with 'role' and 'content', got 3"),
    ("messages", {"messages": [{"role": "robot", "content": ""}]}, "'messages.0.role': 'robot', must be one of"),
    ("messages", {"messages": [USER, {"role": "assistant"}]}, "'messages.1.content': must be text, got None"),
    ("messages", {"messages": [{"content": "a"}]}, "'messages.0.role': missing or null"),
    ("messages", {"messages": [USER, {"role": ["user"], "content": ""}]}, "'messages.1.role': ['user'], must be"),
    ("messages", {"messages": [USER]}, "'messages': the last of at least two turns must have the role 'assistant'"),
    ("messages", {"messages": [*CHAT, USER]}, "'messages': the last of at least two turns"),
    ("messages", {"messages": [USER, {"role": "assistant", "content": "\ud83d"}]}, "character 1 is half of one"),
    ("messages", {"text": "t"}, "'messages': missing or null, and rows of this file are messages; this one has: text"),
    ("conversations", {"conversations": [{"from": "tool", "value": "x"}]}, "'conversations.0.from': 'tool', must be"),
    ("prompt completion", {"prompt": "a"}, "'completion': missing or null, and rows of this file are prompt_"),
    ("prompt completion", {"prompt": "a", "completion": 3}, "'completion': must be text, got 3"),
    ("prompt completion", {"prompt": "a", "completion": None}, "'completion': missing or null"),
    ("prompt completion", {"prompt": "a", "completion": "b", "label": False}, "'label': is false: an answer to keep"),
    ("response list", {"prompt": "a", "response": ""}, "'response': empty; there is nothing to learn"),
    ("response list", {"prompt": "a", "response": "b", "step_map": [0.5]}, "'step_map': must be a list of integers"),
    ("answer", {"question": "q", "answer": [["a"]]}, "'answer': expected text, not ['a']"),
    ("answer", {"question": "q", "answer": []}, "'answer': expected text, not []"),
    ("answer", {"question": "q", "answer": True}, "'answer': expected text, not True"),
    ("answer", {"question": "q", "answer": ""}, "'answer': empty; there is nothing to learn"),
    ("answer", {"question": None, "answer": "a"}, "'question': missing or null"),
    ("instruction", {"instruction": "i", "input": 3.5, "output": {}}, "'output': expected text, not {}"),
    ("verl", VERL | {"reward_model": {"style": "rule"}}, "'reward_model.ground_truth': missing or null"),
    ("verl", VERL | {"prompt": "text"}, "'prompt': must be a list of at least one message"),
    ("mbpp", {"text": "t", "test_list": ["assert f()"]}, "'test_list': has tests but no program to learn; give one as"),
    ("text", {"text": 3}, "'text': must be text, got 3"),
]


@pytest.mark.parametrize(("case", "fields", "message"), BAD)
def test_bad_rows_are_named_with_their_field(case: str, fields: dict[str, Any], message: str) -> None:
    """Catches rows of another type that fail in the middle of a run, or are left out in silence."""
    rows = [Row("a.jsonl", 1, 1, GOOD[case]), row(**fields)]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is compared
        read_sample(rows[1], find_layout(rows))
    assert str(caught.value).startswith("a.jsonl, row 2 (line 3), field ")
    assert message in str(caught.value)


def test_chats_may_change_their_columns() -> None:
    """Catches files of chats that were always read, with messages in one row and prompt and completion in another."""
    rows = [row(prompt="a", completion="b"), row(messages=list(CHAT)), row(messages=None, prompt="c", completion="d")]
    layout = find_layout(rows)
    found = [read_sample(one, layout) for one in rows]
    assert [len(sample.messages) for sample in found if isinstance(sample, Demonstration)] == [2, 2, 2]


def test_columns_get_our_names(tmp_path: Path) -> None:
    """Catches fields inside others that cannot be reached, columns that are sniffed although others were named."""
    rows = [{"messages": 3, "input": "a", "extra": {"out": "b"}}]
    path = write(tmp_path, "rows.parquet", rows)
    source = Source(path, columns={"prompt": "input", "completion": "extra.out"})
    found, layout = read_source(source)
    assert [m["content"] for m in read_sample(found[0], layout).messages] == ["a", "b"]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"no row has the field 'extra\.in'; found: messages, input, extra"):
        read_source(Source(path, columns={"text": "extra.in"}))


def test_responses_to_prompts_are_chats_unless_they_are_rendered(tmp_path: Path) -> None:
    """Catches dLLM-RL's samples, whose chat marks stand in the text, given a second template or refused; and a
    mark in one user's text that makes all of them marks."""
    tokenizer = tiny_tokenizer()
    chat = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"}]
    expected = encode_demonstration(tokenizer, chat)
    prompt = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    plain, rendered = {"prompt": "ab", "response": "cd"}, {"prompt": prompt, "response": f"cd{END}"}
    for i, rows in enumerate(([plain], [rendered], [rendered | {"response": f"cd{END}\n"}], [plain | rendered])):
        (tmp_path / str(i)).mkdir()
        (found,) = learnt(write(tmp_path / str(i), "rows.jsonl", rows))
        assert (list(found.ids), found.prompt_length, found.step) == (*expected, None)
    (found,) = learnt(write(tmp_path, "rows.jsonl", [rendered | {"response": "cd"}]))
    assert list(found.ids) == expected[0]
    with pytest.raises(ValueError, match=r"row 2 \(line 2\): messages\.0\.content spells the special token"):
        learnt(write(tmp_path, "rows.jsonl", [plain, rendered]))
    with pytest.raises(ValueError, match=r"row 1 \(line 1\): spells the mask token"):
        learnt(write(tmp_path, "rows.jsonl", [rendered | {"response": "c<|mask|>"}]))


def test_orders_come_with_their_responses(tmp_path: Path) -> None:
    """W10, W22: catches an order that is shorter than its response, cut, or moved to the tokens of a row left out."""
    tokenizer = tiny_tokenizer()
    size = len(encode_text(tokenizer, "cd"))
    assert size == 2
    base = {"prompt": "<|user|>ab", "response": f"cd{END}"}
    for change, step in (
        ({"step_map": [1, 0, 2]}, (2, 1, 3)),
        ({"step_map": [4, 3, 3]}, (2, 1, 1)),
        ({"step_map": [1, 0], "response": "cd"}, (2, 1, 3)),
        ({"step_map": [1, 0, 2, 3], "response": f"cd{END}\n"}, (2, 1, 3)),
        ({"step_map": [1, 0], "response": "cd", "prompt": "ab"}, (2, 1, 3)),
        ({"step_map": None}, None),
    ):
        (found,) = learnt(write(tmp_path, "rows.jsonl", [base | change]))
        assert found.step == step
        assert len(found.ids) - found.prompt_length == 3
    rows = [base | {"step_map": [0]}, base | {"step_map": [1, 0, 2]}, base | {"step_map": [0, 1, 2], "response": 3}]
    found = learnt(write(tmp_path, "rows.jsonl", [*rows, base | {"step_map": [2, 1, 0]}]), max_bad_rows=2)
    assert [ids.step for ids in found] == [(2, 1, 3), (3, 2, 1)]
    for wrong in ([0], [0, 1], [0, 1, 2, 3]):
        with pytest.raises(ValueError, match=rf"row 1 .*step_map has {len(wrong)} entries, and the response has 3"):
            learnt(write(tmp_path, "rows.jsonl", [base | {"step_map": wrong}]))


def test_raw_texts_are_cut_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches tokens lost or doubled at a cut, a stop in the middle of a text, and blank rows that are trained."""
    tokenizer = tiny_tokenizer()
    texts = ["0123456789", " \n", "ab", ""]
    path = write(tmp_path, "rows.csv", [{"text": text, "id": i} for i, text in enumerate(texts)])
    found = learnt(path, size=4)
    ends = [[*encode_text(tokenizer, text), tokenizer.eos_token_id] for text in (texts[0], texts[2])]
    assert [len(ids.ids) for ids in found] == [4, 4, 3, 3]
    assert [i for ids in found[:3] for i in ids.ids] == ends[0]
    assert list(found[3].ids) == ends[1]
    assert {ids.prompt_length for ids in found} == {0}
    assert "1 texts are longer than 4 tokens: 3 pieces" in caplog.text
    assert [len(ids.ids) for ids in learnt(path)] == [11, 3]
    with pytest.raises(ValueError, match="has no rows to learn from"):
        learnt(write(tmp_path, "rows.jsonl", [{"text": " "}]))


def test_a_text_begins_as_the_tokenizer_begins_one(tmp_path: Path) -> None:
    """Catches a beginning of text that is predicted, missing, or given again in the middle of a text."""
    tokenizer = build_tiny_tokenizer([], 262)
    begin = tokenizer.convert_tokens_to_ids("<|user|>")
    tokenizer.bos_token = "<|user|>"
    single = TemplateProcessing(single="<|user|> $A", special_tokens=[("<|user|>", begin)])
    tokenizer.backend_tokenizer.post_processor = single
    source = Source(write(tmp_path, "rows.jsonl", [{"text": "abcde"}]))
    found = list(learnable_ids(source, tokenizer, size=4, fault=no_fault))
    assert [(len(ids.ids), ids.prompt_length) for ids in found] == [(4, 1), (3, 0)]
    assert [ids.ids.count(begin) for ids in found] == [1, 0]


def test_rows_that_may_be_bad_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches one row in a million that ends a run, and many that are left out without a word."""
    rows = [{"prompt": "a", "completion": text} for text in ("b", "<|mask|>", "c", 3, "ddd")]
    path = write(tmp_path, "rows.jsonl", rows)

    def fault(ids: Ids) -> str:
        return "is too long" if len(ids.ids) - ids.prompt_length > 3 else ""

    def read(limit: int) -> list[Ids]:
        source = Source(path, max_bad_rows=limit)
        return list(learnable_ids(source, tiny_tokenizer(), size=None, fault=fault))

    assert len(read(3)) == 2
    assert "3 of 5 rows are left out; the first: " in caplog.text
    with pytest.raises(ValueError, match=r"row 5 \(line 5\) is too long"):
        read(2)
    with pytest.raises(ValueError, match=r"row 4 \(line 4\), field 'completion': must be text"):
        read(0)


def test_columns_of_numbers(tmp_path: Path) -> None:
    """Catches typed columns of Parquet and CSV whose numbers become other texts."""
    rows = [{"question": 3, "answer": 72}, {"question": 4, "answer": -5}]
    for name in KINDS:
        found, layout = read_source(Source(write(tmp_path, name, rows)))
        said = [[m["content"] for m in read_sample(one, layout).messages] for one in found]  # type: ignore[union-attr]
        assert said == [["3", "72"], ["4", "-5"]]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Catches a run on nothing, and errors that do not name the setting."""
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "odd.jsonl").write_bytes(b"\xff\xfe")
    for name, message in (
        ("none.jsonl", "data.path='.*none.jsonl': cannot be read"),
        ("empty.jsonl", "data.path='.*': has no rows"),
        ("odd.jsonl", r"not UTF-8 text \(byte 0\)"),
        ("odd.txt", "expected a file name that ends in one of"),
    ):
        with pytest.raises(ValueError, match=message):
            read_source(Source(str(tmp_path / name), setting="data.path"))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("gsm8k/train.jsonl", "question_answer"),
        ("math_train/train.jsonl", "question_answer"),
        ("olympiadbench/test.jsonl", "question_answer"),
        ("seedbench_img32/SEEDBench_IMG_32.json", "question_answer"),
        ("mbpp/mbpp.jsonl", "code"),
        ("mbppplus/MbppPlus-OriginFmt.jsonl.gz", "code"),
    ],
)
def test_public_files_are_understood(name: str, shape: str) -> None:
    """Catches shapes that were thought out, and that files people have are not of."""
    file = Path(__file__).resolve().parents[2].parent / "shared" / "data" / name
    if not file.is_file():
        pytest.skip("public data is not here")
    rows, layout = read_source(Source(str(file)))
    assert layout[0].name == shape
    assert all(isinstance(read_sample(found, layout), Demonstration) for found in rows)
