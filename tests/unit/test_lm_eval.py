"""Our model inside lm-evaluation-harness: what its requests mean, and whole runs on local files."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="the extra 'eval' is not installed")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.tasks import TaskManager

from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.eval.lm_eval import TASKS, arguments
from revelm.eval.lm_eval_files import humaneval, judge_humaneval
from revelm.eval.lm_eval_model import RevelmLM
from revelm.eval.lm_eval_request import LmEvalSpec, read_wish
from revelm.objectives.batch import Text
from revelm.objectives.likelihood import loglikelihood
from revelm.tasks.humaneval import HumanEval
from tests.lm_eval_files import GSM8K, HELLASWAG, HUMANEVAL, write_rows
from tests.tiny_checkpoint import save_tiny, tiny_tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A block model with room for whole prompts of the tasks; its weights are large enough to make choices clear."""
    return str(save_tiny(tmp_path_factory.mktemp("model"), max_position_embeddings=512, spread=0.3))


@pytest.fixture(scope="module")
def model(checkpoint: str) -> RevelmLM:
    return RevelmLM(checkpoint, num_samples=8)


def asked(kind: str, *arguments: Any, doc: int = 0, idx: int = 0) -> Instance:
    """A request as the harness makes it."""
    return Instance(kind, {}, arguments, idx, metadata=("t", doc, 1))


def generated(model: RevelmLM, *pairs: tuple[str, dict[str, Any]]) -> list[str]:
    requests = [asked("generate_until", text, words, doc=i) for i, (text, words) in enumerate(pairs)]
    return model.generate_until(requests, disable_tqdm=True)


def manager(**metadata: Any) -> TaskManager:
    return TaskManager(include_path=TASKS, include_defaults=False, metadata=metadata)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reaches for the network fails at once."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")


def test_gsm8k_and_hellaswag_run_from_local_files(model: RevelmLM, tmp_path: Path) -> None:
    """Catches an adapter that the harness's own loop cannot drive, and answers that are not the engine's."""
    rows = write_rows(tmp_path / "gsm8k.jsonl", GSM8K)
    tasks = manager(gsm8k=rows, gsm8k_train=rows, hellaswag=write_rows(tmp_path / "hellaswag.jsonl", HELLASWAG))
    found: Any = simple_evaluate(
        model,
        tasks=["gsm8k_local", "hellaswag_local"],
        num_fewshot=1,
        gen_kwargs={"max_gen_toks": 8},
        task_manager=tasks,
        bootstrap_iters=0,
    )
    assert set(found["results"]) == {"gsm8k_local", "hellaswag_local"}
    assert found["results"]["gsm8k_local"]["exact_match,flexible-extract"] == 0.0
    assert found["results"]["hellaswag_local"]["acc,none"] in (0.0, 0.5, 1.0)
    sampling = Sampling(temperature=0.0, max_new_tokens=8, stop_strings=("Question:", "</s>"))
    for sample in found["samples"]["gsm8k_local"][: len(GSM8K)]:
        prompt = sample["arguments"][0][0]
        assert prompt.count("Question:") == 2
        (own,) = Engine(model.model, model.tokenizer).generate([prompt], sampling)
        assert sample["resps"] == [[model.tokenizer.decode(own.response_ids, skip_special_tokens=True)]]
    told = found["config"]["revelm"]
    assert told["tokens_per_forward"] > 0
    assert told["rule"] == {"kind": "dynamic"}


@pytest.mark.parametrize("kind", ["sdar", "Dream"])
def test_likelihoods_are_the_bound_of_the_same_tokens(kind: str, tmp_path: Path) -> None:
    """Catches a context and a continuation that are cut elsewhere, a lost seed, and an answer for another request."""
    model = RevelmLM(str(save_tiny(tmp_path, model_type=kind, spread=0.3)), num_samples=8, seed=3)
    pairs = [("The sky is", " blue"), ("The sky is", " green and far away"), ("", "alone"), ("2+2=", "4")]
    found = model.loglikelihood([asked("loglikelihood", *pair) for pair in pairs], disable_tqdm=True)
    for (context, continuation), (value, _) in zip(pairs, found, strict=True):
        known = model.tokenizer.encode(context) or [model.eot_token_id]
        ids = np.array([*known, *model.tokenizer.encode(continuation)])
        sample = model._sample(ids[: len(known)].tolist(), ids[len(known) :].tolist())
        assert np.array_equal(sample.ids, ids)
        own = loglikelihood(model.model, [Text(ids, len(known), sample.key)], num_samples=8, seed=3)[0]
        assert value == pytest.approx(own.value, abs=1e-4)
    again = model.loglikelihood([asked("loglikelihood", *pairs[1])], disable_tqdm=True)
    assert again[0][0] == pytest.approx(found[1][0], abs=1e-4)


