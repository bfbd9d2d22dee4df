"""Likelihoods of responses: the bound against brute force, its estimators against the bound, and the command."""

import json
from dataclasses import replace
from functools import lru_cache
from itertools import product
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from revelm.cli.main import main
from revelm.core.types import ABSENT
from revelm.decoding.propose import log_probabilities
from revelm.models.language_model import LanguageModel
from revelm.models.load import new_model
from revelm.noise.bound import MAX_EXACT, Estimator, combine, draw_masks
from revelm.objectives.batch import Text
from revelm.objectives.likelihood import fault, loglikelihood
from tests.models import MASK, prompt_of, sharp_model, sharpened, tiny_config
from tests.tiny_checkpoint import save_tiny, tiny_tokenizer

SAMPLED: tuple[Estimator, ...] = ("uniform", "count", "stratified", "antithetic")
CODES = 1 << np.arange(16)


@lru_cache(maxsize=4)
def other_model(attention: str, *, is_shifted: bool = False) -> LanguageModel:
    """A sharp model whose family says what its attention is; causal ones have no mask token. Shared."""
    model = sharpened(new_model(tiny_config(), seed=1).double())
    changes: dict[str, Any] = {"attention": attention, "is_shifted": is_shifted}
    if attention != "block":
        changes["block_size"] = None
    if attention == "causal":
        changes["mask_id"] = ABSENT
    model.family = replace(model.family, **changes)
    return model


def text(length: int, prompt_length: int, key: int = 0) -> Text:
    return Text(np.array(prompt_of(length, 100 + key)), prompt_length, key)


