"""The paper in miniature: its statistics by hand, and tables of made-up results."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.paper.arms import EXPERIMENTS, GROUPS, POLICIES, RL_ARMS
from benchmarks.paper.deciding import deciding_report, obstacles
from benchmarks.paper.estimators import Gradients
from benchmarks.paper.measuring import arm_settings
from benchmarks.paper.place import Place, protocol_state
from benchmarks.paper.protocol import DECIDING, PRIMARY, SMOKE, WHOLE, settings
from benchmarks.paper.statistics import (
    best_speed,
    common_accuracies,
    correlation,
    gradient_noise,
    holm,
    interval,
    paired,
    paired_p,
    speed_at,
    t_quantile,
    t_within,
    variance_over_seeds,
    variance_over_steps,
)
from benchmarks.paper.tables import Table, read_results, tables_of, write_tables


def test_intervals_by_hand() -> None:
    """Catches a deviation divided by n, a quantile of the normal distribution, and intervals that touch being apart."""
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.count) == (2.0, 3)
    assert found.half == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert found.high - found.low == pytest.approx(2 * found.half)
    assert interval([1.0, 2.0, 3.0, 4.0, 5.0]).half == pytest.approx(2.77645 * math.sqrt(2.5 / 5), rel=1e-5)
    assert math.isnan(interval([7.0]).half)
    assert str(interval([7.0])) == "7.000"
    apart, near = interval([10.0, 10.1, 10.2]), interval([1.0, 1.1, 1.2])
    assert apart.is_above(near)
    assert not near.is_above(apart)
    assert not apart.is_above(apart)
    assert not interval([9.0]).is_above(interval([1.0]))
    with pytest.raises(ValueError, match="there are none"):
        interval([])


def test_paired_differences_are_of_the_same_seed() -> None:
    """Catches differences of values by place in a list, where one arm lacks a seed."""
    found = paired({10: 0.5, 11: 0.7, 13: 0.9}, {13: 0.6, 10: 0.4, 12: 0.0})
    assert found is not None
    assert (found.count, found.mean) == (2, pytest.approx(0.2))
    assert found.half == pytest.approx(12.7062 * math.sqrt(0.02) / math.sqrt(2), rel=1e-5)
    assert paired({1: 0.0}, {2: 0.0}) is None


def test_quantiles_of_student() -> None:
    """Catches wrong degrees of freedom, one-sided quantiles, and series that stop a term early. From printed tables."""
    for freedom, expected in {1: 12.70620, 2: 4.30265, 3: 3.18245, 4: 2.77645, 5: 2.57058, 9: 2.26216, 29: 2.04523,
                              30: 2.04227, 120: 1.97993}.items():  # fmt: skip
        assert t_quantile(0.95, freedom) == pytest.approx(expected, abs=1e-5)
        assert t_within(t_quantile(0.95, freedom), freedom) == pytest.approx(0.95, abs=1e-12)
    assert t_quantile(0.99, 4) == pytest.approx(4.60409, abs=1e-5)
    assert t_within(1.0, 1) == pytest.approx(0.5)
    assert t_within(0.0, 6) == 0.0
    with pytest.raises(ValueError, match="at least 1"):
        t_within(1.0, 0)


def test_paired_tests_by_hand() -> None:
    """Catches one-sided p-values, the error of one value in place of the mean's, and differences of no spread."""
    found = interval([1.0, 2.0, 3.0])
    t = 2 * math.sqrt(3)  # with 2 degrees of freedom P(|T| <= t) = t / sqrt(2 + t^2)
    assert paired_p(found) == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert paired_p(interval([-1.0, -2.0, -3.0])) == pytest.approx(paired_p(found))
    assert (paired_p(interval([0.5, 0.5])), paired_p(interval([0.0, 0.0]))) == (0.0, 1.0)
    with pytest.raises(ValueError, match="at least 2"):
        paired_p(interval([1.0]))


