"""Reports of every kind of run: what is drawn where, runs of several stages, sample answers, the best, and traces."""

import dataclasses
import json
import os

import pytest

from revelm.trajectories.store import write_trajectories
from revelm.viz.curves import SECTIONS, curve_names, seconds_by_phase, section_of
from revelm.viz.evaluations import evaluation_table
from revelm.viz.report import write_report
from revelm.viz.run_files import read_run
from revelm.viz.run_traces import has_trajectories, run_traces
from tests.unit.test_viz_report import chart_labels, eval_row, make_run, report_of, rl_rows, sft_rows
from tests.unit.test_viz_trace import Page, entries_in, make_entry

EVIL = "</pre><script>evil()</script>"


def text_of(html):
    return " ".join(Page(html).text.split())


def sample(**changes):
    row = {"setting": "dynamic", "problem": "p1", "prompt": "1+1=?", "answer": "2", "reference": "2", "score": 1.0}
    row |= {"breakdown": {"correct": 1.0, "format": 0.5}, "tokens": 3, "forwards": 2, "finish_reason": "stop"}
    return row | changes


def put_samples(run, step, rows, tail=""):
    (run / "samples").mkdir(exist_ok=True)
    (run / "samples" / f"step-{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)


def put_trajectories(file, scores, tokens="ab"):
    found = []
    for problem, score in scores.items():
        one = make_entry(list(tokens)).trajectory
        found.append(dataclasses.replace(one, info={"problem": problem, "score": score}))
    write_trajectories(file, found)


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("reward", "Answers"),
        ("breakdown/correct", "Answers"),
        ("num_answers", "Answers"),
        ("kl_loss", "Loss"),
        ("loss", "Loss"),
        ("reference_kl", "Policy"),
        ("clip_fraction", "Policy"),
        ("importance_weight", "Policy"),
        ("value_loss", "Loss"),
        ("value_clip_fraction", "Value model"),
        ("explained_variance", "Value model"),
        ("grad_norm_critic", "Value model"),
        ("skipped_updates", "Optimisation"),
        ("seconds", "Time and memory"),
        ("peak_bytes", "Time and memory"),
        ("generation", None),
        ("odd", None),
    ],
)
def test_every_number_finds_its_place(name, section):
    """A metric of a new method must not need an entry to be drawn, nor land in a section by a part of a word."""
    found = section_of(name)
    assert (found.title if found else None) == section


def test_no_curve_is_listed_twice():
    """A name in two sections would be drawn in the first, and looked for in the second."""
    names = [name for section in SECTIONS for name in section.names]
    assert len(names) == len(set(names))
    assert curve_names([{"odd": 1, "phase": "rl", "loss": 1, "seconds_rollout": 1, "reward": 1}]) == [
        *("reward", "loss", "odd"),
    ]


def test_seconds_are_stacked_with_what_is_left():
    """Times told one by one, or as a mapping, are the same picture; parts beyond the total leave nothing."""
    rows = [
        {"step": 1, "seconds": 5.0, "seconds_rollout": 3.0, "seconds_update": 1.5},
        {"step": 2, "seconds": 1.0, "seconds_rollout": 2.0},
        {"step": 3, "seconds": {"rollout": 1.0, "other": 2.0}},
        {"step": 4, "seconds": 7.0, "seconds_rollout": None},
    ]
    found = {one.name: list(one.points) for one in seconds_by_phase(rows)}
    assert list(found) == ["rollout", "update", "other"]
    assert found["rollout"] == [(1, 3.0), (2, 2.0), (3, 1.0), (4, None)]
    assert found["other"] == [(1, 0.5), (2, None), (3, 2.0), (4, 7.0)]
    assert seconds_by_phase([{"step": 1, "seconds": 5.0}, {"step": 2}]) == []


def test_a_run_of_stages(tmp_path):
    """A curriculum, or a quickstart under way, has its metrics in a folder per stage; stage 10 comes behind stage 2."""
    run = make_run(tmp_path / "run")
    for number in (1, 2, 10):
        make_run(run / f"stage-{number}", [*rl_rows(number + 1), eval_row("rl", number, "dynamic", number / 20)])
    both = make_run(run / "warm", [*sft_rows(2), *rl_rows(2)], tail="{")
    (run / "stage-10" / "BEST").write_text('checkpoint-3\n{"value": 0.5, "metric": "accuracy", "setting": "dynamic"}')
    put_samples(both, 3, [sample(problem="of the last stage")])
    html = report_of(run)
    headings = [f"stage-{n} · {n + 1} recorded steps" for n in (1, 2, 10)] + ["warm/sft · 2 recorded", "warm/rl · 2"]
    text = text_of(html)
    places = [text.index(heading) for heading in headings]
    assert places == sorted(places)
    assert "stage-10: checkpoint-3, the lowest accuracy under dynamic: 0.5" in text
    assert "of the last stage" in text
    assert "warm/metrics.jsonl: skipped 1 unreadable line" in text
    assert [row.phase for row in evaluation_table(read_run(run))] == ["stage-1", "stage-2", "stage-10"]


def test_evaluations_of_a_run_under_way(tmp_path):
    """A run with settings of its own has no before and after, and still an accuracy to tell."""
    rows = sft_rows(30) + [eval_row("sft", step, "own", value) for step, value in ((10, 0.2), (20, 0.6), (30, 0.5))]
    html = report_of(make_run(tmp_path / "run", rows))
    text = text_of(html)
    assert "At step 30, accuracy (own) is 50.0 % [46.0, 54.0] · n = 400; the best so far was 60.0 % at step 20." in text
    (row,) = evaluation_table(read_run(tmp_path / "run"))
    assert (row.num, row.first, row.last, row.best) == (3, "20.0 %", "50.0 %", "60.0 % (step 20)")
    assert "Before and after" not in text
    label = next(label for label in chart_labels(html) if label.startswith("Evaluation accuracy"))
    assert "own: 3 points, first 0.2, last 0.5" in label