def said(model: LanguageModel, shown: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Log-probability of each of ``ids`` at its position when the model is shown ``shown``, under its own pattern."""
    with torch.no_grad():
        logits = model(torch.from_numpy(shown)[None])
    table = log_probabilities(logits, model.family.banned_ids)[0].numpy()
    return table[np.arange(len(ids)), ids]


def brute_force(model: LanguageModel, sample: Text) -> float:
    """The bound, subset by subset, each with a forward of its own over what the engine would have on its canvas."""
    size, end = model.family.block_size or len(sample.ids), len(sample.ids)
    total = 0.0
    for start in range(0, end, size):
        places = [i for i in range(start, min(start + size, end)) if i >= sample.prompt_length]
        for choice in product((False, True), repeat=len(places)):
            hidden = [i for i, is_hidden in zip(places, choice, strict=True) if is_hidden]
            if hidden:
                ids = np.concatenate((sample.ids[: start + size], np.full(max(0, start + size - end), 7)))
                shown = ids.copy()
                shown[hidden] = MASK
                shown[end:] = MASK
                weight = 1 / (len(hidden) * comb(len(places), len(hidden)))
                total += weight * float(said(model, shown, ids)[hidden].sum())
    return total


@pytest.mark.parametrize(("length", "prompt_length"), [(16, 8), (15, 6), (9, 5), (6, 5), (11, 0), (4, 3)])
def test_block_bound_is_the_sum_over_subsets(length: int, prompt_length: int) -> None:
    """Catches wrong weights, hidden leftover prompt tokens, and a last block that shows or counts what comes after."""
    sample = text(length, prompt_length)
    (found,) = loglikelihood(sharp_model(), [sample])
    assert found.value == pytest.approx(brute_force(sharp_model(), sample), abs=1e-10)
    assert (found.standard_error, found.is_exact, found.num_tokens) == (0.0, True, length - prompt_length)


@pytest.mark.parametrize("estimator", ["auto", "exact", *SAMPLED])
def test_blocks_of_one_are_the_chain_rule(estimator: Estimator) -> None:
    """Catches anything sampled, or any token seen too early, where the likelihood itself is at hand."""
    model, sample = sharp_model(1), text(11, 4)
    (found,) = loglikelihood(model, [sample], estimator=estimator)
    chain = 0.0
    for i in range(4, 11):
        shown = np.append(sample.ids[:i], MASK)
        chain += float(said(model, shown, sample.ids[: i + 1])[i])
    assert found.value == pytest.approx(chain, abs=1e-10)
    assert (found.is_exact, found.standard_error, found.num_masks) == (True, 0.0, 7)


@pytest.mark.parametrize("is_shifted", [False, True])
def test_full_attention_bound_is_the_sum_over_subsets(is_shifted: bool) -> None:
    """Catches a canvas that is not hidden as a whole, and rows of shifted models read one place off."""
    model, sample = other_model("full", is_shifted=is_shifted), text(11, 5)
    (found,) = loglikelihood(model, [sample])
    assert found.value == pytest.approx(brute_force(model, sample), abs=1e-10)
    assert (found.num_masks, found.is_exact) == (63, True)


def test_shifted_block_bound_is_the_sum_over_subsets() -> None:
    """Catches the first position of a hidden block that does not ask the clean row before it."""
    model, sample = other_model("block", is_shifted=True), text(11, 5)
    (found,) = loglikelihood(model, [sample])
    assert found.value == pytest.approx(brute_force(model, sample), abs=1e-10)


def test_causal_models_give_the_likelihood_itself() -> None:
    """Catches tokens that see themselves, and a causal family that is asked to fill in masks it does not have."""
    model, sample = other_model("causal", is_shifted=True), text(11, 5)
    (found,) = loglikelihood(model, [sample])
    with torch.no_grad():
        ids = torch.from_numpy(sample.ids)
        rows = model.head(model.decoder(ids[None], torch.arange(11)[None], seen_by_all_after(11)))[0]
    chain = rows.log_softmax(-1)[4:10].gather(-1, ids[5:, None]).sum()
    assert found.value == pytest.approx(float(chain), abs=1e-10)
    assert (found.num_masks, found.is_exact) == (0, True)
    with pytest.raises(ValueError, match="sample 3 has no prompt"):
        loglikelihood(model, [text(5, 0, key=3)])


def seen_by_all_after(length: int) -> Any:
    """Plain causal attention, spelt out."""
    from revelm.masks.visibility import Pattern
    from revelm.models.attention import Visibility

    zeros = torch.zeros(1, length, dtype=torch.int64)
    return Visibility(Pattern(zeros, torch.arange(length)[None], zeros), dtype=torch.float64, is_cuda=False)


@lru_cache(maxsize=1)
def chain_table(size: int = 8) -> tuple[np.ndarray, float]:
    """What a perfect model says about one text of a Markov chain over 3 letters: the sum of log p over each hidden
    subset, by its code [2**size], and the text's true log-probability.
    """
    rng = np.random.default_rng(3)
    step = rng.dirichlet(np.full(3, 0.25), size=3)
    texts = np.array(list(product(range(3), repeat=size)))
    joint = np.prod(step[texts[:, :-1], texts[:, 1:]], axis=1) / 3
    ids = texts[rng.choice(len(texts), p=joint)]
    sums = np.zeros(2**size)
    for code in range(1, 2**size):
        hidden = code & CODES[:size] > 0
        fits = joint * (texts[:, ~hidden] == ids[~hidden]).all(axis=1)
        sums[code] = sum(np.log(fits[texts[:, i] == ids[i]].sum() / fits.sum()) for i in np.flatnonzero(hidden))
    return sums, float(np.log(joint[(texts == ids).all(axis=1)][0]))


@lru_cache(maxsize=1)
def model_table(size: int = 6) -> tuple[np.ndarray, float]:
    """The same of a sharp full-attention model, and the exact bound."""
    model, sample = other_model("full"), text(size + 4, 4)
    sums = np.zeros(2**size)
    for code in range(1, 2**size):
        hidden = np.append(np.zeros(4, dtype=bool), code & CODES[:size] > 0)
        sums[code] = said(model, np.where(hidden, MASK, sample.ids), sample.ids)[hidden].sum()
    return sums, brute_force(model, sample)


def runs(sums: np.ndarray, estimator: Estimator, num_samples: int, count: int) -> np.ndarray:
    """``count`` estimates with their standard errors, [count, 2]."""
    size = len(sums).bit_length() - 1
    found = []
    for seed in range(count):
        masks = draw_masks(size, np.random.default_rng(seed), estimator=estimator, num_samples=num_samples)
        parts = masks.weight * sums[masks.hidden @ CODES[:size]]
        found.append(combine(np.bincount(masks.draw, weights=parts, minlength=len(masks.stratum)), masks.stratum))
    return np.array(found)


def test_the_bound_of_a_perfect_model_is_its_likelihood() -> None:
    """Catches weights that are not those of the chain rule averaged over all orders."""
    sums, truth = chain_table()
    assert runs(sums, "exact", 2, 1)[0] == pytest.approx([truth, 0.0], abs=1e-10)


@pytest.mark.parametrize("estimator", SAMPLED)
@pytest.mark.parametrize("num_samples", [3, 5, 11, 64])
def test_estimators_are_unbiased(estimator: Estimator, num_samples: int) -> None:
    """Catches a level that is drawn too often, an odd number of draws shared out unevenly, and l = 0 mistaken."""
    for sums, bound in (model_table(), chain_table()):
        found = runs(sums, estimator, num_samples, 1500)[:, 0]
        assert abs(found.mean() - bound) < 3.5 * found.std() / np.sqrt(len(found))


def test_variance_falls_from_estimator_to_estimator() -> None:
    """Catches strata that do not stratify: with 64 masks each costs several times the next one's variance."""
    spread = {name: runs(chain_table()[0], name, 64, 600)[:, 0].var() for name in SAMPLED}
    assert spread["stratified"] < 0.5 * spread["count"]
    assert spread["antithetic"] < 0.5 * spread["count"]
    assert spread["count"] < spread["uniform"]
    spread = {name: runs(model_table()[0], name, 64, 600)[:, 0].var() for name in SAMPLED}
    assert spread["antithetic"] < spread["stratified"] < 1.1 * spread["count"]
    assert spread["count"] < 0.1 * spread["uniform"]


@pytest.mark.parametrize("estimator", ["count", "stratified", "antithetic"])
def test_standard_errors_are_honest(estimator: Estimator) -> None:
    """Catches errors computed as if stratified draws were alike, or paired masks independent."""
    for sums, bound in (model_table(), chain_table()):
        value, error = runs(sums, estimator, 128, 1500).T
        assert (error**2).mean() / value.var() == pytest.approx(1.0, abs=0.15)
        assert 0.9 < (abs(value - bound) < 1.96 * error).mean() < 0.975


@pytest.mark.parametrize("estimator", SAMPLED)
@pytest.mark.parametrize("attention", ["block", "full"])
def test_sampled_rows_add_up_as_their_masks_say(estimator: Estimator, attention: str) -> None:
    """Catches weights and draws that go to another copy, or another block, on the way through rows and back."""
    model = other_model(attention)
    sample = text(8, 3)
    spread = [loglikelihood(model, [sample], estimator=estimator, num_samples=10, seed=s)[0] for s in range(60)]
    values = np.array([one.value for one in spread])
    error = np.sqrt(np.mean([one.standard_error**2 for one in spread]))
    assert abs(values.mean() - brute_force(model, sample)) < 3.5 * error / np.sqrt(len(spread))
    assert error == pytest.approx(values.std(), rel=0.35)
    assert all(not one.is_exact for one in spread)
    assert {one.num_masks for one in spread} <= set(range(1, 10 * (2 if attention == "block" else 1) + 1))


@pytest.mark.parametrize("attention", ["block", "full", "causal"])
@pytest.mark.parametrize("estimator", ["auto", "uniform", "antithetic"])
def test_neighbours_and_batches_change_nothing(attention: str, estimator: Estimator) -> None:
    """Catches padding, packing or the cutting of rows that leaks into a sample, and noise drawn in batch order."""
    model = other_model(attention, is_shifted=attention == "causal")
    samples = [text(n, p, key) for key, (n, p) in enumerate([(12, 6), (40, 3), (9, 8), (23, 11), (8, 4)])]
    together = loglikelihood(model, samples, estimator=estimator, num_samples=8)
    for limit in (1, 60, 250):
        found = loglikelihood(model, samples[::-1], estimator=estimator, num_samples=8, max_positions=limit)[::-1]
        for one, other in zip(together, found, strict=True):
            assert other.value == pytest.approx(one.value, abs=1e-10)
            assert other.standard_error == pytest.approx(one.standard_error, abs=1e-9)
            assert replace(other, value=0.0, standard_error=0.0) == replace(one, value=0.0, standard_error=0.0)


def test_seeds_decide() -> None:
    """Catches hidden randomness, and a seed or key that is not used."""
    model, sample = other_model("full"), text(20, 4)
    first = loglikelihood(model, [sample], num_samples=6)
    assert loglikelihood(model, [sample], num_samples=6) == first
    assert loglikelihood(model, [sample], num_samples=6, seed=1) != first
    assert loglikelihood(model, [replace(sample, key=1)], num_samples=6) != first


def test_what_cannot_be_scored_is_refused() -> None:
    """Catches minus infinity, or a crash deep inside, for what a user can mend."""
    model, family = sharp_model(), sharp_model().family
    assert fault(text(9, 9), family) == "has no response tokens"
    assert "the model has 256 positions" in fault(text(257, 3), family)
    masked = Text(np.array([1, 2, MASK, 4]), 1, 5)
    with pytest.raises(ValueError, match="sample 5 has the mask token in its response"):
        loglikelihood(model, [masked])
    assert fault(replace(masked, prompt_length=3), family) == ""
    with pytest.raises(ValueError, match="estimator is 'best', must be one of auto"):
        loglikelihood(model, [], estimator="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_samples is 1"):
        loglikelihood(model, [], num_samples=1)
    with pytest.raises(ValueError, match=f"possible up to {MAX_EXACT}"):
        loglikelihood(other_model("full"), [text(30, 4)], estimator="exact")
    assert loglikelihood(model, []) == []


CHAT = {"messages": [{"role": "user", "content": "2+2="}, {"role": "assistant", "content": "4"}]}


def write_rows(file: Path, rows: list[Any]) -> Path:
    file.write_text("\n\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return file


def run_eval(*words: object) -> int:
    return main(["eval", "--loglikelihood", *map(str, words)])


def test_command_scores_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches rows lost or renumbered, a perplexity of another mean, and files that disagree with the table."""
    model = save_tiny(tmp_path / "model")
    data = write_rows(tmp_path / "data.jsonl", [CHAT, {"prompt": "a", "completion": "bc"}])
    assert run_eval(data, "--model", model, "--out", tmp_path / "out", "dtype=float64", "seed=3") == 0
    printed = capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows] == [1, 3]
    assert [row["num_tokens"] for row in rows] == [2, 3]
    mean = sum(row["loglikelihood"] for row in rows) / 5
    per_token = summary["loglikelihood_per_token"]
    assert per_token["mean"] == pytest.approx(mean)
    assert per_token["low"] < mean < per_token["high"]
    assert per_token["n"] == 2
    assert summary["perplexity"]["mean"] == pytest.approx(np.exp(-mean))
    assert (summary["num_tokens"], summary["is_exact"], summary["seed"]) == (5, True, 3)
    assert f"{mean:.4f} [{per_token['low']:.4f}, {per_token['high']:.4f}]" in printed
    assert "lower bound, exact" in printed


def test_command_reads_plain_prompts(tmp_path: Path) -> None:
    """Catches a template or a stop token that slips into plain text, and a stop that is spelt out but not one token."""
    model = save_tiny(tmp_path / "model", block_size=8)
    end = tiny_tokenizer().eos_token
    rows = [{"prompt": "12", "response": "3456789 and"}, {"prompt": "", "response": "ab" + end}]
    options = ("--samples", 8, "--estimator", "stratified", "--out", tmp_path / "out")
    assert run_eval(write_rows(tmp_path / "plain.jsonl", rows), "--model", model, *options) == 0
    found = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [(row["num_prompt_tokens"], row["num_tokens"]) for row in found] == [(2, 11), (0, 3)]
    assert not any(row["is_exact"] for row in found)
    assert all(row["standard_error"] > 0 for row in found)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([CHAT, {"prompt": "a"}], "row 2 (line 3), field 'messages': missing or null, and rows"),
        ([{"prompt": "a", "response": "b"}, CHAT], "row 1 (line 1), field 'messages': missing or null, and rows"),
        ([{"prompt": "a", "response": 4}], "row 1 (line 1), field 'response': must be text, got 4"),
        ([{"prompt": "a", "response": ""}], "row 1 (line 1), field 'response': empty"),
        ([{"prompt": "a", "response": "b"}, "{"], "row 2 (line 3): not JSON"),
        ([{"prompt": "a<|mask|>", "response": "b"}], "row 1 (line 1): prompt spells the special token '<|mask|>'"),
        ([{"prompt": "a", "response": "<|mask|>b"}], "row 1 (line 1): response spells the special token '<|mask|>'"),
        ([CHAT, {"prompt": "a", "completion": "b<|pad|>"}], "row 2 (line 3): messages.1.content spells the special"),
        ([{"prompt": "a", "response": "b"}, {"prompt": "a", "response": "b" * 96}], "row 3 has 97 tokens, in whole"),
        ([""], "has no rows"),
    ],
)
def test_command_names_the_row(
    rows: list[Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches errors that leave the user to look for the row."""
    model = save_tiny(tmp_path / "model")
    assert run_eval(write_rows(tmp_path / "data.jsonl", rows), "--model", model) == 2
    separator = ", " if rows != [""] else "': "
    assert f"data.jsonl{separator}{message}" in capsys.readouterr().err


def test_command_refuses_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches options that are ignored."""
    assert main(["eval", "--samples", "4"]) == 2
    assert "--samples: only with --loglikelihood" in capsys.readouterr().err
    assert run_eval(tmp_path / "none.jsonl", "--model", save_tiny(tmp_path / "model")) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert run_eval("x.jsonl", "--model", "x", "--estimator", "best") == 2
    assert "estimator" in capsys.readouterr().err
    assert run_eval("x.jsonl", "--model", "x", "task=chain") == 2
    assert "task: unknown field" in capsys.readouterr().err