def test_holm_by_hand() -> None:
    """Catches Bonferroni's correction, places that are mixed up, and corrected values that fall below smaller ones."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_variances_by_hand() -> None:
    """Catches variances over the wrong axis, and a trend that counts as noise."""
    assert variance_over_seeds([[1.0, 10.0], [3.0, 10.0]]) == pytest.approx((2.0 + 0.0) / 2)
    assert variance_over_steps([0.0, 2.0, 0.0, 2.0]) == pytest.approx(4.0 / 2)
    assert variance_over_steps(np.linspace(0, 1, 101).tolist()) == pytest.approx(1e-4 / 2)


def test_gradient_noise_by_hand() -> None:
    """Catches a signal that keeps what noise adds to the mean's length, and ratios of signals that drowned."""
    gradients = np.array([[3.0, 1.0], [1.0, 1.0], [2.0, 4.0]])
    found = gradient_noise(float((gradients**2).sum()), float((gradients.sum(0) ** 2).sum()), 3)
    noise = float(gradients.var(axis=0, ddof=1).sum())
    assert found["noise"] == pytest.approx(noise)
    assert found["signal"] == pytest.approx(8.0 - noise / 3)
    assert found["ratio"] == pytest.approx(noise / (8.0 - noise / 3))
    assert gradient_noise(2.0, 0.0, 2)["ratio"] is None
    assert gradient_noise(1.0, 1.0, 1) == {"noise": None, "signal": None, "ratio": None}


def test_directions_of_gradients_by_hand() -> None:
    """Against sums over all pairs of different draws. Catches products of a draw with itself, in which the noise that
    two objectives share looks like a direction they share, and cosines of signals that drowned."""
    rng = np.random.default_rng(0)
    true, other = rng.normal(1.0, 1.0, (6, 40)), rng.normal(0.5, 1.0, (6, 40))
    found = Gradients(("trace", "random"))
    for one, two in zip(true, other, strict=True):
        found.add({"trace": torch.tensor(one), "random": torch.tensor(two)})
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    inner = [[np.mean([a[i] @ b[j] for i, j in pairs]) for b in (true, other)] for a in (true, other)]
    result = found.result()["random"]
    assert result["signal"] == pytest.approx(inner[1][1])
    assert result["cosine"] == pytest.approx(inner[1][0] / np.sqrt(inner[1][1] * inner[0][0]))
    mean_square = np.mean([two @ two for two in other])
    assert result["step_cosine"] == pytest.approx(inner[1][0] / np.sqrt(mean_square * inner[0][0]))
    assert found.result()["trace"]["cosine"] == pytest.approx(1.0)
    drowned = Gradients(("trace", "random"))
    for sign in (1.0, -1.0):
        drowned.add({"trace": torch.ones(3) * sign, "random": torch.ones(3)})
    assert drowned.result()["random"] == pytest.approx(
        {"noise": 0.0, "signal": 3.0, "ratio": 0.0, "cosine": None, "step_cosine": None}
    )
    assert Gradients(("trace",)).result()["trace"]["ratio"] is None


def test_speed_is_interpolated_at_equal_accuracy() -> None:
    """Catches extrapolation, the slower of two crossings, and interpolation over the wrong coordinate."""
    curve = [(0.2, 4.0), (0.6, 2.0), (0.5, 1.0)]
    assert speed_at(curve, 0.3) == pytest.approx(3.5)
    assert speed_at(curve, 0.55) == pytest.approx(2.25)
    assert speed_at(curve, 0.6) == 2.0
    assert speed_at(curve, 0.1) is None
    assert speed_at(curve, 0.7) is None
    assert best_speed([curve, [(0.0, 5.0), (0.6, 3.0)]], 0.3) == pytest.approx(4.0)
    assert best_speed([curve], 0.9) is None
    assert common_accuracies([curve], [[(0.4, 1.0), (0.9, 1.0)]], 3) == pytest.approx([0.45, 0.5, 0.55])
    assert common_accuracies([[(0.1, 1.0), (0.2, 1.0)]], [[(0.3, 1.0)]], 3) == []


