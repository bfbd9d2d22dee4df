"""What rules propose beyond a plain draw: random order, the memory of credit, and the names rules are known by."""

import math

import pytest
import torch

from revelm.core import registry
from revelm.decoding.credit import Credit
from revelm.decoding.entropy_bounded import EntropyBounded
from revelm.decoding.joint import Joint
from revelm.decoding.propose import SamplingRows
from revelm.decoding.random import Random
from revelm.decoding.rule import Rule
from revelm.decoding.sampling import Sampling, sampling_rows
from revelm.decoding.static import Static
from revelm.decoding.uniform import remixed, uniform
from revelm.decoding.untempered import Untempered

VOCAB = 8
BANNED = (5,)


def rows_of(*settings: Sampling) -> SamplingRows:
    return sampling_rows(settings, BANNED, "cpu", vocab_size=VOCAB)


def random_inputs(num: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(num, width, VOCAB, generator=generator, dtype=torch.float64)
    return logits, torch.rand(num, width, generator=generator, dtype=torch.float64)


def softmax(logits: list[float]) -> list[float]:
    weights = [math.exp(x - max(logits)) for x in logits]
    return [w / math.fsum(weights) for w in weights]


@pytest.mark.parametrize("name", registry.names("rules"))
def test_a_rule_is_recorded_under_the_name_it_is_built_by(name: str) -> None:
    """Catches records that name a rule which no recipe can ask for."""
    rule = registry.build("rules", name)
    assert rule.kind == name
    assert registry.build("rules", {"kind": rule.kind, **vars(rule)}) == rule


@pytest.mark.parametrize("name", registry.names("rules"))
def test_every_rule_takes_guidance(name: str) -> None:
    """Catches a rule with its own ``propose`` that forgets the logits without the prompt."""
    rule: Rule = registry.build("rules", name)
    logits = torch.tensor([[[0.0, 1.0, 2.0, 0.0, 0.0, 9.0, 0.0, 0.0]]], dtype=torch.float64)
    against = torch.tensor([[[0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    guided, plain = Sampling(rule=rule, temperature=0.0, guidance=3.0), Sampling(rule=rule, temperature=0.0)
    numbers = torch.zeros(1, 1)
    assert rule.propose(logits, numbers, rows_of(plain)).token.item() == 2
    found = rule.propose(logits, numbers, rows_of(guided), against=against)
    assert found.token.item() == 1
    unguided = softmax([x for i, x in enumerate(logits.ravel().tolist()) if i not in BANNED])
    assert float(found.logprob) == pytest.approx(math.log(unguided[1]), abs=1e-12)
    assert torch.equal(rule.propose(logits, numbers, rows_of(plain), against=against).token, torch.tensor([[2]]))


def test_random_order_is_uniform_and_not_that_of_the_tokens() -> None:
    """Catches an order that is the uniform number itself: large ones draw late ids, which would come first."""
    seeds, num = torch.arange(6000), 5
    numbers = uniform(seeds[:, None], torch.arange(num)[None], torch.tensor(1))
    logits = torch.zeros(len(seeds), num, VOCAB, dtype=torch.float64)
    rows = rows_of(*[Sampling(rule=Random())] * len(seeds))
    found = Random().propose(logits, numbers, rows)
    assert torch.equal(found.confidence, Random().propose(logits, numbers, rows).confidence)
    hidden = torch.ones(len(seeds), num, dtype=torch.bool)
    chosen = Random(2).select(found.confidence, hidden, torch.ones(len(seeds)))
    assert (chosen.sum(-1) == 2).all()
    pairs = torch.bincount(chosen.long() @ 2 ** torch.arange(num), minlength=2**num)
    pairs = pairs[pairs > 0].double()
    expected = len(seeds) / 10
    assert len(pairs) == 10
    assert float(((pairs - expected) ** 2 / expected).sum()) < 9 + 4 * math.sqrt(18)
    correlation = torch.corrcoef(torch.stack([numbers.ravel(), found.confidence.ravel()]))[0, 1]
    assert abs(float(correlation)) < 4 / math.sqrt(numbers.numel())
    tokens = torch.bincount(found.token[chosen], minlength=VOCAB).double()
    assert float((tokens[[0, 1, 2, 3, 4, 6, 7]] / tokens.sum() - 1 / 7).abs().max()) < 0.02


def test_the_second_number_is_uniform() -> None:
    """Catches a mix that leaves [0, 1), favours some of it, or reads some of the first number's bits alone."""
    numbers = remixed(uniform(torch.tensor(3), torch.arange(40_000), torch.tensor(1)))
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    assert numbers.unique().numel() == numbers.numel()
    counts = torch.histc(numbers, 100, 0, 1)
    assert abs(float(((counts - 400) ** 2 / 400).sum()) - 99) < 4 * math.sqrt(198)
    assert remixed(torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)).unique().numel() == 2


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_credit_follows_its_formula(temperature: float) -> None:
    """Catches a credit that is not decayed, given to the drawn token, kept in the recorded log-prob, or left unused."""
    rule, width, steps = Credit(weight=1.3, decay=0.5, power=0.7), 3, 4
    settings = rows_of(Sampling(rule=rule, temperature=temperature))
    kept = [[0.0] * VOCAB for _ in range(width)]
    memory = torch.zeros(1, width, rule.memory_size(VOCAB))
    for step in range(steps):
        logits, numbers = random_inputs(1, width, step)
        found = rule.propose(logits, numbers, settings, memory)
        assert found.memory is not None
        for i in range(width):
            raw = [-math.inf if v in BANNED else x for v, x in enumerate(logits[0, i].tolist())]
            probability = softmax(raw)
            top = max(range(VOCAB), key=lambda v: raw[v])
            kept[i] = [0.5 * c + (probability[top] ** 0.7 if v == top else 0.0) for v, c in enumerate(kept[i])]
            assert found.memory[0, i].tolist() == pytest.approx(kept[i], abs=1e-6)
            scale = temperature or 1.0
            credited = softmax([(x + 1.3 * math.log1p(c)) / scale for x, c in zip(raw, kept[i], strict=True)])
            token = int(found.token[0, i])
            below = math.fsum(credited[:token])
            if temperature == 0:
                assert credited[token] == max(credited)
            else:
                assert below - 1e-6 <= float(numbers[0, i]) <= below + credited[token] + 1e-6
            assert float(found.confidence[0, i]) == pytest.approx(credited[token], abs=1e-6)
            recorded = softmax([x / scale for x in raw])[token]
            assert float(found.logprob[0, i]) == pytest.approx(math.log(recorded), abs=1e-12)
        memory = found.memory
    fresh = rule.propose(logits, numbers, settings)
    assert fresh.memory is not None
    zeros = rule.propose(logits, numbers, settings, torch.zeros_like(memory))
    assert torch.equal(fresh.confidence, zeros.confidence)
    assert not torch.equal(fresh.memory, memory)
    assert Sampling(rule=rule).is_filtered


def test_a_rules_own_kind_of_confidence_wins() -> None:
    """Catches entropies bounded although probabilities were measured, and edits ranked by a maximum not proposed."""
    logits, numbers = random_inputs(1, 5, 3)
    for rule, kind in ((EntropyBounded(), "neg_entropy"), (Joint(), "token")):
        forced = rule.propose(logits, numbers, rows_of(Sampling(rule=rule, confidence="max")))
        asked = Static().propose(logits, numbers, rows_of(Sampling(rule=Static(), confidence=kind)))
        assert torch.equal(forced.confidence, asked.confidence)


def test_untempered_ranks_by_what_temperature_one_says() -> None:
    """Catches a small temperature that makes every position look certain."""
    logits, numbers = random_inputs(3, 6, seed=5)
    cold, rule = Sampling(rule=Static(), temperature=0.1), Untempered()
    usual = Static().propose(logits, numbers, rows_of(cold, cold, cold))
    found = rule.propose(logits, numbers, rows_of(*[Sampling(rule=rule, temperature=0.1)] * 3))
    assert torch.equal(found.token, usual.token)
    assert torch.equal(found.logprob, usual.logprob)
    allowed = logits.clone()
    allowed[..., list(BANNED)] = -math.inf
    at_one = allowed.softmax(dim=-1).gather(-1, found.token[..., None])[..., 0]
    assert torch.allclose(found.confidence, at_one)
    assert (usual.confidence > 0.95).sum() > (found.confidence > 0.95).sum()
    hidden = torch.ones(3, 6, dtype=torch.bool)
    one = Untempered(threshold=1.0).select(found.confidence, hidden, torch.ones(3, dtype=torch.int64))
    assert torch.equal(one, Static().select(found.confidence, hidden, torch.ones(3, dtype=torch.int64)))
