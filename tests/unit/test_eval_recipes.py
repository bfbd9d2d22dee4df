"""Recipes of published scores: the numbers are the published ones, each with its source, and so are the settings."""

import json
from pathlib import Path

import pytest

from revelm.core.config import load_config, read_yaml
from revelm.core.registry import build
from revelm.core.types import Family, Problem
from revelm.engine.named_caches import cache_for
from revelm.eval.config import EvalConfig, SettingSpec
from revelm.eval.evaluation import evaluate_config
from revelm.eval.jobs import Job, jobs_of
from tests.families import LLADA as LLADA_SIZES
from tests.tiny_checkpoint import save_tiny

FOLDER = Path(__file__).parents[2] / "recipes" / "eval"
RECIPES = sorted(FOLDER.glob("*.yaml"))
TASKS = ("math500", "aime2024", "gsm8k", "livecodebench", "livebench_coding")
SETTINGS = ("static", "dynamic")
NUM_PROBLEMS = {"math500": 500, "aime2024": 30, "gsm8k": 1319, "livecodebench": 511}
# TraceRL, arXiv 2509.06949v1, Table 2: static / dynamic in per cent, in the order of TASKS.
TABLE = {
    "Gen-Verse/TraDo-4B-Instruct": "75.6/71.8 8.3/10.3 91.2/90.3 18.7/15.1 12.9/10.4",
    "Gen-Verse/TraDo-8B-Instruct": "78.5/75.5 13.3/11.0 92.3/91.2 25.9/22.4 22.7/20.6",
    "Gen-Verse/TraDo-8B-Thinking": "-/87.4 -/35.5 -/94.2 -/34.6 -/36.0",
    "JetLM/SDAR-4B-Chat": "70.2/67.4 5.0/8.2 90.2/88.9 15.6/11.2 14.0/7.6",
    "JetLM/SDAR-8B-Chat": "74.3/70.7 11.8/8.3 91.1/90.4 18.5/15.3 11.5/11.2",
    "GSAI-ML/LLaDA-8B-Instruct": "37.3/38.3 0.5/1.7 82.5/82.5 5.9/5.5 4.9/6.0",
    "Dream-org/Dream-v0-Instruct-7B": "38.7/32.3 -/- 72.7/57.8 10.7/4.7 10.7/4.9",
}
LIMITS = {"Gen-Verse/TraDo-8B-Thinking": 30_000, "GSAI-ML/LLaDA-8B-Instruct": 1024}
STYLES = {
    "Gen-Verse/TraDo-8B-Thinking": "think",
    "GSAI-ML/LLaDA-8B-Instruct": "instruction_first",
    "Dream-org/Dream-v0-Instruct-7B": "instruction_first",
}
CODE = {"livecodebench": "LiveCodeBench", "livebench_coding": "LiveBench"}
ATTENTION = {"GSAI-ML": "full", "Dream-org": "full"}


def jobs(recipe: Path) -> dict[str, Job]:
    return {job.name: job for job in jobs_of(load_config(EvalConfig, recipe, []))}


def published(model: str) -> dict[tuple[str, str], float]:
    """Accuracies of the table, by task and setting."""
    cells = zip(TASKS, TABLE[model].split(), strict=True)
    found = {(task, name): x for task, cell in cells for name, x in zip(SETTINGS, cell.split("/"), strict=True)}
    return {key: float(x) / 100 for key, x in found.items() if x != "-"}


def test_every_published_model_has_a_recipe() -> None:
    """Catches a model that was forgotten, or is there twice."""
    assert sorted(read_yaml(recipe)["model"] for recipe in RECIPES) == sorted(TABLE)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.stem)
def test_expected_values_are_the_published_ones(recipe: Path) -> None:
    """Catches a slip of the pen, a value without its source, and a protocol with other numbers of answers."""
    model = read_yaml(recipe)["model"]
    found = {}
    for name, job in jobs(recipe).items():
        runs = 20 if name == "aime2024" else 3
        assert job.asked.samples_per_problem == runs
        assert job.asked.split == "test"
        assert job.asked.num_problems is None
        for setting, value in job.expected.items():
            assert value.source == "TraceRL, arXiv 2509.06949v1, Table 2"
            assert value.num_answers == (NUM_PROBLEMS[name] * runs if name in NUM_PROBLEMS else None)
            found[name, setting] = value.accuracy
    assert found == pytest.approx(published(model))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.stem)
def test_every_expectation_is_measured(recipe: Path) -> None:
    """Catches a task that cannot be built, a setting that is asked for nothing, and one that no engine can decode."""
    config = load_config(EvalConfig, recipe, [])
    for name, job in jobs(recipe).items():
        task = build("tasks", job.spec, field=job.address)
        assert task.name == ("code" if name in CODE else name)
        assert set(job.asked.named_settings()) == set(job.expected)
        for setting in job.asked.named_settings().values():
            assert setting.sampling().max_new_tokens is not None
    is_full = config.model.partition("/")[0] in ATTENTION
    family = Family(
        name="m",
        attention="full" if is_full else "block",
        is_shifted=False,
        block_size=None if is_full else 4,
        vocab_size=9,
        mask_id=1,
        pad_id=0,
        stop_ids=(2,),
        max_length=4096,
    )
    cache_for(family, config.cache)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.stem)