def made_up(place: Place) -> None:
    """Result files of every arm and seed, with accuracies that tell arms apart."""
    curve = [[0.1, 3.0], [0.8, 1.0]]
    for name, experiment in EXPERIMENTS.items():
        for i, arm in enumerate(experiment.arms):
            for seed in experiment.seeds:
                level = 0.9 - 0.1 * i + 0.001 * (seed % 3)
                known = arm_settings(RL_ARMS[arm]) if arm in RL_ARMS else settings("b4")
                numbers: dict[str, Any] = {
                    s: {"accuracy": level, "tokens_per_forward": 2.0, "length": 28.0} for s in known
                }
                names = ("tokens_per_forward", "forwards", "positions", "rollout_positions", "seconds",
                         "seconds_rollout")  # fmt: skip
                result = {
                    "experiment": name, "arm": arm, "seed": seed, "protocol": protocol_state(WHOLE),
                    "start": numbers, "evaluations": numbers,
                    "training": {"reward": [level, level + 0.1, level], **{n: [2.0] * 3 for n in names}},
                    "cost": {"positions": 6.0, "collecting": 1.0, "compute": 18.0 + 0.1 * i, "budget": 18.0},
                    "curve": [{"step": 1, "compute": 2.0, "accuracy": level}],
                    "credits": {"zscore": {"ratio": 5.0 + i}, "value": {"ratio": None}}, "accuracy": level,
                    "lengths": [0.1, 0.3], "draws": 16,
                    "objectives": {
                        method: {"ratio": 2.0, "cosine": 1.0 - 0.1 * k, "step_cosine": 0.5, "positions": 100.0,
                                 "gains": [0.05, 0.1]}
                        for k, method in enumerate(("trace", "coupled", "random"))
                    },
                    "curves": {when: {"1.0": curve} for when in ("before", "after")},
                }  # fmt: skip
                file = place.result(name, arm, seed)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(result), encoding="utf-8")


