"""Memory of one long training update, in a fresh process."""

import pytest

from benchmarks.update import OURS, PLAIN, Case, child

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("memory")]
LIMIT = 8 << 30


@pytest.mark.parametrize(("answers", "rounds"), [(1, 4), (4, 1)])
def test_an_update_takes_a_third_of_the_plain_steps_memory(answers: int, rounds: int) -> None:
    """Catches logits at positions that are not scored, logits of more than a chunk, and masks that are kept."""
    case = Case(8192, answers, rounds)
    assert child(case, OURS)["growth"] <= child(case, PLAIN)["growth"] / 3


def test_an_answer_of_8192_tokens_trains_in_8_gib() -> None:
    """Catches what grows with the square of a row: masks of all its 24,640 positions, dense or one for each layer; and
    logits or activations that are kept, though layers are recomputed."""
    case = Case(8192, 1, 2, answer=8192, hidden=128, recompute_layers=True)
    found = child(case, OURS)
    assert found["positions"] > 24_000
    assert found["peak"] < LIMIT
    assert found["growth"] < 2 * found["positions"] ** 2  # an additive mask has 4 bytes for each pair
