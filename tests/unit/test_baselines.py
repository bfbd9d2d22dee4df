"""What the engine is measured against must decode as the engine does: the same tokens, steps and log-probabilities."""

from dataclasses import replace

import pytest

from benchmarks.baselines import BatchLoop
from revelm.decoding.credit import Credit
from revelm.decoding.dynamic import Dynamic
from revelm.decoding.joint import Joint
from revelm.decoding.rule import Rule
from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from tests.models import assert_same, declared_model, mixed_requests, prompt_of, sharp_model
from tests.oracle import oracles

CASES: list[tuple[Rule, int]] = [
    *((rule, 4) for rule in (Static(1), Static(3), Dynamic(0.3), Dynamic(0.9))),
    *((Static(1), 1), (Static(2), 3), (Dynamic(0.3), 8)),
]


@pytest.mark.parametrize(("rule", "block_size"), CASES, ids=str)
def test_every_baseline_equals_the_oracle(rule: Rule, block_size: int) -> None:
    """Catches a baseline that is fast or slow because it computes something else: a skipped commit, padding that is
    seen, positions counted from the padding, answers that go on behind their stop or begin in the prompt."""
    model = sharp_model(block_size)
    prompts, settings = mixed_requests(rule, range(1, 2 * block_size + 2))
    settings = [replace(s, repetition_penalty=1.0) for s in settings]
    answers = oracles(model, prompts, settings)
    found = {
        "batches of 5": BatchLoop(model, batch_size=5).generate(prompts, settings),
        "one batch": BatchLoop(model, batch_size=len(prompts)).generate(prompts, settings),
        "separate commit": Engine(model, num_slots=5, commit="separate").generate(prompts, settings),
    }
    for records in found.values():
        for record, expected in zip(records, answers, strict=True):
            assert_same(record, expected, forward=False)
    first = [(t.stop_length + len(t.prompt_ids) - 1) // block_size == len(t.prompt_ids) // block_size for t in answers]
    assert any(is_first and t.finish_reason == "stop" for is_first, t in zip(first, answers, strict=True))
    assert not all(first)
    assert {len(p) % block_size for p in prompts} == set(range(block_size))
    assert {t.finish_reason for t in answers} == {"stop", "length"}


@pytest.mark.parametrize("lengths", [(8, 8, 8), (9, 3, 16)])
def test_the_batch_loop_has_no_forward_too_many(lengths: tuple[int, ...]) -> None:
    """Catches a baseline that is slower than it needs to be: forwards that reveal nothing and commit nothing, rows of
    a head start beyond the padding, a commit of the last block."""
    loop = BatchLoop(sharp_model())
    caps = [4 * k - n % 4 for k, n in enumerate(lengths, start=1)]
    settings = [Sampling(rule=Static(2), max_new_tokens=cap, ignore_eos=True, seed=cap) for cap in caps]
    found = loop.generate([prompt_of(n, n) for n in lengths], settings)
    assert [t.num_tokens for t in found] == caps
    prefix = max(n // 4 * 4 for n in lengths)
    assert (loop.stats.forwards, loop.stats.commit_forwards) == (1 + 3 * 3 - 1, 2)
    assert loop.stats.rows == len(lengths) * (prefix + 4 * (3 * 3 - 1))


def test_the_batch_loop_refuses_what_it_cannot_decode() -> None:
    """Catches a shifted or full-attention model that is decoded as a block model, and a rule that speaks for others."""
    for model in (declared_model("full"), declared_model("block", is_shifted=True)):
        with pytest.raises(ValueError, match="decodes block models that are not shifted"):
            BatchLoop(model)
    refused: list[tuple[list[Sampling], str]] = [
        ([Sampling(rule=Static(1)), Sampling(rule=Static(2))], r"one rule per batch, got Static"),
        ([Sampling(rule=Credit())] * 2, "neither edits nor remembers, as credit does"),
        ([Sampling(rule=Joint())] * 2, "neither edits nor remembers, as joint does"),
        ([Sampling(), Sampling(repetition_penalty=1.5)], "repetition_penalty"),
        ([Sampling(), Sampling(guidance=1.0)], "guidance"),
    ]
    for settings, message in refused:
        with pytest.raises(ValueError, match=message):
            BatchLoop(sharp_model()).generate([[1], [2]], settings)
