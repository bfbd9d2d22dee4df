"""Two evaluations compared: p-values against enumeration, intervals against simulation, and what is left out."""

import json
from itertools import combinations, product
from math import comb, erfc, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from revelm.cli.main import main
from revelm.eval.compare import compare_evaluations, compared, comparison_markdown, page_of, write_comparison
from revelm.eval.paired import dealt_p, difference, holm, paired_p, sign_flip_p
from revelm.eval.pairing import Both, Paired
from tests.unit.test_eval_metrics import sample
from tests.unit.test_evaluation_page import HOSTILE, Page, written

ONLY: dict[str, list[str]] = {"only_first": [], "only_second": ["math/<b>`x`"]}


def enumerated(d: list[float]) -> float:
    """The share of all signs whose sum is at least as far from 0."""
    sizes = [abs(value) for value in d]
    sums = [
        abs(sum(s * size for s, size in zip(signs, sizes, strict=True))) for signs in product((1, -1), repeat=len(d))
    ]
    return sum(s >= abs(sum(d)) - 1e-9 for s in sums) / len(sums)


@pytest.mark.parametrize("seed", range(6))
def test_p_values_are_those_of_all_signs(seed: int) -> None:
    """Catches a one-sided test, a strict comparison that loses the data themselves, and zeros that count."""
    rng = np.random.default_rng(seed)
    d = (rng.integers(-4, 5, 9) / 4).tolist()
    assert sign_flip_p(np.array([*d, 0.0, 0.0])) == pytest.approx(enumerated(d), abs=1e-12)


def test_single_answers_are_mcnemars_test() -> None:
    """Catches another p-value for one answer to each problem than the exact binomial one."""
    d = np.array([1.0] * 3 + [-1.0] * 12 + [0.0] * 85)
    assert sign_flip_p(d) == pytest.approx(2 * sum(comb(15, i) for i in range(4)) / 2**15)
    assert sign_flip_p(np.array([1.0, -1.0])) == 1.0
    assert sign_flip_p(np.zeros(5)) == 1.0


def test_many_differences_are_drawn_and_agree_with_the_exact_ones() -> None:
    """Catches drawn signs that are not fair, and a p-value of 0."""
    rng = np.random.default_rng(1)
    d = rng.choice([-1.0, -0.5, 0.5, 1.0], 40, p=[0.15, 0.2, 0.3, 0.35])
    normal = abs(d.sum()) / np.sqrt((d**2).sum())
    assert sign_flip_p(d) == sign_flip_p(d)
    assert 0.0 < sign_flip_p(np.ones(30) - np.arange(30) / 100) < 1e-4
    assert sign_flip_p(d) == pytest.approx(erfc(normal / sqrt(2)), abs=0.02)


@pytest.mark.parametrize(("count", "k", "shift"), [(20, 1, 0.0), (60, 4, 0.1), (200, 1, 0.05)])
def test_the_interval_of_a_difference_holds_the_truth(count: int, k: int, shift: float) -> None:
    """Catches an interval for unpaired answers (too wide), and one that takes answers for problems (too narrow)."""
    rng, hits, widths = np.random.default_rng(0), 0, []
    for _ in range(600):
        rate = rng.beta(0.8, 0.8, count) * (1 - shift)
        first, second = (rng.binomial(k, rate + change) / k for change in (0.0, shift))
        found = difference(second - first)
        hits += found["low"] <= shift <= found["high"]
        widths.append(found["high"] - found["low"])
    assert 0.93 <= hits / 600 <= 0.995
    assert np.mean(widths) < 2 * 2 * 1.96 * 0.5 / np.sqrt(count)


def test_nothing_differs_is_not_certainty() -> None:
    """Catches an interval without width where two models answered ten problems alike."""
    found = difference(np.zeros(10))
    assert found["mean"] == 0.0
    assert found["low"] < -0.1
    assert found["high"] > 0.1


