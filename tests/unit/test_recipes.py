"""Every recipe that ships loads, every component it names can be built, and it says how much memory it needs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from revelm.core.config import dump_yaml, load_config, read_yaml
from revelm.core.registry import build
from revelm.core.types import Family
from revelm.data.tokenizer import save_tokenizer
from revelm.eval.config import EvalConfig, EvaluationSpec
from revelm.eval.jobs import jobs_of
from revelm.models.load import read_family
from revelm.trainers.config import RLConfig, SFTConfig
from revelm.trainers.curriculum import CurriculumConfig, check_stages, stages_of
from revelm.trainers.evaluation import plan_evaluation
from revelm.trainers.quickstart import QuickstartConfig, quickstart_config, rl_config, run, sft_config
from revelm.trainers.rl_recipe import check_rl as check_rl_run
from revelm.trainers.rl_recipe import rl_objective
from revelm.trainers.rollouts import Ask
from revelm.trainers.session import Start
from revelm.trainers.sft import check_objective, settle_objective
from tests.official_sizes import SIZES
from tests.recipe_memory import Statement, planned, statements
from tests.tiny_checkpoint import tiny_tokenizer

ROOT = Path(__file__).parents[2]
RECIPES = sorted([*(ROOT / "recipes").glob("**/*.y*ml"), *(ROOT / "src" / "revelm" / "recipes").glob("**/*.y*ml")])
SCHEMAS: dict[str, type[BaseModel]] = {
    "sft": SFTConfig,
    "rl": RLConfig,
    "eval": EvalConfig,
    "quickstart": QuickstartConfig,
    "curriculum": CurriculumConfig,
}
STATED = [(recipe, told) for recipe in RECIPES for told in statements(recipe)]
LAUNCHED = [recipe for recipe in RECIPES if "torchrun" in recipe.read_text(encoding="utf-8")]
NAMED = {recipe: told.model for recipe, told in STATED}
FOR_TINY_MODELS = ("chain",)


def schema_of(recipe: Path) -> type[BaseModel]:
    """The schema that a recipe's name begins with."""
    kind = recipe.stem.split("-")[0]
    assert kind in SCHEMAS, f"{recipe.name}: recipes are named <verb>-<what>.yaml, verbs: {', '.join(SCHEMAS)}"
    return SCHEMAS[kind]


def check_sft(config: SFTConfig) -> None:
    """Everything an SFT run builds before it loads weights."""
    check_objective(config.objective, field="objective")
    assert config.data.path is None, "recipes that ship need no files"
    assert config.task is not None
    assert build("tasks", config.task, field="task").demonstrations(3, config.data.seed)
    assert config.optimizer.warmup_steps < config.train.steps


def check_rl(config: RLConfig) -> None:
    """Everything an RL run builds before it loads weights."""
    build("objectives", config.objective, field="objective")
    assert build("tasks", config.task, field="task").problems("train")
    assert config.rollout.sampling().max_new_tokens == config.rollout.max_new_tokens
    check_eval(config.eval)


def check_eval(spec: EvaluationSpec) -> None:
    """Every decode setting of an evaluation."""
    assert all(setting.sampling() for setting in spec.named_settings().values())


def test_there_are_recipes() -> None:
    """Catches a glob that finds nothing, and with it tests that test nothing."""
    assert {r.name for r in RECIPES} >= {"sft-chain.yaml", "rl-chain.yaml", "quickstart-chain.yaml"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.stem)
def test_recipe_builds(recipe: Path) -> None:
    """Catches a field renamed in the code and not in the recipe, or a value that is out of range."""
    schema = schema_of(recipe)
    if schema is QuickstartConfig:
        config = quickstart_config(recipe.stem.removeprefix("quickstart-"), 3)
        check_sft(sft_config(config, Path("model"), Path("out")))
        check_rl(rl_config(config, Path("model"), Path("out")))
        check_eval(config.eval)
        kind = build("models", {"kind": config.model["model_type"]})
        assert kind.sizes(config.model | {"vocab_size": config.vocab_size}).num_hidden_layers > 0
        facts = {"mask_id": 1, "pad_id": 0, "stop_ids": [2]}
        family = kind.family(config.model | {"vocab_size": config.vocab_size}, facts)
        assert isinstance(family, Family)
        return
    loaded = load_config(schema, recipe, ["model=CHECKPOINT" if schema is EvalConfig else "model.path=CHECKPOINT"])
    if isinstance(loaded, SFTConfig):
        check_sft(loaded)
    elif isinstance(loaded, RLConfig):
        check_rl(loaded)
    elif isinstance(loaded, CurriculumConfig):
        for stage in stages_of(loaded):
            (check_sft if stage.kind == "sft" else check_rl)(stage.config)
    elif isinstance(loaded, EvalConfig):
        for job in jobs_of(loaded):
            build("tasks", job.spec, field=job.address)
            check_eval(job.asked)


