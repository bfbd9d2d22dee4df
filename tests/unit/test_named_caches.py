"""Caches in the words of recipes and command lines, on their way to the engine of evaluations and rollouts."""

from pathlib import Path
from typing import Any

import pytest

from revelm.core.config import load_config
from revelm.engine.engine import Engine
from revelm.engine.named_caches import NAMES, cache_for, read_cache
from revelm.engine.settings import NAMED, Approximate, Exact, Uncached, cache_of
from revelm.eval.config import EvalConfig
from revelm.eval.evaluation import evaluate_config
from revelm.trainers import evaluation, rl
from revelm.trainers.config import RLConfig
from revelm.trajectories.store import read_trajectories
from tests.families import save_family, tiny

TASK = "task=tests.toy_tasks:Parity"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("dual", NAMED["dual"]),
        ("vicinity", Approximate("vicinity", warmup_steps=4)),
        ({"kind": "vicinity", "after": 8}, Approximate("vicinity", warmup_steps=4, after=8)),
        ({"kind": "exact", "page_size": 64, "num_pages": 4096}, Exact(page_size=64, num_pages=4096)),
        ({"kind": "exact", "commit": "separate", "reuses_prefixes": True}, Exact("separate", reuses_prefixes=True)),
        ("none", Uncached()),
        ("auto", "auto"),
    ],
)
def test_words_become_settings(spec: Any, expected: Any) -> None:
    """Catches a mapping that forgets what its name stands for, and fields that are dropped."""
    assert read_cache(spec) == expected


def test_every_name_of_the_engine_is_a_word() -> None:
    """Catches a cache that Python callers have and recipes do not, or the other way round."""
    for name in NAMES:
        family = tiny("sdar" if name in ("auto", "exact") else "llada").family
        assert cache_for(family, name) == cache_of(family, name, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("daul", "^kind: 'daul' is not known; did you mean 'dual'"),
        ({"kind": 3}, "^kind: 3 is not known"),
        ({"page_size": 4}, "^kind: required"),
        ({"kind": "exact", "page_sise": 4}, "^page_sise: unknown field; did you mean 'page_size'"),
        ({"kind": "exact", "page_size": "4"}, "^page_size: must be a valid integer, got '4'"),
        ({"kind": "exact", "page_size": 0}, "^page_size is 0, must be at least 1"),
        ({"kind": "exact", "num_pages": 9}, "^num_pages needs a page_size"),
        ({"kind": "dual", "mode": "prefix"}, "^mode: unknown field"),
        ({"kind": "dual", "refresh_every": -1}, "^refresh_every is -1"),
        ({"kind": "none", "page_size": 4}, "^page_size: unknown field"),
        ({"kind": "auto", "page_size": 4}, "^page_size: kind 'auto' has no fields"),
    ],
)
def test_wrong_words(spec: Any, reason: str) -> None:
    """Catches errors that name no field, or the engine's name for it."""
    with pytest.raises(ValueError, match=reason):
        read_cache(spec)


@pytest.mark.parametrize(
    ("schema", "words", "reason"),
    [
        (RLConfig, ["rollout.cache=daul"], "rollout.cache: kind: 'daul' is not known; did you mean 'dual'"),
        (RLConfig, ["eval.cache={kind: exact, pages: 3}"], "eval.cache: pages: unknown field"),
        (EvalConfig, ["cache={kind: dual, horizon: -1}"], "cache: horizon is -1"),
        (EvalConfig, ["cache=dual", "cache.refresh=8"], "cache: refresh: unknown field; did you mean 'refresh_every'"),
    ],
)
def test_recipes_are_checked_when_they_are_read(schema: Any, words: list[str], reason: str) -> None:
    """Catches a typo that is found after the weights are loaded."""
    base = ["model.path=x", "train.steps=1", "out=x"] if schema is RLConfig else ["model=x"]
    with pytest.raises(ValueError, match=reason):
        load_config(schema, None, [*base, TASK, *words])


