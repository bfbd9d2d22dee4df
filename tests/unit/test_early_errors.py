"""Mistakes that a recipe, a file or the run directory shows are found before any weights are loaded.

The checkpoints here have no weights at all: a verb that gets as far as loading them fails with another error.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from revelm.cli.main import _parse, main
from revelm.core.atomic import write_json_atomic
from revelm.core.config import load_config, read_yaml
from revelm.core.types import Completion, Problem, Score
from revelm.decoding.sampling import MIN_TEMPERATURE, Sampling
from revelm.engine.generate import generate
from revelm.eval.config import SettingSpec
from revelm.models.load import load_model, load_tokenizer
from revelm.objectives.batch import Text
from revelm.objectives.likelihood import fault, loglikelihood
from revelm.rollout.collect import check_problems
from revelm.trainers import rl, rl_recipe, sft
from revelm.trainers.config import RLConfig, SFTConfig
from revelm.trainers.rollouts import Ask
from tests.families import save_family, tiny
from tests.tiny_checkpoint import tiny_tokenizer
from tests.toy_tasks import Parity

TASK = "task=tests.toy_tasks:Parity"
CHAT = {"messages": [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cdcd"}]}
ROLLOUT = ["rollout.problems_per_step=2", "rollout.group_size=4", "rollout.max_new_tokens=4"]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sdar (blocks of 4), llada (full attention) and qwen3 (causal), each but for its weights."""
    folder = tmp_path_factory.mktemp("empty")
    for name in ("sdar", "llada", "qwen3"):
        (save_family(name, folder / name) / "model.safetensors").unlink()
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint with blocks of 4."""
    return save_family("sdar", tmp_path_factory.mktemp("model") / "sdar")


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps(CHAT) + "\n")
    return file


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line on stderr of a command that must fail with exit code 2."""

    def call(*words: object) -> str:
        assert main([str(word) for word in words]) == 2
        captured = capsys.readouterr()
        assert len(captured.err.splitlines()) == 1
        return captured.err

    return call


def recipe(folder: Path) -> Path:
    """A recipe that says nothing; the words say everything."""
    file = folder / "recipe.yaml"
    file.write_text("train: {steps: 2}\n")
    return file