@pytest.mark.parametrize("recipe", LAUNCHED, ids=lambda r: r.stem)
def test_commands_for_several_processes_load(recipe: Path) -> None:
    """Catches an override of a field that is not there, and all weights trained at the rate of an adapter."""
    lines = [line for line in recipe.read_text(encoding="utf-8").splitlines() if f"recipes/{recipe.name}" in line]
    words = next(line for line in lines if "torchrun" in line).partition(recipe.name)[2].split()
    loaded: Any = load_config(schema_of(recipe), recipe, [w for w in words if not w.startswith("data.path")])
    configs = [stage.config for stage in stages_of(loaded)] if isinstance(loaded, CurriculumConfig) else [loaded]
    for config in configs:
        assert config.train.strategy == "fsdp"
        assert config.model.lora is None
        assert config.optimizer.learning_rate == (1e-5 if isinstance(config, SFTConfig) else 1e-6)


@pytest.mark.parametrize(("recipe", "told"), STATED, ids=[f"{r.stem}-{s.model}-{i}" for i, (r, s) in enumerate(STATED)])
def test_stated_memory_is_what_the_plan_says(recipe: Path, told: Statement, tmp_path: Path) -> None:
    """Catches a recipe that was changed, or a plan that has learnt something, and a comment that was not updated:
    `python -m tests.recipe_memory` updates it."""
    assert planned(recipe, told, tmp_path) == pytest.approx(told.number, rel=0.05)


@pytest.mark.parametrize(("recipe", "model"), NAMED.items(), ids=[recipe.stem for recipe in NAMED])
def test_recipes_suit_the_models_they_name(recipe: Path, model: str, tmp_path: Path) -> None:
    """Catches a method for other models, answers longer than a model's positions, and a cache it cannot have."""
    ids = {"pad_token_id": 0, "mask_token_id": 1, "eos_token_id": 2}
    (tmp_path / "config.json").write_text(json.dumps(SIZES[model] | ids), encoding="utf-8")
    save_tokenizer(tiny_tokenizer(), tmp_path)
    loaded: Any = load_config(schema_of(recipe), recipe, [f"model.path={tmp_path}"])
    family = read_family(tmp_path)
    if isinstance(loaded, CurriculumConfig):
        check_stages(loaded, stages_of(loaded))
    elif isinstance(loaded, SFTConfig):
        assert settle_objective(loaded, family).objective
    else:
        task = build("tasks", loaded.task, field="task")
        objective = rl_objective(loaded)
        check_rl_run(Start(loaded, None, family, tiny_tokenizer()), objective, Ask(task, task.problems("train")))
        plan_evaluation(task, loaded.eval, family=family, tokenizer=tiny_tokenizer())


def test_the_configuration_page_lists_all_recipes() -> None:
    """Catches a recipe that nobody finds, and a promised one that is not there."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    section = page.partition("## Recipes that ship\n")[2].partition("\n## ")[0]
    listed = re.findall(r"`((?:sft|rl|curriculum)-[\w-]+)`", section)
    assert set(listed) == {recipe.stem for recipe in (ROOT / "recipes").glob("*.yaml")}


def test_recipes_of_released_models_state_their_memory() -> None:
    """Catches a line that is written otherwise and therefore not read, and a released model without any recipe."""
    silent = {recipe.stem for recipe in (ROOT / "recipes").glob("*.yaml")} - {recipe.stem for recipe, _ in STATED}
    assert {name.rpartition("-")[2] for name in silent} <= set(FOR_TINY_MODELS)
    assert {told.model for _, told in STATED} == set(SIZES)
    for recipe, _ in STATED:
        lines = [line for line in recipe.read_text(encoding="utf-8").splitlines() if "memory" in line and "GiB" in line]
        assert len(lines) == len(statements(recipe))


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda r: r.stem)
def test_recipes_leave_the_model_to_the_user(recipe: Path) -> None:
    """Catches a path of the author's machine, and a missing path that is not named."""
    assert "path" not in (read_yaml(recipe).get("model") or {})
    with pytest.raises(ValueError, match="model"):
        load_config(schema_of(recipe), recipe, [])


def test_a_quickstart_goes_on_only_with_its_own_settings(tmp_path: Path) -> None:
    """Catches --resume with another seed, which would keep the old results under a config.yaml that denies them."""
    config = quickstart_config("chain", 1)
    dump_yaml(config, tmp_path / "config.yaml")
    assert load_config(QuickstartConfig, tmp_path / "config.yaml", []) == config
    with pytest.raises(ValueError, match="has other settings"):
        run(task="chain", seed=2, out=str(tmp_path), resume=True)


def test_quickstart_folders_are_taken_as_they_are_spelt() -> None:
    """Catches a folder name that is read as YAML: everything behind " #" would be dropped."""
    config, folder = quickstart_config("chain", 0), Path("my runs: #1")
    for found in (
        sft_config(config, folder / "model", folder / "x"),
        rl_config(config, folder / "model", folder / "x"),
    ):
        assert (found.model.path, found.out) == (str(folder / "model"), str(folder / "x"))
