"""Min-p, repetition penalty, bans, guidance and kinds of confidence, row by row against plain Python."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from revelm.decoding.dynamic import Dynamic
from revelm.decoding.entropy_bounded import EntropyBounded
from revelm.decoding.propose import CONFIDENCES, Proposal, SamplingRows, draw, guided
from revelm.decoding.sampling import Sampling, sampling_rows
from revelm.decoding.static import Static

VOCAB = 9
FAMILY_BANS = (4,)
RULE = Static()  # a rule for every kind of confidence


def rows_of(settings: list[Sampling], seen: torch.Tensor | None = None) -> SamplingRows:
    return replace(sampling_rows(settings, FAMILY_BANS, "cpu", vocab_size=VOCAB), seen=seen)


def proposed(settings: list[Sampling], given: dict[str, torch.Tensor]) -> Proposal:
    """What the default ``propose`` makes of ``logits``, ``against``, ``seen`` and ``uniform``, a row per request."""
    rows = rows_of(settings, given["seen"] if any(s.repetition_penalty != 1 for s in settings) else None)
    against = given["against"] if any(s.guidance for s in settings) else None
    return RULE.propose(given["logits"], given["uniform"], rows, against=against)


def inputs(num: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    real = {"generator": generator, "dtype": torch.float64}
    return {
        "logits": 2 * torch.randn(num, 2, VOCAB, **real),
        "against": 2 * torch.randn(num, 2, VOCAB, **real),
        "uniform": torch.rand(num, 2, **real),
        "seen": torch.rand(num, VOCAB, generator=generator) < 0.4,
    }


def softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    return [w / math.fsum(weights) for w in weights]


def unfiltered(logits: list[float], against: list[float] | None, setting: Sampling) -> list[float]:
    """Guided logits of one position at the request's temperature, family's bans out."""
    w = setting.guidance if against is not None else 0.0
    moved = [c + w * (c - u) for c, u in zip(logits, against or logits, strict=True)]
    return [-math.inf if i in FAMILY_BANS else x for i, x in enumerate(moved)]


def drawn_from(logits: list[float], seen: list[bool], setting: Sampling) -> list[float]:
    """The distribution that one position is drawn from, in plain Python, one filter after the other."""
    penalty = setting.repetition_penalty
    moved = [(x / penalty if x > 0 else x * penalty) if was else x for x, was in zip(logits, seen, strict=True)]
    left = [-math.inf if i in setting.banned_ids else x / (setting.temperature or 1.0) for i, x in enumerate(moved)]
    probability = softmax(left)
    order = sorted((i for i, p in enumerate(probability) if p > 0), key=lambda i: -probability[i])
    order = order[: setting.top_k] if setting.top_k else order
    total, mass, kept = math.fsum(probability[i] for i in order), 0.0, []
    for i in order:
        if kept and mass >= setting.top_p and setting.top_p < 1:
            break
        kept.append(i)
        mass += probability[i] / total
    kept = [i for i in kept if probability[i] >= setting.min_p * max(probability)]
    total = math.fsum(probability[i] for i in kept)
    return [p / total if i in kept else 0.0 for i, p in enumerate(probability)]


def sureness(probability: list[float], token: int, kind: str) -> float:
    ordered = sorted(probability, reverse=True)
    return {
        "token": probability[token],
        "max": ordered[0],
        "margin": ordered[0] - ordered[1],
        "neg_entropy": math.fsum(p * math.log(p) for p in probability if p > 0),
    }[kind]


def check_row(proposal: Proposal, place: tuple[int, int], setting: Sampling, given: dict[str, torch.Tensor]) -> None:
    """One position of ``proposal`` against the reference."""
    logits, against = given["logits"][place].tolist(), given["against"][place].tolist()
    moved = unfiltered(logits, against, setting)
    expected = drawn_from(moved, given["seen"][place[0]].tolist(), setting)
    token, number = int(proposal.token[place]), float(given["uniform"][place])
    if setting.temperature == 0:
        assert expected[token] == max(expected)
    else:
        before = math.fsum(expected[:token])
        assert expected[token] > 0
        assert before - 1e-12 <= number < before + expected[token] + 1e-12
    temperature = setting.temperature or 1.0
    raw = [-math.inf if i in FAMILY_BANS else x for i, x in enumerate(logits)]
    recorded, at_one = softmax([x / temperature for x in raw]), softmax(raw)
    assert float(proposal.logprob[place]) == pytest.approx(math.log(recorded[token]), abs=1e-11)
    assert float(proposal.logprob_t1[place]) == pytest.approx(math.log(at_one[token]), abs=1e-11)
    ranked = softmax([x / temperature for x in moved])
    assert float(proposal.confidence[place]) == pytest.approx(sureness(ranked, token, setting.confidence), abs=1e-11)


CHOICES: dict[str, list[Any]] = {
    "temperature": [0.0, 0.6, 1.0, 1.0],
    "top_k": [0, 0, 3],
    "top_p": [1.0, 1.0, 0.7],
    "min_p": [0.0, 0.0, 0.3, 1.0],
    "repetition_penalty": [1.0, 1.0, 1.7, 0.5],
    "banned_ids": [(), (), (0, 2), (1, 4, 7)],
    "guidance": [0.0, 0.0, 1.5],
    "confidence": list(CONFIDENCES),
}


@given(st.integers(0, 10_000))
def test_every_filter_is_that_of_its_own_row(seed: int) -> None:
    """Catches a filter in the wrong order, one that leaks into a neighbour, or one that alters what is recorded."""
    rng = np.random.default_rng(seed)
    pick = {name: rng.integers(0, len(values), 5) for name, values in CHOICES.items()}
    settings = [Sampling(rule=RULE, **{k: v[pick[k][i]] for k, v in CHOICES.items()}) for i in range(5)]
    given = inputs(5, seed)
    together = proposed(settings, given)
    for place in np.ndindex(5, 2):
        check_row(together, place, settings[place[0]], given)
    for i, setting in enumerate(settings):
        alone = proposed([setting], {name: value[i : i + 1] for name, value in given.items()})
        for name in ("token", "logprob", "logprob_t1", "confidence"):
            assert torch.equal(vars(alone)[name][0], vars(together)[name][i]), name


@pytest.mark.parametrize(
    "change",
    [{"banned_ids": (3,)}, {"repetition_penalty": 3.0}, {"guidance": 2.0}],
    ids=lambda change: next(iter(change)),
)
def test_greedy_takes_the_best_of_what_is_left(change: dict[str, Any]) -> None:
    """Catches greedy rows that take the maximum of the logits as the model gave them, whatever was asked for."""
    logits = torch.tensor([[[0.0, 1.0, 2.0, 2.5, 9.0, 0.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    given = {"logits": logits, "against": torch.zeros_like(logits), "uniform": torch.zeros(1, 1)}
    given["against"][0, 0, 3] = 2.4
    given["seen"] = torch.arange(VOCAB)[None] == 3
    plain = proposed([Sampling(temperature=0.0)], given)
    changed = proposed([Sampling(temperature=0.0, **change)], given)
    assert plain.token.item() == 3
    assert changed.token.item() == 2
    assert float(changed.logprob) == pytest.approx(float(plain.logprob) - 0.5, abs=1e-12)
    assert torch.equal(changed.logprob, changed.logprob_t1)


def test_the_most_likely_allowed_id_always_stays() -> None:
    """Catches bans applied behind top-k, min-p or the nucleus: nothing would be left, and some banned id be drawn."""
    logits = torch.full((1, 1, VOCAB), -40.0)
    logits[0, 0, 1], logits[0, 0, 6] = 300.0, -30.0
    for cut in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 0.0}, {}):
        rows = rows_of([Sampling(banned_ids=(1,), **cut)])
        for number in (0.5, 0.99):
            assert draw(logits, torch.tensor([[number]]), rows).token.item() == 6
    everything = tuple(i for i in range(VOCAB) if i not in FAMILY_BANS)
    assert draw(logits, torch.tensor([[0.3]]), rows_of([Sampling(banned_ids=everything[:-1])])).token.item() == 8
    with pytest.raises(ValueError, match=r"sampling\.banned_ids leaves none of the model's 9 tokens"):
        rows_of([Sampling(), Sampling(banned_ids=everything)])


def test_guidance_is_that_of_llada() -> None:
    """Catches the other convention, in which 1 is off, and guidance that touches rows without it."""
    given = inputs(2, 0)
    rows = rows_of([Sampling(guidance=1.5), Sampling()])
    moved = guided(given["logits"], given["against"], rows)
    c, u = given["logits"], given["against"]
    allowed = [i for i in range(VOCAB) if i not in FAMILY_BANS]
    torch.testing.assert_close(moved[0, :, allowed], (2.5 * c - 1.5 * u)[0, :, allowed], rtol=0, atol=1e-12)
    assert torch.equal(moved[1, :, allowed], c[1, :, allowed])
    assert (moved[..., list(FAMILY_BANS)] == -math.inf).all()
    poisoned = given["against"].clone()
    poisoned[1] = math.nan
    assert torch.equal(guided(c, poisoned, rows)[1, :, allowed], c[1, :, allowed])


def test_what_is_not_used_is_not_built() -> None:
    """Catches a plain batch that pays for a filter nobody asked for, and a request's need that goes unnoticed."""
    plain = rows_of([Sampling(), Sampling()])
    assert plain.uses == {"sampled", "token"}
    assert plain.banned is None
    greedy = rows_of([Sampling(temperature=0.0, top_k=3, top_p=0.5, min_p=0.2)])
    assert greedy.uses == {"greedy", "token"}
    assert not greedy.is_filtered
    changes = (
        ({"top_k": 2}, {"nucleus", "filtered"}),
        ({"top_p": 0.5}, {"nucleus", "filtered"}),
        ({"min_p": 0.5}, {"min_p", "filtered"}),
        ({"repetition_penalty": 1.1}, {"repetition_penalty", "filtered"}),
        ({"banned_ids": (1,)}, {"filtered"}),
        ({"guidance": 0.5}, {"guidance", "filtered"}),
        ({"confidence": "margin"}, {"margin"}),
        ({"rule": EntropyBounded()}, {"neg_entropy"}),
    )
    for change, needed in changes:
        rows = rows_of([Sampling(), Sampling(**change)])
        assert rows.uses == {"sampled", "token"} | needed
        assert rows.is_filtered == Sampling(**change).is_filtered == ("filtered" in needed)
    with pytest.raises(AssertionError, match="seen"):
        draw(torch.zeros(1, 1, VOCAB), torch.zeros(1, 1), rows_of([Sampling(repetition_penalty=2.0)]))