def rl_config(model: Path, run: Path, *more: str) -> RLConfig:
    words = [f"model.path={model}", TASK, f"out={run}", "train.steps=2", "rollout.problems_per_step=2"]
    words += ["rollout.group_size=4", "rollout.max_new_tokens=8", "rollout.save_every=1"]
    return load_config(RLConfig, None, [*words, *more])


@pytest.mark.parametrize(
    ("family", "words", "reason"),
    [
        ("llada", ["rollout.cache=exact"], "rollout.cache: engine.cache is 'exact', but llada has full attention"),
        ("sdar", ["rollout.cache=dual"], "rollout.cache: engine.cache is 'dual', which is approximate"),
        ("sdar", ["rollout.cache={kind: exact, page_size: 6}"], "page_size is 6, must be a multiple of the block size"),
        (
            "sdar",
            ["rollout.cache={kind: exact, page_size: 4, num_pages: 2}"],
            "rollout: engine.cache.num_pages is 2, but a request of",
        ),
        (
            "sdar",
            ["eval_every=1", "eval.cache=prefix", "eval.max_new_tokens=4"],
            "eval.cache: engine.cache is 'prefix'",
        ),
        ("llada", ["rollout.cache=dual", "rollout.guidance=1.0"], "rollout: prompt 0: sampling.guidance is 1.0"),
    ],
)
def test_what_the_model_cannot_have_is_refused_without_weights(
    tmp_path: Path, family: str, words: list[str], reason: str
) -> None:
    """Catches a cache, or a request that does not fit into it, that is refused after minutes of loading."""
    model = save_family(family, tmp_path / "model")
    (model / "model.safetensors").unlink()
    config = rl_config(model, tmp_path / "run", *words)
    with pytest.raises(ValueError, match=reason):
        rl.run(config)


def test_rollouts_with_an_approximate_cache_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a field that never reaches the engine, and evaluations that run with the cache of the rollouts."""
    asked: list[Engine] = []
    evaluate = evaluation.evaluate

    def watch(engine: Engine, *rest: Any) -> Any:
        asked.append(engine)
        return evaluate(engine, *rest)

    monkeypatch.setattr(evaluation, "evaluate", watch)
    model = save_family("llada", tmp_path / "model")
    words = ["rollout.cache=dual", "rollout.cache.refresh_every=3", "rollout.block_size=4", "eval_every=2"]
    run = rl.run(rl_config(model, tmp_path / "run", *words, "eval.max_new_tokens=4", "eval.num_slots=3"))
    found = read_trajectories(run / "trajectories" / "step-2.parquet")
    assert all(t.approximate_cache for t in found)
    assert [(engine.cache, engine.num_slots) for engine in asked] == [(Uncached(), 3)]


def test_members_of_a_group_share_one_prefill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches rollouts that read each prompt once per answer, and prompts of old weights that are kept."""
    engines: list[Engine] = []
    make = rl._engine

    def watch(*words: Any) -> Engine:
        engines.append(make(*words))
        return engines[-1]

    monkeypatch.setattr(rl, "_engine", watch)
    model = save_family("sdar", tmp_path / "model")
    words = ["rollout.cache={kind: exact, page_size: 8, reuses_prefixes: true}", "rollout.max_attempts=1"]
    rl.run(rl_config(model, tmp_path / "run", *words, "task.num_train=2", "optimizer.learning_rate=1e-2"))
    (engine,) = engines
    assert engine.cache == Exact(page_size=8, reuses_prefixes=True)
    assert engine.weights_version == 1
    assert engine.stats.prefills == 4


def test_an_evaluation_has_its_cache(tmp_path: Path) -> None:
    """Catches a field that is read and changes nothing, and a summary that does not tell."""
    model = save_family("llada", tmp_path / "model")
    words = [f"model={model}", TASK, "num_problems=2", "max_new_tokens=8", "block_size=4"]
    for cache, is_approximate in (("auto", False), ("prefix", True)):
        result = evaluate_config(load_config(EvalConfig, None, [*words, f"cache={cache}", f"out={tmp_path / cache}"]))
        assert result["cache"] == {"kind": cache}
        found = read_trajectories(tmp_path / cache / "trajectories" / "dynamic.parquet")
        assert all(t.approximate_cache is is_approximate for t in found)