def test_holm() -> None:
    """Catches Bonferroni, and corrected values that come in another order."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def both(name: str, first: list[float], second: list[float], **changes: Any) -> Both:
    """Answers to one problem, each right or wrong."""
    return Both(*([sample(0, i, x, problem=name, **changes) for i, x in enumerate(some)] for some in (first, second)))


def test_wins_and_losses_are_of_the_second() -> None:
    """Catches the sign."""
    some = [both("a", [0, 0], [1, 1]), both("b", [1, 1], [1, 0]), both("c", [1, 0], [0, 1])]
    found = compared(some)
    assert (found["won"], found["lost"], found["num_equal"]) == (["a"], ["b"], 1)
    assert found["difference"]["mean"] == pytest.approx((1.0 - 0.5) / 3)
    assert (found["first"], found["second"]) == pytest.approx((0.5, 2 / 3))


def dealt(pairs: list[tuple[list[float], list[float]]]) -> float:
    """The share of all ways to deal answers out to both sides that lie at least as far from 0."""
    ways = []
    for first, second in pairs:
        answers, places = first + second, range(len(first) + len(second))
        ways.append([
            sum(answers[i] for i in places if i not in here) / len(second) - sum(answers[i] for i in here) / len(first)
            for here in combinations(places, len(first))
        ])  # fmt: skip
    observed = abs(sum(sum(second) / len(second) - sum(first) / len(first) for first, second in pairs))
    sums = [abs(sum(some)) for some in product(*ways)]
    return sum(one >= observed - 1e-9 for one in sums) / len(sums)


@pytest.mark.parametrize("seed", range(4))
def test_p_values_of_unequal_numbers_are_those_of_all_deals(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches signs flipped where a difference is not as likely to have either one, and deals that are not fair."""
    rng = np.random.default_rng(seed)
    sizes = [(1, 3), (2, 3), (1, 4), (2, 2), (1, 1)]
    pairs = [tuple((rng.random(n) < 0.6).astype(float).tolist() for n in size) for size in sizes]
    assert paired_p(pairs) == dealt_p(pairs) == pytest.approx(dealt(pairs), abs=1e-12)
    monkeypatch.setattr("revelm.eval.paired.MAX_LATTICE", 0)
    assert dealt_p(pairs) == pytest.approx(dealt(pairs), abs=0.01)
    assert dealt_p([([1.0], [1.0, 1.0])]) == dealt_p([]) == 1.0


def test_one_answer_against_many_is_wrong_as_rarely_as_it_says() -> None:
    """Catches p-values of signs, which call equal models of 10 problems different in every third comparison."""
    rng, rejected = np.random.default_rng(0), 0
    for _ in range(400):
        rate = rng.beta(90.0, 10.0, 10)
        ones, others = rng.random((10, 1)) < rate[:, None], rng.random((10, 16)) < rate[:, None]
        rejected += paired_p(list(zip(ones.astype(float).tolist(), others.astype(float).tolist(), strict=True))) <= 0.05
    assert rejected / 400 <= 0.07


def test_singles_dealt_are_mcnemars_test() -> None:
    """Catches two tests that disagree where both are exact."""
    pairs = [([0.0], [1.0])] * 3 + [([1.0], [0.0])] * 9 + [([1.0], [1.0])] * 5
    assert dealt_p(pairs) == pytest.approx(paired_p(pairs))


def paired(problems: list[Both], **changes: Any) -> Paired:
    fields: dict[str, Any] = {"task": "t", "setting": "s", "left_out": 0, "otherwise": {}}
    return Paired(problems=problems, **fields | changes)


def test_any_id_is_a_piece_of_code() -> None:
    """Catches an id of a user's file that ends its line, becomes markup, or tells a terminal to do something."""
    some = [both("a`<b>\n\x1b[2J| c", [0], [1]), both("d", [1], [1])]
    entry = compared(some) | {"task": "t", "setting": "s", "p_holm": 1.0, "left_out": 0}
    entry["otherwise"] = {"decoding.rule": ["a|`b`", {"x": 1}]}
    lines = comparison_markdown({"first": "x`", "second": "y", "comparisons": [entry], **ONLY}).splitlines()
    assert lines[:2] == ["- first: `x`", "- second: `y`"]
    assert "- t, s, won: `a <b> [2J| c`" in lines
    assert "- only in the second: `math/<b> x`" in lines
    assert "- t, s, asked otherwise: `decoding.rule` `a| b` and `{'x': 1}`" in lines


def page(pairs: list[Paired]) -> str:
    entries = [
        {"task": one.task, "setting": one.setting, **compared(one.problems), "left_out": one.left_out, "p_holm": 1.0,
         "otherwise": {name: list(values) for name, values in one.otherwise.items()}}
        for one in pairs
    ]  # fmt: skip
    return page_of({"first": HOSTILE[0], "second": HOSTILE[1], "comparisons": entries, **ONLY}, pairs)


def test_the_page_shows_both_sides_and_runs_nothing() -> None:
    """Catches a page without the answers of one side, and text of a model or a file that becomes an element."""
    some = [
        both(text, [0, 1, 1], [0, 0], question=text, reference=text, text=text, answer=text, reason=text)
        for text in HOSTILE
    ]
    some += [both("alike", [1], [1], text="not shown"), both("won", [0, 0], [1, 1], text="shown")]
    text = page([paired(some, otherwise={"decoding.top_k": (HOSTILE[1], 3)}, left_out=2)])
    found = Page(text)
    assert (found.scripts, found.handlers, "img" in found.tags) == (1, [], False)
    assert text.count('data-result="lost"') == len(HOSTILE)
    assert text.count('data-result="won"') == 1
    assert "First: 2 of 3 right" in text
    assert "Second: 0 of 2 right" in text
    assert "not shown" not in text
    assert "2 left out" in text
    assert "Only in the second: math/&lt;b&gt;`x`." in text
    assert f"{len(HOSTILE) + 1} shown" in text
    assert "default-src 'none'" in text
    text.encode("utf-8")