def test_the_newest_samples_are_shown_as_text(tmp_path):
    """Answers are what a model wrote: markup in them must stay text, and step 9 is older than step 10."""
    run = make_run(tmp_path / "run", rl_rows())
    put_samples(run, 9, [sample(answer="an old one")])
    rows = [
        sample(answer=EVIL, prompt=EVIL, problem=EVIL, setting=EVIL, reference=EVIL, finish_reason=EVIL),
        sample(breakdown={"correct": 0.0, EVIL: 1.0}, score=None),
        sample(answer="long " * 5000),
        {"answer": None, "score": [1], "breakdown": "x", "prompt": 7},
        {},
    ]
    put_samples(run, 10, rows, tail='{"cut')
    html = report_of(run)
    page, text = Page(html), text_of(html)
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert "old one" not in text
    assert "evil()" in text
    assert "samples/step-10.jsonl: skipped 1 unreadable line" in text
    assert "(19000 more characters)" in text
    verdicts = [attrs["class"] for tag, attrs in page.tags if tag == "span" and "verdict" in str(attrs.get("class"))]
    assert [v.removeprefix("verdict").strip() for v in verdicts] == ["right", "wrong", "right", "", ""]
    assert len(html) < 300_000


def test_traces_show_the_same_problem_early_and_late(tmp_path):
    """Two steps ask other problems too: answers to different ones side by side compare nothing."""
    run = make_run(tmp_path / "run", rl_rows())
    put_trajectories(run / "trajectories" / "step-9.parquet", {"a": 1.0, "b": 0.0, "c": 0.0}, "xy")
    put_trajectories(run / "trajectories" / "step-10.parquet", {"d": 1.0, "a": 1.0, "c": 1.0}, "xyz")
    pairs = run_traces(run, None)
    assert [[entry.trajectory.info["problem"] for entry in pair] for pair in pairs] == [["c", "c"], ["a", "a"]]
    assert [entry.label for entry in pairs[0]] == ["step 9", "step 10"]
    html = write_report(run, pairs, out=tmp_path / "page.html").read_text(encoding="utf-8")
    assert not (run / "report.html").exists()
    assert "The same problem, before and after" in html
    assert [len(one["ids"]) for one in entries_in(html)] == [2, 3]


def test_traces_of_different_problems_stand_alone(tmp_path):
    """A run whose steps share no problem still has answers to play; a damaged file costs itself only."""
    run = make_run(tmp_path / "run", rl_rows())
    assert not has_trajectories(run)
    assert run_traces(run, None) == []
    put_trajectories(run / "trajectories" / "step-2.parquet", dict.fromkeys("abcde", 1.0))
    (run / "trajectories" / "step-1.parquet").write_bytes(b"PAR1 half")
    assert has_trajectories(run)
    found = run_traces(run, None)
    assert [[entry.trajectory.info["problem"] for entry in group] for group in found] == [["a"], ["b"], ["c"]]
    assert "How answers were decoded" in report_of(run, found)
    assert "`revelm report` plays some of them" in text_of(report_of(run))


def test_traces_of_evaluated_stages(tmp_path):
    """The quickstart keeps its answers with its evaluations: the report drawn again must not lose them."""
    run = make_run(tmp_path / "run")
    for stage, score in (("rl", 1.0), ("sft", 0.0)):
        for name in ("dynamic", "another"):
            put_trajectories(run / f"eval-{stage}" / "trajectories" / f"{name}.parquet", {"a": score}, name)
    (pair,) = run_traces(run, None)
    assert [(entry.label, len(entry.pieces), entry.note.split(";")[0]) for entry in pair] == [
        ("after sft", 7, "score 0"),
        ("after rl", 7, "score 1"),
    ]


def test_stages_joined_at_the_end(tmp_path):
    """A finished curriculum has one list of metrics; the last stage's answers count, not those of the last name."""
    rows = [row | {"phase": name} for name in ("warm", "alpha") for row in rl_rows(2)]
    run = make_run(tmp_path / "run", rows)
    for name in ("alpha", "warm"):
        put_samples(make_run(run / name, rl_rows(2)), 2, [sample(problem=f"of {name}")])
    put_trajectories(run / "warm" / "trajectories" / "step-8.parquet", {"a": 1.0})
    put_trajectories(run / "alpha" / "trajectories" / "step-3.parquet", {"b": 1.0})
    os.utime(run / "warm" / "trajectories" / "step-8.parquet", (1, 1))
    assert "of alpha" in text_of(report_of(run))
    assert "of warm" not in text_of(report_of(run))
    ((entry,),) = run_traces(run, None)
    assert (entry.label, entry.trajectory.info["problem"]) == ("step 3", "b")


def test_pages_ask_nobody_for_anything(tmp_path):
    """A report is opened from a disk without a network: no address, no import, and both colour schemes."""
    html = report_of(make_run(tmp_path / "run", [*rl_rows(), eval_row("rl", 1, "a", 0.5)]), [(make_entry(["a"]),)])
    attributes = {name for _, attrs in Page(html).tags for name in attrs}
    assert not attributes & {"src", "href", "srcset", "action", "data", "poster"}
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html
    assert "width=device-width" in html
