"""How many answers an evaluation draws under a setting."""

import pytest

from revelm.decoding.dynamic import Dynamic
from revelm.decoding.random import Random
from revelm.decoding.sampling import Sampling
from revelm.engine.engine import Engine
from revelm.eval.config import EvaluationSpec, SettingSpec
from revelm.eval.run import evaluate
from tests.tiny_checkpoint import tiny_model, tiny_tokenizer
from tests.toy_tasks import Parity

SETTINGS = {
    "greedy": SettingSpec(temperature=0.0, max_new_tokens=8),
    "remasked": SettingSpec(temperature=0.0, rule={"kind": "random"}, max_new_tokens=8),
    "warm": SettingSpec(max_new_tokens=8),
}


def test_only_temperature_0_without_a_random_rule_is_deterministic() -> None:
    """Catches k greedy answers that are one, and random remasking taken for greedy decoding."""
    assert Sampling(temperature=0.0, rule=Dynamic()).is_deterministic
    assert not Sampling(temperature=0.0, rule=Random()).is_deterministic
    assert not Sampling(temperature=0.001, rule=Dynamic()).is_deterministic
    assert not Sampling(top_k=1).is_deterministic


def test_equal_answers_are_drawn_once() -> None:
    """Catches a greedy setting that pays for four equal answers and reports a pass@4 of them; in random order, answers
    to one problem that are equal; and a speed that counts the time of verdicts."""
    spec = EvaluationSpec(settings=SETTINGS, samples_per_problem=4)
    engine = Engine(tiny_model().eval(), tiny_tokenizer(), num_slots=16)
    found = evaluate(engine, Parity(), Parity().problems("test"), spec)
    drawn = {name: len(answers) for name, answers in found["answers"].items()}
    assert drawn == {"greedy": 3, "remasked": 12, "warm": 12}
    ks = {name: list(numbers["pass_at_k"]) for name, numbers in found["settings"].items()}
    assert ks == {"greedy": ["1"], "remasked": ["1", "2", "4"], "warm": ["1", "2", "4"]}
    tokens = {name: sum(one.trajectory.num_tokens for one in found["answers"][name]) for name in SETTINGS}
    decoding = sum(tokens[name] / found["settings"][name]["tokens_per_second"] for name in SETTINGS)
    assert decoding == pytest.approx(engine.stats.seconds_total, rel=1e-9)
    texts = [answer.completion.text for answer in found["answers"]["remasked"]]
    assert any(len(set(texts[i : i + 4])) > 1 for i in range(0, 12, 4))


@pytest.mark.parametrize(("name", "num"), [("greedy", 1), ("remasked", 4), ("warm", 4)])
def test_the_number_of_answers_is_that_of_the_setting(name: str, num: int) -> None:
    """Catches a number that is the same for all settings."""
    assert EvaluationSpec(settings=SETTINGS, samples_per_problem=4).num_answers(name) == num