def test_settings_are_those_of_the_paper(recipe: Path) -> None:
    """Catches a temperature, a threshold, a block or a limit of another protocol."""
    config = load_config(EvalConfig, recipe, [])
    assert (config.dtype, config.device, config.seed) == ("bfloat16", "cuda", 0)
    for name, job in jobs(recipe).items():
        is_code = name in CODE
        dream = config.model.startswith("Dream")
        limit = (1024 if is_code else 1600) if dream else LIMITS.get(config.model, 2000)
        for setting_name, setting in job.asked.named_settings().items():
            assert setting.max_new_tokens == limit
            check = check_block if config.model.partition("/")[0] not in ATTENTION else check_full
            check(setting, is_static=setting_name == "static", is_dream=dream)
        style = None if is_code else STYLES.get(config.model)
        assert job.spec.get("style") == style


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.stem)
def test_questions_are_in_the_words_of_the_authors(recipe: Path) -> None:
    """Catches an instruction of our own, or one at another place, beside numbers that were measured with theirs."""
    model = read_yaml(recipe)["model"]
    is_thinking = model.endswith("Thinking")
    boxed = "You need to put your final answer in \\boxed{}. This is the problem:\n1+1?"
    if model not in STYLES:
        boxed = "1+1?\nPlease reason step by step, and put your final answer within \\boxed{}."
    gap = " " if "LLaDA" in model else ""
    program = (
        f"This is the problem:\n1+1?\n{gap}You should put your code in ```python ```. "
        "Use input() to read input and print() to produce output in your script. "
    )
    for name, job in jobs(recipe).items():
        task = build("tasks", job.spec, field=job.address)
        asked = task.prompt(Problem("1", "1+1?", "2", {"asked": "1+1?", "is_stdio": True}))
        opening = [{"role": "assistant", "content": "<think>\n"}] if is_thinking else []
        assert asked == [{"role": "user", "content": program if name in CODE else boxed}, *opening]
        if name in CODE:
            assert job.spec["test_data"] == f"hf://datasets/Gen-Verse/{CODE[name]}/test/{CODE[name]}.json"


def check_block(setting: SettingSpec, *, is_static: bool, is_dream: bool) -> None:
    assert not is_dream
    assert setting.block_size == 4
    assert setting.temperature == (0.0 if is_static else 1.0)
    rule = {"kind": "static", "tokens_per_step": 1} if is_static else {"kind": "dynamic", "threshold": 0.9}
    assert setting.rule == rule
    assert (setting.top_k, setting.top_p) == (0, 1.0)


def check_full(setting: SettingSpec, *, is_static: bool, is_dream: bool) -> None:
    assert setting.block_size == 32
    assert setting.temperature == 0.1
    assert (setting.top_k, setting.top_p) == ((40, 0.95) if is_dream else (0, 1.0))
    if is_dream:
        assert setting.rule == ({"kind": "static", "tokens_per_step": 1} if is_static else DYNAMIC)
    else:
        assert setting.rule == {"kind": "untempered", "threshold": 1.0 if is_static else 0.95}


DYNAMIC = {"kind": "dynamic", "threshold": 0.95}


@pytest.mark.parametrize("name", ["eval-trado-8b-thinking", "eval-llada", "eval-dream"])
def test_a_recipe_runs_from_local_files(name: str, tmp_path: Path) -> None:
    """Catches a recipe that is read and cannot be run: a cache, a rule or a window that its model does not go with."""
    recipe = FOLDER / f"{name}.yaml"
    kind = {"eval-llada": LLADA, "eval-dream": {"model_type": "Dream"}}.get(name, {})
    save_tiny(tmp_path / "model", **{**kind, "max_position_embeddings": 512, "max_sequence_length": 512})
    record = {"question": "Add one.", "test_input": ["1\n"], "test_output": ["2\n"]}
    (tmp_path / "programs.json").write_text(json.dumps([record]), encoding="utf-8")
    words = [f"model={tmp_path / 'model'}", "device=cpu", "dtype=float32", "num_problems=1", "n=1"]
    for task in read_yaml(recipe)["tasks"]:
        data = f"test_data={tmp_path / 'programs.json'}" if task in CODE else "data=sample"
        words += [f"tasks.{task}.task.{data}", f"tasks.{task}.max_new_tokens=8", f"tasks.{task}.samples_per_problem=1"]
    found = evaluate_config(load_config(EvalConfig, recipe, words))
    for task, result in found["tasks"].items():
        assert set(result["settings"]) == set(read_yaml(recipe)["settings"])
        for setting, numbers in result["settings"].items():
            assert numbers["errors"] == {"mean": 0.0, "low": 0.0, "high": 1.0, "n": 1}
            known = published(read_yaml(recipe)["model"])[task, setting]
            assert numbers["expected"]["accuracy"] == pytest.approx(known)


LLADA = {
    **LLADA_SIZES,
    "model_type": "llada",
    "architectures": ["LLaDAModelLM"],
    "vocab_size": 262,
    "embedding_size": 262,
}