def test_tables_of_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches tables that lack an arm or a seed, mix up arms, lose raw numbers, or link plots that are not there."""
    place, to = Place(tmp_path / "runs"), tmp_path / "to"
    with pytest.raises(ValueError, match="no results"):
        write_tables(place, to, date="2026-01-02")
    made_up(place)
    write_tables(place, to, date="2026-01-02")
    text = (to / "RESULTS.md").read_text(encoding="utf-8")
    assert "2026-01-02" in text
    assert {protocol_state(WHOLE)[name] for name in ("source", "benchmark", "commit")} <= set(re.split(r"[ ,.]", text))
    for experiment in EXPERIMENTS.values():
        assert f"## {experiment.title}\n" in text
    rows = [line for line in text.splitlines() if line.startswith("| random masking |")]
    assert "0.501 ± 0.001" in rows[0]
    assert text.count("| 5 | +0.400 ± 0.000 | 1.00 | 0.978 | 0.0000 | 0.0000 | yes | TraceRL above |") == len(DECIDING)
    assert "No verdict" not in text
    assert "| at-start, value | none (drowned, drowned, drowned) | 0 of 3 |" in text
    assert text.count("| random masking | 100 | 2.000 ± 0.000 | 0.800 ± 0.000 | 0.500 ± 0.000 |") == len(POLICIES)
    expected = " | 0.901 ± 0.001 | 0.935 ± 0.001 | +0.400 ± 0.000 | +0.400 ± 0.000 |"
    titles = [RL_ARMS[DECIDING[name][0]].title for name in GROUPS["rl"]]
    assert [text.count(f"| {title}{expected}") for title in dict.fromkeys(titles)] == [2, 1]
    links = [line[2:].split("](")[1][:-1] for line in text.splitlines() if line.startswith("![")]
    assert {path.name for path in to.glob("*.svg")} == set(links)
    assert all((to / link).read_text(encoding="utf-8").startswith("<svg") for link in links)
    raw = json.loads((to / "results.json").read_text(encoding="utf-8"))["results"]
    assert {name: set(arms) for name, arms in raw.items()} == {n: set(e.arms) for n, e in EXPERIMENTS.items()}
    assert raw["rl-b4"]["b4-random"]["12"]["evaluations"][PRIMARY]["accuracy"] == pytest.approx(0.5)
    assert "random masking" in capsys.readouterr().out


def test_correlation_by_hand() -> None:
    """Catches values paired by place, and a number where there is none."""
    found = correlation({10: 1.0, 11: 2.0, 12: 4.0, 13: 9.0}, {12: 5.0, 10: 3.0, 11: 1.0, 14: 7.0})
    assert found == pytest.approx(4.0 / math.sqrt(42.0 / 9 * 8.0), rel=1e-12)
    assert correlation({10: 1.0, 11: 2.0}, {10: 1.0, 11: 2.0}) is None
    assert correlation({1: 1.0, 2: 1.0, 3: 1.0}, {1: 1.0, 2: 2.0, 3: 3.0}) is None


def test_results_that_are_there_are_enough(tmp_path: Path) -> None:
    """Catches tables that need every arm and seed, arms that are read as others' seeds, and mixed protocols unsaid."""
    place = Place(tmp_path / "runs")
    made_up(place)
    for file in (place.out / "results").rglob("*.json"):
        if file.name not in ("b4-value-10.json", "b4-own-value-10.json", "full-s1-11.json"):
            file.unlink()
    for name in ("b4-value-old.json", "b4-value-0.json"):  # the latter is of a seed that the protocol does not have
        (place.out / "results" / "rl-b4" / name).write_text("{}", encoding="utf-8")
    changed = place.result("shrinkage", "full-s1", 11)
    known = json.loads(changed.read_text(encoding="utf-8"))
    changed.write_text(json.dumps({**known, "protocol": {**known["protocol"], "source": "other"}}), encoding="utf-8")
    found = read_results(place)
    assert {name: {arm: list(seeds) for arm, seeds in arms.items()} for name, arms in found.items()} == {
        "rl-b4": {"b4-value": [10], "b4-own-value": [10]},
        "shrinkage": {"full-s1": [11]},
    }
    write_tables(place, tmp_path / "to", date="2026-01-02")
    assert "they do not compare" in (tmp_path / "to" / "RESULTS.md").read_text(encoding="utf-8")


def test_markdown_of_a_table() -> None:
    """Catches cells that break a row."""
    found = Table("title", ("", "a|b"), (("one", "1 | 2"),), ("note",)).markdown()
    assert found.splitlines() == ["title", "", "|  | a\\|b |", "|---|---:|", "| one | 1 \\| 2 |", "", "note"]


def changed(place: Place, name: str, arm: str, **parts: Any) -> None:
    """Replace parts of the results of an arm, at its first seed."""
    file = place.result(name, arm, EXPERIMENTS[name].seeds[0])
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **parts}), encoding="utf-8")


def test_verdicts_need_everything(tmp_path: Path) -> None:
    """Catches verdicts from some or other seeds, from unequal compute, another scale or mixed protocols, and p-values
    of some bases beside them."""
    whole, place = protocol_state(WHOLE), Place(tmp_path)
    made_up(place)
    assert obstacles(read_results(place)) == []
    more = read_results(place)
    for arm in DECIDING["rl-b4"]:
        more["rl-b4"][arm][0] = more["rl-b4"][arm][10]
    assert deciding_report(more) == deciding_report(read_results(place))
    place.result("rl-b8", "b8-random", 13).unlink()
    _, columns, rows, notes = deciding_report(read_results(place))
    assert notes == ("No verdict: b8-random lacks seeds 13.",)
    assert [row[1] for row in rows] == ["5", "4", "5"]
    assert all(row[columns.index("p") :] == ("", "", "", "") for row in rows)
    made_up(place)
    changed(place, "rl-full", "full-random", cost={"compute": 27.0})
    assert obstacles(read_results(place)) == ["rl-full: compute differs by -10.5%"]
    made_up(place)
    changed(place, "rl-b4", "b4-trace", protocol={**whole, "commit": "x"})
    assert obstacles(read_results(place)) == ["results were made under different protocols"]
    changed(place, "rl-b4", "b4-trace", protocol=protocol_state(SMOKE))
    assert obstacles(read_results(place))[1:] == ["results are not of whole scale"]
    assert obstacles({})[0].startswith("b4-trace lacks seeds 10, 11")
    assert all(row[1] == "0" for row in deciding_report({})[2])