@pytest.mark.parametrize("kind", ["sdar", "Dream"])
def test_greedy_is_what_decoding_one_token_at_a_time_writes(kind: str, tmp_path: Path) -> None:
    """Catches a flag that compares with one forward, or with an answer that ended early."""
    model = RevelmLM(str(save_tiny(tmp_path, model_type=kind, spread=0.3)), num_samples=2)
    context = model.tok_encode("The sky")
    greedy = Sampling(temperature=0.0, rule=Static(), max_new_tokens=6, ignore_eos=True)
    (own,) = Engine(model.model).generate([context], greedy)
    written = own.response_ids.tolist()
    other = [*written[:-1], (written[-1] + 1) % 256 + 6]
    asks = [(("", ""), context, ids) for ids in (written, other, [])]
    (_, first), (_, second), (nothing, third) = model._loglikelihood_tokens(asks, disable_tqdm=True)
    assert (first, second, third) == (True, False, True)
    assert nothing == 0.0


def test_choices_of_one_question_see_the_same_masks(model: RevelmLM) -> None:
    """Catches noise of the masks in the difference between choices of equal length."""
    first, second, other = (model._sample(model.tok_encode(t), [70, 71]) for t in ("Q: a", "Q: a", "Q: b"))
    assert first.key == second.key != other.key


def test_rolling_hides_every_token_once(model: RevelmLM) -> None:
    """Catches windows that overlap or leave out a token, and one that is longer than the model."""
    short = RevelmLM(model.spec.pretrained, max_length=16, num_samples=8)
    text = "To be, or not to be, that is the question"
    windows = short._windows(text)
    assert [len(w.ids) <= 16 for w in windows] == [True] * 3
    parts = [w.ids[w.prompt_length :].tolist() for w in windows]
    ids = short.tok_encode(text)
    assert list(chain(*parts)) == ids
    assert windows[-1].ids.tolist() == ids[-len(windows[-1].ids) :]
    whole, none = short.loglikelihood_rolling(
        [asked("loglikelihood_rolling", text), asked("loglikelihood_rolling", "")], disable_tqdm=True
    )
    assert whole == pytest.approx(
        sum(one.value for one in loglikelihood(short.model, windows, num_samples=8)), abs=1e-3
    )
    assert none == 0


def test_settings_are_those_of_each_request(model: RevelmLM) -> None:
    """Catches a batch that is decoded as its first request wants it."""
    texts = ["one", "two", "three"]
    words: list[dict[str, Any]] = [
        {"until": [], "max_gen_toks": 4, "do_sample": False, "temperature": 0.7},
        {"until": [], "max_gen_toks": 12, "do_sample": True, "temperature": 1.0, "top_k": 3},
        {"until": [], "max_tokens": 8},
    ]
    together = generated(model, *zip(texts, words, strict=True))
    wishes = [read_wish(w, model.spec, model.tokenizer, seed=0).sampling for w in words]
    assert [(w.temperature, w.max_new_tokens, w.top_k) for w in wishes] == [(0.0, 4, 0), (1.0, 12, 3), (0.0, 8, 0)]
    alone = [
        model.generate_until([asked("generate_until", t, w, doc=i)], disable_tqdm=True)[0]
        for i, (t, w) in enumerate(zip(texts, words, strict=True))
    ]
    assert together == alone


def test_repetitions_differ_and_come_back(model: RevelmLM) -> None:
    """Catches one seed for all samples of a problem, and seeds that depend on how many problems are asked."""
    words = {"until": [], "max_gen_toks": 12, "do_sample": True, "temperature": 1.0}
    one = asked("generate_until", "x", words, doc=5)
    first = model.generate_until([one, one, one], disable_tqdm=True)
    assert len(set(first)) == 3
    second = model.generate_until([asked("generate_until", "y", words, doc=4), one, one], disable_tqdm=True)
    assert second[1:] == first[:2]


def test_answers_end_before_stop_strings(model: RevelmLM) -> None:
    """Catches a stop string that stays in the answer, and one that is a special token, which no text contains."""
    whole = generated(model, ("x", {"until": [], "max_gen_toks": 40}))[0]
    assert len(whole) > 4
    stop = whole[2:4]
    assert generated(model, ("x", {"until": [stop, ""], "max_gen_toks": 40}))[0] == whole[: whole.index(stop)]
    wish = read_wish({"until": ["<|user|>", "\n"]}, model.spec, model.tokenizer, seed=0)
    assert wish.sampling.stop_ids == (model.tokenizer.convert_tokens_to_ids("<|user|>"),)
    assert wish.sampling.stop_strings == wish.stop_strings == ("\n",)


