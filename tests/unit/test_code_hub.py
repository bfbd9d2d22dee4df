"""Code tasks without a file: the hub's data sets, from a local cache, and what is said where there is none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_cache import cache_data_set, offline
from tests.unit.test_code_tasks import lcb_row

SCRIPT = """
import sys
from revelm.core.registry import build
for words in sys.argv[1:]:
    kind, _, more = words.partition(" ")
    try:
        given = {"test_data": more} if kind == "code" else {"version": more} if more else {}
        task = build("tasks", {"kind": kind, **given})
        print(words, [problem.id for problem in task.problems("test")], len(task.problems("train")), flush=True)
    except ValueError as error:
        print(words, "refused:", error, flush=True)
"""


def asked(cache: Path, *tasks: str) -> list[str]:
    """What a process without a network says of these tasks, a line each."""
    command = [sys.executable, "-c", SCRIPT, *tasks]
    done = subprocess.run(command, capture_output=True, text=True, env=offline(cache), check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with a few rows of HumanEval and MBPP and two files of LiveCodeBench."""
    head = {
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "canonical_solution": "    return 2",
        "test": "def check(g): ...",
    }
    cache_data_set(
        tmp_path, "openai/openai_humaneval", {"test": [{**head, "task_id": "HumanEval/0"}]}, config="openai_humaneval"
    )
    row = {"text": "t", "code": "def f(x): ...", "test_list": ["assert f(1) == 2"]}
    mbpp = {
        split: [{**row, "task_id": number}] for split, number in (("train", 700), ("test", 20), ("validation", 550))
    }
    cache_data_set(tmp_path, "google-research-datasets/mbpp", mbpp, config="full")
    place = tmp_path / "home" / "hub" / "datasets--livecodebench--code_generation_lite"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("b" * 40, encoding="utf-8")
    files = place / "snapshots" / ("b" * 40)
    files.mkdir(parents=True)
    for number, name in enumerate(("test.jsonl", "test2.jsonl")):
        (files / name).write_text(json.dumps(lcb_row(f"p{number}", "2024-01-01")) + "\n", encoding="utf-8")
    return tmp_path


def test_data_sets_of_the_hub_are_read_from_the_cache(cache: Path) -> None:
    """Catches a name, a configuration or a split that is not the hub's, and a version that reads other files."""
    said = asked(cache, "humaneval", "mbpp", "livecodebench", "livecodebench v2", "livecodebench v3", "apps")
    assert said[:4] == [
        "humaneval ['humaneval:openai_humaneval.test:HumanEval/0'] 0",
        "mbpp ['mbpp:mbpp.full.test:20'] 1",
        "livecodebench ['livecodebench:test:p0', 'livecodebench:test2:p1'] 0",
        "livecodebench v2 ['livecodebench:test2:p1'] 0",
    ]
    assert "refused: task.data=None: test3.jsonl of livecodebench/code_generation_lite could not be fetched" in said[4]
    assert "or give task.data, a copy of test3.jsonl" in said[4]
    assert "refused: task.data=None: test.jsonl of codeparrot/apps could not be fetched" in said[5]


def test_a_single_file_of_the_hub_is_read_from_the_cache(tmp_path: Path) -> None:
    """Catches a file that is asked of `datasets`, at another revision than the one that is named, or not at all."""
    place = tmp_path / "home" / "hub" / "datasets--owner--Programs"
    for revision, question in (("main", "old"), ("v1.0", "new")):
        commit = question[0] * 40
        folder = place / "snapshots" / commit / "test"
        folder.mkdir(parents=True)
        row = {"question": question, "test_input": ["1\n"], "test_output": ["2\n"]}
        (folder / f"{question}.json").write_text(json.dumps([row, {**row, "question": "?"}]), encoding="utf-8")
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / revision).write_text(commit, encoding="utf-8")
    address = "hf://datasets/owner/Programs"
    said = asked(
        tmp_path, f"code {address}/test/old.json", f"code {address}@v1.0/test/new.json", f"code {address}/new.json"
    )
    assert said[0].endswith(" ['code:old:1', 'code:old:2'] 0")
    assert said[1].endswith(" ['code:new:1', 'code:new:2'] 0")
    assert f"refused: task.data='{address}/new.json': new.json of owner/Programs could not be fetched" in said[2]