def test_checkpoints_without_weights_are_refused_as_such(
    empty: Path, chats: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """Catches tests below that pass whatever the order is."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "ab", "response": "cd"}) + "\n")
    training = [recipe(tmp_path), f"model.path={empty / 'sdar'}", "--out", tmp_path / "out"]
    for words in (
        ["sft", *training, f"data.path={chats}"],
        ["rl", *training, TASK, *ROLLOUT, "eval_every=1", "eval.max_new_tokens=4"],
        ["eval", "--model", empty / "sdar", TASK, "max_new_tokens=4"],
        ["eval", "--model", empty / "sdar", "--loglikelihood", rows],
        ["generate", "--model", empty / "sdar", "--prompt", "a"],
    ):
        assert "model.safetensors is missing" in refused(*words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("sdar", ["rollout.block_size=8"], "rollout.block_size: 8, but blocks of 4 are trained"),
        ("llada", ["rollout.max_new_tokens=999"], "rollout: problem train:0 of"),
        (
            "llada",
            ["task.num_train=9", f"task.question={'x' * 300}"],
            "(9 of 9 problems are too long); lower rollout.max_new_tokens, shorten the problem, or let such problems",
        ),
        (
            "llada",
            ["task.num_train=9", f"task.question={'x' * 300}", "rollout.max_long_prompts=8"],
            "rollout.max_long_prompts: 8, but 9 of 9 training problems are too long: problem train:0 has",
        ),
        (
            "llada",
            ["task.num_train=9", f"task.question={'x' * 300}", "rollout.max_long_prompts=9"],
            "has no training problems",
        ),
        ("llada", ["task.question=a<|mask|>b"], "problem train:0: messages.0.content spells"),
        ("sdar", ["objective={kind: rejection_sft, num_pad: 2}"], "objective.num_pad is 2, but sdar decodes block"),
        ("qwen3", [], "qwen3 is autoregressive"),
        ("llada", ["rollout.temperature=1e-45"], "sampling.temperature is 1e-45, must be 0 (greedy) or"),
        ("llada", ["rollout.stop_strings=['']"], "sampling.stop_strings is ('',)"),
        (
            "sdar",
            ["rollout.stop_ids=[3, 300]"],
            "rollout: prompt 0: sampling.stop_ids holds 300, but the model's vocab",
        ),
        (
            "llada",
            ["rollout.banned_ids=[300]"],
            "sampling.banned_ids holds 300, but the model's vocabulary has 262 entr",
        ),
        (
            "sdar",
            [f"rollout.banned_ids={list(range(262))}"],
            "sampling.banned_ids leaves none of the model's 262 tokens",
        ),
        ("llada", ["model.block_size=4"], "is a llada model with full attention, which has no blocks"),
        ("sdar", ["model.block_size=8"], "was trained with blocks of 4"),
        ("sdar", ["eval_every=1", "eval.block_size=700"], "eval.settings.static.block_size: 700, must be from 1"),
        ("llada", ["eval_every=2", "eval.max_new_tokens=900"], "eval.settings.static: problem test:1000 of"),
        (
            "sdar",
            ["eval_every=2", "eval.settings.a.max_new_tokens=4", "eval.settings.b={top_k: 2, block_size: 800}"],
            "eval.settings.b.block_size: 800, must be from 1",
        ),
        ("sdar", ["eval_every=2", "eval.settings.a.rule.kind=statik"], "did you mean 'static'"),
    ],
)
def test_rl_recipes(
    empty: Path, tmp_path: Path, refused: Callable[..., str], name: str, words: list[str], reason: str
) -> None:
    """Catches a run that fails in its first rollout, or with all its steps lost at the first evaluation."""
    base = [f"model.path={empty / name}", TASK, *ROLLOUT, *words]
    assert reason in refused("rl", recipe(tmp_path), *base, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluations_that_never_run_are_not_checked(model: Path, tmp_path: Path) -> None:
    """Catches a recipe refused for the defaults of an evaluation it does not ask for."""
    words = [f"model.path={model}", TASK, *ROLLOUT, "eval.max_new_tokens=900", f"out={tmp_path / 'run'}"]
    assert rl.run(load_config(RLConfig, recipe(tmp_path), words)).is_dir()


@pytest.mark.parametrize(
    ("name", "words", "rows", "reason"),
    [
        ("llada", [], [CHAT, {"prompt": "a", "completion": "b" * 300}], "data.jsonl, row 2 (line 2) has"),
        ("llada", ["objective.num_pad=300"], [CHAT], "row 1 (line 1) has"),
        ("sdar", [], [{"prompt": "a", "completion": "b<|mask|>"}], "row 1 (line 1): messages.1.content spells"),
        ("sdar", ["objective=random_mask_sft"], [CHAT], "use 'block_sft'"),
        ("sdar", ["objective.num_pads=3"], [CHAT], "objective.num_pads: unknown field"),
        ("qwen3", [], [CHAT], "qwen3 is autoregressive"),
    ],
)
def test_sft_recipes(
    empty: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    name: str,
    words: list[str],
    rows: list[Any],
    reason: str,
) -> None:
    """Catches rows that are encoded only after minutes of loading."""
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = [f"model.path={empty / name}", f"data.path={file}", *words]
    assert reason in refused("sft", recipe(tmp_path), *base, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_larger_than_the_model(tmp_path: Path, chats: Path, refused: Callable[..., str]) -> None:
    """Catches an IndexError from the embedding, in the middle of a run."""
    source = save_family("sdar", tmp_path / "model", vocab_size=20)
    (source / "model.safetensors").unlink()
    words = [f"model.path={source}", f"data.path={chats}", "--out", tmp_path / "run"]
    assert "model's vocabulary has 20 entries" in refused("sft", recipe(tmp_path), *words)
    assert "model's vocabulary of 20 entries" in refused("generate", "--model", source, "--prompt", "ab")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "ab", "response": "cd"}) + "\n")
    error = refused("eval", "--model", source, "--loglikelihood", rows)
    assert "row 1 has the token id" in error
    assert "the model's vocabulary has 20 entries" in error


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("sdar", ["block_size=700", "max_new_tokens=4"], "settings.static.block_size: 700, must be from 1"),
        (
            "sdar",
            ["settings.a={max_new_tokens: 4}", "settings.b={max_new_tokens: 4, block_size: 700}"],
            "settings.b.block_size: 700, must be from 1",
        ),
        ("llada", [f"task.question={'x' * 300}"], "settings.static: problem test:1000 has"),
        (
            "llada",
            ["max_new_tokens=999"],
            "256 (3 of 3 problems are too long); lower settings.static.max_new_tokens, or shorten or remove",
        ),
        ("qwen3", ["max_new_tokens=4"], "error: qwen3 is autoregressive"),
    ],
)
def test_evaluations(empty: Path, refused: Callable[..., str], name: str, words: list[str], reason: str) -> None:
    """Catches a second setting that is looked at only after the first has run."""
    assert reason in refused("eval", "--model", empty / name, TASK, *words)


@pytest.mark.parametrize(
    ("name", "length", "words", "reason"),
    [
        ("llada", 400, [], "row 2 has 403 tokens; the model has 256 positions"),
        ("llada", 13, ["--estimator", "exact"], "row 2 has 13 response tokens to hide at once; estimator 'exact'"),
        ("qwen3", 0, [], "row 2 (line 2), field 'response': empty"),
    ],
)
def test_likelihood_rows(
    empty: Path, tmp_path: Path, refused: Callable[..., str], name: str, length: int, words: list[str], reason: str
) -> None:
    """Catches rows that are judged only once the model is there, as the docstring says they are not."""
    rows = [{"prompt": "abc", "response": "x" * 8}, {"prompt": "abc", "response": "x" * length}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert reason in refused("eval", "--model", empty / name, "--loglikelihood", file, *words)


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("qwen3", [], "qwen3 is autoregressive"),
        ("sdar", ["--block-size", "3"], "sdar decodes blocks of 4"),
        ("llada", ["--raw", "--max-new-tokens", "300"], "the model has 256"),
        ("llada", ["--top-p", "0"], "sampling.top_p is 0.0"),
        ("llada", ["--stop", ""], "sampling.stop_strings is ('',)"),
        ("llada", ["--temperature", "1e-45"], "sampling.temperature is 1e-45, must be 0 (greedy) or a finite number"),
    ],
)
def test_generate(empty: Path, refused: Callable[..., str], name: str, words: list[str], reason: str) -> None:
    """Catches a prompt that is looked at only once the model is there."""
    assert reason in refused("generate", "--model", empty / name, "--prompt", "a", *words)


def test_exact_is_refused_where_a_block_is_too_long() -> None:
    """Catches the error that comes from the middle of a generator and names no sample, and rows refused in vain."""
    ids = np.arange(30) % 40
    full, block = tiny("llada").family, tiny("sdar", block_size=16).family
    assert fault(Text(ids, 18, 0), full, estimator="exact") == ""
    assert "13 response tokens" in fault(Text(ids, 17, 0), full, estimator="exact")
    assert "14 response tokens" in fault(Text(ids, 2, 0), block, estimator="exact")
    assert fault(Text(ids[:28], 20, 0), block, estimator="exact") == ""
    assert fault(Text(ids, 1, 0), tiny("sdar").family, estimator="exact") == ""
    assert fault(Text(ids, 1, 0), tiny("qwen3").family, estimator="exact") == ""
    assert fault(Text(ids, 1, 0), full) == ""
    with pytest.raises(ValueError, match="sample 7 has 29 response tokens to hide at once"):
        loglikelihood(tiny("llada"), [Text(ids, 1, 7)], estimator="exact")
    for wrong in (-1, 50):
        with pytest.raises(ValueError, match=rf"sample 3 has the token id {wrong}; the model's vocabulary has 50"):
            loglikelihood(tiny("llada"), [Text(np.array([1, 2, wrong, 4]), 2, 3)])


def test_likelihoods_that_are_not_numbers(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches NaN in summary.json, which is not JSON, under an exit code that says all is well."""
    bad = tmp_path / "bad"
    shutil.copytree(model, bad)
    weights = load_file(bad / "model.safetensors")
    weights["model.norm.weight"] *= float("nan")
    save_file(weights, bad / "model.safetensors", metadata={"format": "pt"})
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "ab", "response": "cd"}) + "\n")
    words = ["eval", "--model", str(bad), "--loglikelihood", str(rows), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "sample 1: the model gave log-probabilities that are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_json_files_are_json(tmp_path: Path) -> None:
    """Catches NaN and Infinity, which strict readers refuse."""
    write_json_atomic(tmp_path / "a.json", {"a": float("nan"), "b": [1.5, {"c": -float("inf")}], "d": (2, "x", None)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [1.5, {"c": None}], "d": [2, "x", None]}


def test_only_the_longest_of_many_problems_are_checked(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    """Catches a start that takes minutes on large tasks, and a sample that misses the prompt that is too long."""
    monkeypatch.setattr(rl_recipe, "MAX_CHECKED", 1)
    config = load_config(RLConfig, None, [f"model.path={model}", "train.steps=1", "out=x", TASK, *ROLLOUT])
    family = load_model(model).family
    start = rl.find_start(config)
    problems = [Problem("long", "x" * 400, ""), *(Problem(str(i), "x" * i, "") for i in range(1, 30))]
    with pytest.raises(ValueError, match="rollout: problem long has"):
        rl_recipe.check_rl(start, rl.rl_objective(config), Ask(Parity(), problems[::-1]))
    check_problems(Parity(), problems[1:], {"rollout": Sampling()}, family=family, tokenizer=tiny_tokenizer())


def test_long_problems_are_left_out(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a run that one long problem of a thousand ends, and one that leaves problems out without a word."""
    words = [f"model.path={model}", "train.steps=1", "out=x", TASK, *ROLLOUT, "rollout.max_long_prompts=2"]
    start = rl.find_start(load_config(RLConfig, None, words))
    problems = [Problem(str(i), "x" * (400 if i in (0, 3) else 3), "") for i in range(5)]
    ask = rl_recipe.fitting(start, Ask(Parity(), problems))
    assert [problem.id for problem in ask.problems] == ["1", "2", "4"]
    assert "rollout: 2 of 5 training problems are left out: problem 0 has" in caplog.text
    rl_recipe.check_rl(start, rl.rl_objective(start.config), ask)
    with pytest.raises(ValueError, match=r"max_long_prompts: 2, but 3 of 6 .*: problem 0 has .*; raise it, lower"):
        rl_recipe.fitting(start, Ask(Parity(), [*problems, problems[0]]))


@dataclass(frozen=True)
class Unmarked(Parity):
    """A task that cannot judge its test problems, which no check can foresee."""

    def score(self, problem: Problem, completion: Completion) -> Score:
        """Never for the test split."""
        if problem.id.startswith("test"):
            raise ValueError(f"no answer key for {problem.id}")
        return super().score(problem, completion)


def test_a_failed_evaluation_loses_no_steps(model: Path, tmp_path: Path) -> None:
    """Catches trained steps that are thrown away because measuring them failed."""
    words = [f"model.path={model}", "task=tests.unit.test_early_errors:Unmarked", *ROLLOUT, f"out={tmp_path / 'run'}"]
    words += ["train.steps=4", "eval_every=3", "eval.max_new_tokens=4", "optimizer.learning_rate=1e-3"]
    with pytest.raises(ValueError, match="no answer key for test:1000"):
        rl.run(load_config(RLConfig, None, words))
    assert (tmp_path / "run" / "LATEST").read_text() == "checkpoint-3\n"
    rl.run(load_config(RLConfig, None, [*words, "resume=true"]))
    assert (tmp_path / "run" / "LATEST").read_text() == "checkpoint-4\n"


def sft_words(source: Path, chats: Path, out: Path, *more: str) -> SFTConfig:
    words = [f"model.path={source}", f"data.path={chats}", "batch_size=2", f"out={out}", "train.steps=1", *more]
    return load_config(SFTConfig, None, words)


def test_resuming_keeps_model_and_dtype(model: Path, chats: Path, tmp_path: Path) -> None:
    """Catches a run that goes on in another precision, under a config.yaml that says it always had it."""
    run = sft.run(sft_words(model, chats, tmp_path / "run"))
    saved = (run / "config.yaml").read_bytes()
    other = save_family("llada", tmp_path / "other")
    for words, reason in (
        (
            (model, "model.dtype=bfloat16"),
            "resume: model.dtype is bfloat16, but .*says float32; keep it, or change out",
        ),
        ((other,), r"resume: model.path is .*other, but .*says .*sdar; keep it"),
        ((model, "train.seed=3"), "resume: train.seed is 3"),
        ((model, "model.lora.rank=2"), "resume: model.lora is"),
    ):
        source, *more = words
        with pytest.raises(ValueError, match=reason):
            sft.run(sft_words(source, chats, run, "resume=true", "train.steps=2", *more))
        assert (run / "config.yaml").read_bytes() == saved
    longer = ("resume=true", "train.steps=2", "train.max_positions=100")
    sft.run(sft_words(Path(f"{model}/../{model.name}"), chats, run, *longer))
    assert (run / "LATEST").read_text() == "checkpoint-2\n"


def test_a_run_moved_with_its_model_goes_on(chats: Path, tmp_path: Path) -> None:
    """Catches a folder that holds model and run, as quickstart leaves it, and is refused at its new place."""
    source = save_family("sdar", tmp_path / "here" / "model")
    sft.run(sft_words(source, chats, tmp_path / "here" / "run"))
    there = (tmp_path / "here").rename(tmp_path / "there")
    run = sft.run(sft_words(there / "model", chats, there / "run", "resume=true", "train.steps=2"))
    assert read_yaml(run / "config.yaml")["model"]["path"] == str(there / "model")


def test_a_run_saved_before_a_field_existed_goes_on(model: Path, chats: Path, tmp_path: Path) -> None:
    """Catches a null objective or a missing field, from an older version, taken for another run."""
    run = sft.run(sft_words(model, chats, tmp_path / "run"))
    text = (run / "config.yaml").read_text().replace("objective:\n  kind: block_sft\n", "objective: null\n")
    text = text.replace("  lora: null\n", "")
    assert "block_sft" not in text
    (run / "config.yaml").write_text(text)
    sft.run(sft_words(model, chats, run, "resume=true", "train.steps=2"))
    assert read_yaml(run / "config.yaml")["objective"] == {"kind": "block_sft"}


def test_recipes_say_where_answers_end(model: Path) -> None:
    """Catches a field of recipes that never reaches the engine, and one that config.yaml does not give back."""
    spec = SettingSpec.model_validate_json('{"stop_strings": ["a", "b"], "stop_ids": [7], "ignore_eos": true}')
    sampling = spec.sampling()
    assert (sampling.stop_strings, sampling.stop_ids, sampling.ignore_eos) == (("a", "b"), (7,), True)
    words = [f"model.path={model}", "train.steps=1", "out=x", "task=chain", "rollout.stop_ids=[-1]"]
    with pytest.raises(ValueError, match=r"rollout.stop_ids.0"):
        load_config(RLConfig, None, words)
    words[-1] = "rollout={stop_ids: [3], stop_strings: [x], ignore_eos: true}"
    rollout = load_config(RLConfig, None, words).rollout.sampling()
    assert (rollout.stop_strings, rollout.stop_ids, rollout.ignore_eos) == (("x",), (3,), True)


def test_generate_takes_every_setting(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches an option that is read and changes nothing."""
    from revelm.cli.generate import _sampling

    words = ["generate", "--model", str(model), "--prompt", "a", "--max-new-tokens", "8"]
    plain = Sampling(max_new_tokens=8)
    assert _sampling(_parse(words)) == plain
    more = ["--top-k", "5", "--top-p", "0.8", "--confidence", "max", "--stop", "x", "--stop", "yz"]
    found = _sampling(_parse([*words, *more]))
    assert found == replace(plain, top_k=5, top_p=0.8, confidence="max", stop_strings=("x", "yz"))
    assert main([*words, *more]) == 0
    assert "steps, " in capsys.readouterr().err


def test_the_coldest_temperature_works(model: Path) -> None:
    """Catches a bound on the temperature under which numbers are already unusable."""
    loaded, tokenizer = load_model(model), load_tokenizer(model)
    cold = Sampling(temperature=MIN_TEMPERATURE, max_new_tokens=24)
    (found,) = generate(loaded, ["ab"], sampling=cold, tokenizer=tokenizer)
    (greedy,) = generate(loaded, ["ab"], sampling=replace(cold, temperature=0.0), tokenizer=tokenizer)
    assert np.isfinite(found.logprob).all()
    assert found.completion_ids.tolist() == greedy.completion_ids.tolist()
    for wrong in (MIN_TEMPERATURE / 2, 1e-45, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"sampling.temperature is .*, must be 0 \(greedy\) or a finite number"):
            Sampling(temperature=wrong)