def test_a_chain_of_thought_is_left_out(model: RevelmLM) -> None:
    """Catches a stop string that ends the thought, and with it the answer."""
    whole = generated(model, ("x", {"until": [], "max_gen_toks": 40}))[0]
    thinking = RevelmLM(model.spec.pretrained, think_end_token=whole[5:7])
    answer = generated(thinking, ("x", {"until": [whole[1:3]], "max_gen_toks": 40}))[0]
    assert answer == whole.split(whole[5:7])[-1].lstrip().split(whole[1:3])[0]


def test_chats_go_through_the_template(model: RevelmLM, tmp_path: Path) -> None:
    """Catches a lost system prompt, and a prompt that is a text to the model and not turns of a chat."""
    rows = write_rows(tmp_path / "gsm8k.jsonl", GSM8K)
    found: Any = simple_evaluate(
        model,
        tasks=["gsm8k_local"],
        num_fewshot=0,
        limit=1,
        gen_kwargs={"max_gen_toks": 4},
        task_manager=manager(gsm8k=rows, gsm8k_train=rows),
        apply_chat_template=True,
        system_instruction="Be brief.",
        bootstrap_iters=0,
    )
    (prompt, _) = found["samples"]["gsm8k_local"][0]["arguments"][0]
    asked_for = f"<|user|>Question: {GSM8K[0]['question']}\nAnswer:<|im_end|><|assistant|>"
    assert prompt == f"<|system|>Be brief.<|im_end|>{asked_for}"
    assert tiny_tokenizer().convert_ids_to_tokens(model.tok_encode(prompt)[0]) == "<|system|>"
    begun = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert model.apply_chat_template(begun, add_generation_prompt=False) == "<|user|>a<|im_end|><|assistant|>b"


def test_long_prompts_lose_their_beginning(model: RevelmLM) -> None:
    """Catches an error after hours, and a prompt that loses the question in place of the examples."""
    text = "".join(chr(97 + i % 26) for i in range(700))
    words = {"until": [], "max_gen_toks": 12}
    wish = read_wish(words, model.spec, model.tokenizer, seed=0)
    assert model._fitted(text, wish) == model.tok_encode(text)[-500:]
    assert generated(model, (text, words)) == generated(model, (text[-500:], words))
    with pytest.raises(ValueError, match="max_gen_toks is 512, but the model has 512 positions"):
        generated(model, ("a", {"until": [], "max_gen_toks": 512}))


