"""Two evaluations compared: p-values against enumeration, intervals against simulation, and what is left out."""

from itertools import product
from math import comb, erfc, sqrt
from pathlib import Path

import numpy as np
import pytest

from revelm.eval.compare import compare_evaluations, compared, comparison_markdown, difference, holm, sign_flip_p


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


def test_wins_and_losses_are_of_the_second() -> None:
    """Catches the sign."""
    found = compared({"a": (0.0, 1.0), "b": (1.0, 0.5), "c": (0.5, 0.5)})
    assert (found["won"], found["lost"], found["num_equal"]) == (["a"], ["b"], 1)
    assert found["difference"]["mean"] == pytest.approx((1.0 - 0.5) / 3)


def test_any_id_is_a_piece_of_code() -> None:
    """Catches an id of a user's file that ends its line, becomes markup, or tells a terminal to do something."""
    entry = compared({"a`<b>\n\x1b[2J| c": (0.0, 1.0), "d": (1.0, 1.0)}) | {"task": "t", "setting": "s"}
    found = {"first": "x`", "second": "y", "comparisons": [{**entry, "p_holm": 1.0, "left_out": 0}]}
    lines = comparison_markdown(found).splitlines()
    assert lines[:2] == ["- first: `x`", "- second: `y`"]
    assert "- t, s, won: `a <b> [2J| c`" in lines


def test_a_folder_without_samples_is_named(tmp_path: Path) -> None:
    """Catches a traceback for a folder of something else."""
    with pytest.raises(ValueError, match=r"summary\.json: missing"):
        compare_evaluations(tmp_path, tmp_path)
    (tmp_path / "summary.json").write_text('{"sft": {}}')
    with pytest.raises(ValueError, match="not of an evaluation"):
        compare_evaluations(tmp_path, tmp_path)
