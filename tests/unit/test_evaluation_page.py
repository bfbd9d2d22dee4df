"""The page of an evaluation: what a model wrote stays text."""

import json
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from revelm.cli.evaluate import show
from revelm.eval.metrics import summarise
from revelm.eval.tables import summary_markdown, table
from revelm.viz.entry import plain_text
from revelm.viz.evaluation_page import evaluation_page, finished_evaluation
from tests.unit.test_eval_metrics import sample

HOSTILE = (
    "</pre></details><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "{{ 7 * 7 }}{% raw %}",
    "\u202ereversed \x00 \ud800 |a|b| <b>",
    "javascript:alert(1)//`${alert(1)}`",
)


class Page(HTMLParser):
    """Elements, and all attributes that could run something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts, self.tags, self.handlers = 0, set[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name in ("src", "href")]


def written(folder: Path, **fields: Any) -> dict[str, Any]:
    """An evaluation whose every text is hostile."""
    rows = [
        sample(i, 0, float(i % 2), problem=text, question=text, reference=text, prompt=text, text=text, answer=text,
               reason=text, finish_reason="stop", info={"group": text})
        for i, text in enumerate(HOSTILE)
    ]  # fmt: skip
    (folder / "samples").mkdir()
    lines = [json.dumps(one.row()) + "\n" for one in rows]
    (folder / "samples" / "static.jsonl").write_text("".join(lines), encoding="utf-8")
    numbers = summarise(rows) | {"tokens_per_second": 1.0, "seconds": 1.0}
    told = {"accuracy": 0.5, "source": HOSTILE[0], "low": 0.4, "high": 0.6, "verdict": "agrees"}
    result = {"task": HOSTILE[1], "num_problems": 6, "samples_per_problem": 1, "seed": 0}
    environment = {"packages": {"x": HOSTILE[0]}, "device": HOSTILE[2]}
    settings = {"static": numbers | {"expected": told}}
    return {**result, "settings": settings, "model": HOSTILE[0], "environment": environment} | fields


def test_hostile_answers_run_nothing(tmp_path: Path) -> None:
    """Catches text of a model, a file or a recipe that becomes an element, an attribute or a template."""
    text = evaluation_page(tmp_path, written(tmp_path))
    found = Page(text)
    assert found.scripts == 1
    assert found.handlers == []
    assert "img" not in found.tags
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "{{ 7 * 7 }}" in text
    assert "default-src 'none'" in text
    text.encode("utf-8")


def test_right_wrong_and_error_can_be_told_apart(tmp_path: Path) -> None:
    """Catches answers whose filter does not know them, and a page that does not say what it left out."""
    text = evaluation_page(tmp_path, written(tmp_path))
    assert text.count('data-verdict="right"') == text.count('data-verdict="wrong"') == 3
    assert "6 shown" in text
    assert "6 of " not in text


def test_hostile_names_do_not_break_the_markdown(tmp_path: Path) -> None:
    """Catches a cell that ends early, and HTML in Markdown."""
    text = summary_markdown(written(tmp_path))
    assert "<script" not in text
    assert "<img" not in text
    assert all(line.count("|") == text.splitlines()[5].count("|") for line in text.splitlines()[4:7])


def test_numbers_stand_to_the_right() -> None:
    """Catches names of settings, verdicts and sources that are set like numbers."""
    rows = [["math", "static", "70.1 [66.0, 74.0]", "", "agrees"], ["code", "v2", "–", "+3.0", ""]]
    assert table(["task", "setting", "a", "b", "c"], rows).splitlines()[1] == "| --- | --- | ---: | ---: | --- |"


def test_plain_text_is_what_can_stand_in_a_file() -> None:
    """Catches a character that HTML or XML cannot hold, or that turns a line around; and one that is lost."""
    ends = (plane << 16 | last for plane in range(17) for last in (0xFFFD, 0xFFFE, 0xFFFF))
    every = [chr(code) for code in (*range(0x3000), *range(0xD7F0, 0xE010), *range(0xFDC0, 0xFE00), *ends)]
    kept = {c for c in every if plain_text(c) == c}
    bad = {c for c in every if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t"}
    bad |= {c for c in every if ord(c) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(c) <= 0xFDEF}
    bad |= {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
    assert kept == set(every) - bad
    assert plain_text("a\r\nb\rc\x1b") == "a\nb␍c␛"


def test_the_page_of_many_answers_has_a_size_and_shows_many_problems(tmp_path: Path) -> None:
    """Catches a page of 100 MB, one that fills up with the answers to the first problems, and minutes spent on what is
    cut off."""
    summary = written(tmp_path, num_problems=400, samples_per_problem=8)
    rows = [sample(group, i, 0.0, text="x" * 8000) for group in range(400) for i in range(8)]
    lines = [json.dumps(one.row()) + "\n" for one in rows]
    (tmp_path / "samples" / "static.jsonl").write_text("".join(lines))
    summary["settings"]["static"]["accuracy"]["n"] = 3200
    text = evaluation_page(tmp_path, summary)
    assert len(text) < 12_000_000
    assert text.count("data-verdict=") == 1200
    assert text.count("<b>p399</b>") == 3
    assert "1200 of 3200 answers" in text


def test_any_group_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a level such as "[/b]" or "[5]" in somebody's file, which ends a long evaluation in a traceback, or is
    not printed, because the table takes brackets for markup."""
    summary = written(tmp_path)
    (numbers,) = summary["settings"].values()
    numbers["groups"] = dict.fromkeys(("[/b]", "Level [5]", "\x1b[2Jx\ny", "[red]z"), numbers["groups"][HOSTILE[1]])
    show(summary, "table")
    told = capsys.readouterr().out
    assert all(name in told for name in ("[/b]", "Level [5]", "[red]z"))
    assert "\x1b[2J" not in told


def test_other_folders_are_no_evaluations(tmp_path: Path) -> None:
    """Catches a run's own summary taken for an evaluation's, and half a file."""
    assert finished_evaluation(tmp_path) is None
    for content in ("{}", '{"sft": {}, "rl": {}}', '{"environ'):
        (tmp_path / "summary.json").write_text(content)
        assert finished_evaluation(tmp_path) is None
