"""pass@k and majority@k against brute force over all ways to draw the answers."""

from itertools import combinations, permutations

import pytest

from revelm.eval.votes import default_ks, majority, majority_at_k, pass_at_k


@pytest.mark.parametrize("num", range(1, 9))
def test_pass_at_k_is_the_share_of_draws_with_a_right_answer(num: int) -> None:
    """Catches 1 - (1 - c/n)^k, which is too low, and the formula at c > n - k."""
    for right in range(num + 1):
        answers = [1.0] * right + [0.0] * (num - right)
        for k in range(1, num + 1):
            draws = list(combinations(answers, k))
            assert pass_at_k(num, right, k) == pytest.approx(sum(max(d) for d in draws) / len(draws), abs=1e-12)


def test_pass_at_k_of_many_answers_is_a_number() -> None:
    """Catches binomials that overflow a float."""
    assert 0.0 < pass_at_k(2000, 1, 1000) == pytest.approx(0.5)
    assert pass_at_k(2000, 0, 1999) == 0.0


def test_majority_counts_votes_and_shares_ties() -> None:
    """Catches a tie that goes to whoever comes first, a missing answer that votes, and no vote at all."""
    assert majority(["a", "b", "a"], [1.0, 0.0, 1.0]) == 1.0
    assert majority(["a", "b", "b"], [1.0, 0.0, 0.0]) == 0.0
    assert majority(["a", "b"], [1.0, 0.0]) == majority(["b", "a"], [0.0, 1.0]) == 0.5
    assert majority(["a", "b", "c", "d"], [1.0, 0.0, 1.0, 0.0]) == 0.5
    assert majority([None, None, "a"], [0.0, 0.0, 1.0]) == 1.0
    assert majority([None, None], [0.0, 0.0]) == majority([], []) == 0.0


def test_majority_does_not_depend_on_the_order_within_a_group() -> None:
    """Catches a result that changes when answers are drawn in another order."""
    keys, correct = ["a", "b", "a", "b", "c"], [1.0, 0.0, 1.0, 0.0, 0.0]
    found = {majority(*zip(*order, strict=True)) for order in permutations(zip(keys, correct, strict=True))}
    assert found == {0.5}


def test_majority_at_k_uses_every_answer_once() -> None:
    """Catches groups that overlap, which would bias the interval, and a rest that counts as a group."""
    keys, correct = ["a", "a", "b", "b", "a"], [1.0, 1.0, 0.0, 0.0, 1.0]
    assert majority_at_k(keys, correct, 2) == 0.5
    assert majority_at_k(keys, correct, 1) == 0.5 + 0.1
    assert majority_at_k(keys, correct, 5) == 1.0


def test_ks_are_powers_of_two_and_all() -> None:
    """Catches a k above the number of answers, and the last one missing."""
    assert default_ks(1) == (1,)
    assert default_ks(8) == (1, 2, 4, 8)
    assert default_ks(20) == (1, 2, 4, 8, 16, 20)