def test_verdicts_are_corrected(tmp_path: Path) -> None:
    """Catches a verdict from a p-value that does not hold for three bases, and one without its direction."""
    place = Place(tmp_path)
    made_up(place)
    gaps = {"rl-b4": [0.3, 0.2, 0.1, 0.1, 0.05], "rl-b8": [-0.4, -0.5, -0.45, -0.4, -0.5], "rl-full": [0.1, 0, 0, 0, 0]}
    for name, (first, second) in DECIDING.items():
        for seed, gap in zip(EXPERIMENTS[name].seeds, gaps[name], strict=True):
            for arm, level in ((first, 0.5 + gap), (second, 0.5)):
                file = place.result(name, arm, seed)
                known = json.loads(file.read_text(encoding="utf-8"))
                known["evaluations"][PRIMARY]["accuracy"] = level
                file.write_text(json.dumps(known), encoding="utf-8")
    _, columns, rows, _ = deciding_report(read_results(place))
    raw, corrected = ([float(row[columns.index(name)]) for row in rows] for name in ("p", "p (Holm)"))
    assert raw[0] < 0.05 < corrected[0]
    assert [row[-1] for row in rows] == ["not told apart", "TraceRL below", "not told apart"]
    assert corrected == pytest.approx([2 * raw[0], 3 * raw[1], raw[2]], abs=2e-4)
    assert [row[columns.index("own intervals apart")] for row in rows] == ["yes", "yes", "no"]


def test_what_cannot_be_averaged_is_said(tmp_path: Path) -> None:
    """Catches a mean over the seeds with a signal alone, and experiments that vanish without a common accuracy."""
    place = Place(tmp_path)
    made_up(place)
    changed(place, "value", "at-start", credits={"zscore": {"ratio": None}, "value": {"ratio": None}})
    for seed in EXPERIMENTS["tpf"].seeds:
        file = place.result("tpf", "b8", seed)
        known = json.loads(file.read_text(encoding="utf-8"))
        known["curves"] = {"before": {"1.0": [[0.1, 3.0], [0.2, 1.0]]}, "after": {"1.0": [[0.5, 3.0], [0.8, 1.0]]}}
        file.write_text(json.dumps(known), encoding="utf-8")
    results = read_results(place)
    rows = {row[0]: row[1:3] for row in tables_of("value", results["value"])[0].rows}
    assert rows["at-start, zscore"] == ("none (drowned, 5.0, 5.0)", "2 of 3")
    assert rows["after-rl, zscore"] == ("6.000 ± 0.000", "3 of 3")
    (table,) = tables_of("tpf", results["tpf"])
    said = [row for row in table.rows if "no common accuracy" in row[0]]
    title = "block, B = 8, no common accuracy: 0.100 to 0.200 before and 0.500 to 0.800 after"
    assert said == [(title, "", "", "", "0 of 3")]


def test_echoes_are_compared_at_equal_echoes(tmp_path: Path) -> None:
    """Catches differences between arms of other numbers of echoes, and echoes without both arms."""
    place = Place(tmp_path)
    made_up(place)
    (table,) = tables_of("echoes", read_results(place)["echoes"])
    assert [row[0] for row in table.rows] == ["0", "1", "3"]
    assert table.rows[1][2:5] == ("0.701 ± 0.002", "0.601 ± 0.002", "+0.100 ± 0.000")
    for seed in EXPERIMENTS["echoes"].seeds:
        place.result("echoes", "b8e1-trace", seed).unlink()
    (table,) = tables_of("echoes", read_results(place)["echoes"])
    assert [row[0] for row in table.rows] == ["0", "3"]