def test_rows_can_be_picked() -> None:
    """Catches a field that stays behind when settings of sequences become settings of positions."""
    settings = [Sampling(), Sampling(temperature=0.5, top_k=2, top_p=0.9, min_p=0.1, confidence="max", banned_ids=(3,))]
    settings.append(Sampling(temperature=0.0, repetition_penalty=2.0, guidance=1.0))
    given = inputs(3, 1)
    slot = torch.tensor([2, 0, 0, 1, 2])
    rows = rows_of(settings, given["seen"]).at(slot)
    expected = rows_of([settings[i] for i in slot.tolist()], given["seen"][slot])
    for name, value in vars(rows).items():
        other = vars(expected)[name]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name


def test_confidences_must_be_what_the_rule_compares() -> None:
    """Catches a threshold of 0.9 on numbers that are never above 0: one token per step, without a word."""
    with pytest.raises(ValueError, match=r"sampling\.confidence is 'neg_entropy', but sampling\.rule 'dynamic'"):
        Sampling(confidence="neg_entropy", rule=Dynamic())
    assert Sampling(confidence="neg_entropy", rule=Static()).ranked_by == "neg_entropy"
    assert Sampling(confidence="max", rule=EntropyBounded()).ranked_by == "neg_entropy"


def test_certain_positions_have_no_entropy() -> None:
    """Catches 0 log 0, a confidence above 0 by rounding, and a log-probability above 0."""
    logits = torch.full((1, 2, VOCAB), -1e4)
    logits[0, 0, 2] = 1e4
    logits[0, 1] = torch.linspace(0, 1e-7, VOCAB)
    for kind in CONFIDENCES:
        found = draw(logits, torch.full((1, 2), 0.5), rows_of([Sampling(confidence=kind, rule=RULE)]))
        assert found.token[0, 0] == 2
        assert (found.logprob <= 0).all()
        assert float(found.confidence[0, 0]) == (0.0 if kind == "neg_entropy" else 1.0)
        assert found.confidence.isfinite().all()