def test_what_was_answered_is_not_asked_again(checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches --use_cache that keeps nothing of a run that was interrupted."""
    requests = [asked("generate_until", t, {"until": [], "max_gen_toks": 4}, doc=i) for i, t in enumerate("abc")]
    choices = [asked("loglikelihood", "a", f" {t}", doc=i) for i, t in enumerate("xy")]
    model = RevelmLM(checkpoint, num_samples=8)
    keeping = CachingLM(model, str(tmp_path / "answers.db"))
    model.generate_until(requests[:2], disable_tqdm=True)
    first = model.loglikelihood(choices, disable_tqdm=True)
    seen: list[int] = []
    whole = Engine.generate

    def counted(self: Engine, prompts: Any, *rest: Any, **options: Any) -> Any:
        seen.append(len(prompts))
        return whole(self, prompts, *rest, **options)

    monkeypatch.setattr(Engine, "generate", counted)
    answers = keeping.generate_until(requests)
    assert answers[2] == generated(model, ("c", {"until": [], "max_gen_toks": 4}))[0]
    assert [tuple(pair) for pair in keeping.loglikelihood(choices)] == first
    assert seen == [1, 1]


@pytest.mark.parametrize("task", ["humaneval_local", "humaneval_chat_local"])
def test_humaneval_runs_offline(task: str, model: RevelmLM, tmp_path: Path) -> None:
    """Catches a task that reaches for the hub when it is loaded, as the harness's own does."""
    found: Any = simple_evaluate(
        model,
        tasks=[task],
        gen_kwargs={"max_gen_toks": 8},
        task_manager=manager(humaneval=write_rows(tmp_path / "humaneval.jsonl", HUMANEVAL)),
        apply_chat_template=task == "humaneval_chat_local",
        bootstrap_iters=0,
    )
    assert found["results"][task]["pass@1,all"] == found["results"][task]["unjudged,all"] == 0.0
    assert [len(sample["filtered_resps"][0]) for sample in found["samples"][task]] == [1, 1]


def test_humaneval_is_judged_by_the_sandbox() -> None:
    """Catches answers that are judged as texts, and a prompt that is left out of the program."""
    for doc in HUMANEVAL:
        assert judge_humaneval(doc, [[doc["canonical_solution"]]]) == {"pass@1": 1.0, "unjudged": 0.0}
        assert judge_humaneval(doc, [["    return x\n"]])["pass@1"] == 0.0


def test_a_sample_is_its_code_block_or_goes_on_where_the_prompt_ends() -> None:
    """Catches a chat's answer that is read as the rest of the function, and samples of which one is judged."""
    good, rest = "Here it is:\n```python\ndef twice(x):\n    return x + x\n```\nDone.", "    return 2 * x\n"
    assert judge_humaneval(HUMANEVAL[0], [[good, rest, "    return x", "no"]])["pass@1"] == 0.5
    used = good + "\nUse it so:\n```python\nprint(twice(2))\n```"
    assert judge_humaneval(HUMANEVAL[0], [[used]])["pass@1"] == 1.0


def test_humaneval_asks_chats_in_our_words(tmp_path: Path) -> None:
    """Catches another prompt than that of `revelm eval`."""
    path = write_rows(tmp_path / "humaneval.jsonl", HUMANEVAL)
    task = HumanEval(data=path)
    asked = [task.prompt(problem)[-1]["content"] for problem in task.problems("test")]
    assert humaneval(humaneval=path)["test"]["asked"] == asked
    assert "def twice(x):" in asked[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"treshold": 0.9}, "did you mean 'threshold'"),
        ({"rule": "statc"}, "static"),
        ({"rule": "static", "threshold": 0.5}, "threshold"),
        ({"cache": "prefix"}, "block attention"),
        ({"num_slots": 0}, "num_slots"),
        ({"block_size": 0}, "block_size"),
        ({"device": "cuda:7"}, "device is 'cuda:7'"),
    ],
)
def test_wrong_arguments_are_named(checkpoint: str, options: dict[str, Any], said: str) -> None:
    """Catches a word that is taken and does nothing."""
    with pytest.raises(ValueError, match=said):
        RevelmLM(checkpoint, **options)


def test_wrong_settings_of_a_request_are_named(model: RevelmLM) -> None:
    """Catches --gen_kwargs that change nothing."""
    with pytest.raises(ValueError, match="num_beams"):
        read_wish({"until": [], "num_beams": 4}, model.spec, model.tokenizer, seed=0)
    assert read_wish({"until": [], "num_beams": 1}, model.spec, model.tokenizer, seed=0).sampling.temperature == 0
    with pytest.raises(ValueError, match="top_p"):
        read_wish({"until": [], "top_p": 1.5, "do_sample": True}, model.spec, model.tokenizer, seed=0)


def test_autoregressive_models_are_sent_elsewhere(tmp_path: Path) -> None:
    """Catches a bound in the place of a likelihood that has a closed form, and an error in the middle of a run."""
    with pytest.raises(ValueError, match="autoregressive"):
        RevelmLM(str(save_tiny(tmp_path, model_type="qwen3")))


def test_files_that_are_not_named_are_asked_for() -> None:
    """Catches an attempt to reach the hub where a file was forgotten."""
    with pytest.raises(ValueError, match="--metadata gsm8k=FILE"):
        manager().load(["gsm8k_local"])


def test_the_command_adds_what_the_harness_must_know() -> None:
    """Catches our tasks that are not found, and a default device that is not there."""
    words = ["--tasks", "gsm8k_local"]
    assert arguments(words, has_cuda=True) == [*words, "--include_path", str(TASKS)]
    assert arguments(words, has_cuda=False)[-2:] == ["--device", "cpu"]
    assert arguments(["run", *words, "--device=cuda:1"], has_cuda=False)[-1] == str(TASKS)
    assert arguments(["ls", "tasks"], has_cuda=False) == ["ls", "tasks", "--include_path", str(TASKS)]
    assert arguments(["--include_path", "mine", *words], has_cuda=True) == ["--include_path", "mine", *words]
    assert arguments(["--help"], has_cuda=True) == ["--help"]


def test_batch_sizes_are_told_to_do_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Catches a user who waits for a batch size to make a difference; the harness's own 1 is none."""
    LmEvalSpec(pretrained="m", batch_size=1).warn_of_batches()
    assert caplog.records == []
    LmEvalSpec(pretrained="m", batch_size=16).warn_of_batches()
    assert "num_slots=64 decides" in caplog.text