def test_the_page_of_many_long_answers_has_a_size() -> None:
    """Catches hundreds of megabytes for a browser, and a cut that nobody is told of."""
    some = [both(str(i), [0], [1], text="x" * 20_000) for i in range(1500)]
    text = page([paired(some), paired(some, setting="r")])
    assert len(text) < 12_000_000
    shown = text.count("data-result=")
    assert 100 < shown < 1000
    assert f"{shown} of 3000 problems" in text


def test_results_go_where_they_are_wanted(tmp_path: Path) -> None:
    """Catches an ending that is written in another form, and a folder that gets one file."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(written(tmp_path / name)))
    folders = tmp_path / "a", tmp_path / "b"
    for suffix, beginning in ((".md", "- first"), (".json", "{"), (".html", "<!DOCTYPE html>")):
        write_comparison(*folders, out=tmp_path / f"x{suffix}")
        write_comparison(*folders, out=tmp_path / "all")
        assert (tmp_path / f"x{suffix}").read_text().startswith(beginning)
        assert (tmp_path / "all" / f"comparison{suffix}").read_text() == (tmp_path / f"x{suffix}").read_text()
    with pytest.raises(ValueError, match=r"ends in \.md, \.json, \.html"):
        write_comparison(*folders, out=tmp_path / "x.txt")


def test_settings_without_a_counterpart_are_named(tmp_path: Path) -> None:
    """Catches a setting that one of the two does not have and that is silently missing from the table."""
    for name, more in (("a", "x"), ("b", "y")):
        (tmp_path / name).mkdir()
        summary = written(tmp_path / name)
        summary["settings"][more] = summary["settings"]["static"]
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
        (tmp_path / name / "samples" / f"{more}.jsonl").touch()
    found = compare_evaluations(tmp_path / "a", tmp_path / "b")
    assert [one["setting"] for one in found["comparisons"]] == ["static"]
    assert [[told.rpartition("/")[2] for told in found[name]] for name in ONLY] == [["x"], ["y"]]


def test_what_was_asked_otherwise_is_said(tmp_path: Path) -> None:
    """Catches a gain that comes from another temperature under the same name."""
    for name, temperature in (("a", 0.0), ("b", 1.0)):
        (tmp_path / name).mkdir()
        summary = written(tmp_path / name) | {
            "decoding": {"static": {"temperature": temperature, "rule": {"kind": "x"}}}
        }
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
    (entry,) = compare_evaluations(tmp_path / "a", tmp_path / "b")["comparisons"]
    assert entry["otherwise"] == {"decoding.temperature": [0.0, 1.0]}
    (entry,) = compare_evaluations(tmp_path / "a", tmp_path / "a")["comparisons"]
    assert entry["otherwise"] == {}


def test_two_settings_of_one_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches settings of one run, which are the usual question, that cannot be compared, or are with themselves."""
    summary = written(tmp_path) | {"decoding": {"static": {"rule": "static"}, "dynamic": {"rule": "dynamic"}}}
    summary["settings"]["dynamic"] = summary["settings"]["static"]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    rows = (tmp_path / "samples" / "static.jsonl").read_text().replace('"correct": 0.0', '"correct": 1.0')
    (tmp_path / "samples" / "dynamic.jsonl").write_text(rows)
    for first, second, change in (("static", "dynamic", 0.5), ("dynamic", "static", -0.5), ("static", "static", 0.0)):
        words = [f"{tmp_path}@{first}", f"{tmp_path}/@{second}", "--out", str(tmp_path / "x.html")]
        assert main(["eval", "compare", *words, "--format", "json"]) == 0
        found = json.loads(capsys.readouterr().out)
        (entry,) = found["comparisons"]
        assert entry["setting"] == (first if first == second else f"{first} → {second}")
        assert entry["otherwise"] == ({} if first == second else {"decoding.rule": [first, second]})
        assert entry["difference"]["mean"] == change
        assert found["only_first"] == found["only_second"] == []
        assert f"<small>{entry['setting']}</small>" in (tmp_path / "x.html").read_text(encoding="utf-8")
    assert [one["setting"] for one in compare_evaluations(tmp_path / "@static", tmp_path)["comparisons"]] == ["static"]
    with pytest.raises(ValueError, match=r"@greedy: no setting 'greedy'; .* has static, dynamic"):
        compare_evaluations(tmp_path / "@greedy", tmp_path)
    assert main(["eval", "compare", str(tmp_path)]) == 2
    assert "RUN@static RUN@dynamic" in capsys.readouterr().err


def test_a_folder_without_samples_is_named(tmp_path: Path) -> None:
    """Catches a traceback for a folder of something else."""
    with pytest.raises(ValueError, match=r"summary\.json: missing"):
        compare_evaluations(tmp_path, tmp_path)
    (tmp_path / "summary.json").write_text('{"sft": {}}')
    with pytest.raises(ValueError, match="not of an evaluation"):
        compare_evaluations(tmp_path, tmp_path)
