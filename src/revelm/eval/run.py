"""Evaluate a fixed model on a task under several decode settings."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from revelm.core.seeds import derive_seed
from revelm.core.types import Family, Problem, require_diffusion
from revelm.core.validation import dotted
from revelm.decoding.sampling import Sampling
from revelm.engine.engine import Engine
from revelm.engine.named_caches import cache_for
from revelm.eval.config import EvaluationSpec
from revelm.eval.metrics import summarise
from revelm.eval.samples import samples_of
from revelm.eval.store import Spent
from revelm.models.blocks import decoding_family, decoding_model
from revelm.rollout.collect import Answer, check_problems, collect
from revelm.tasks.task import AnswerTask, Task


def select_problems(task: Task, spec: EvaluationSpec) -> list[Problem]:
    """The problems to ask. ValueError when the split is empty."""
    problems = list(task.problems(spec.split))
    if not problems:
        raise ValueError(
            f"task {task.name!r} has no problems in split {spec.split!r}; give other data or another split"
        )
    return problems[: spec.num_problems]


def check_evaluation(
    task: Task,
    problems: Sequence[Problem],
    spec: EvaluationSpec,
    *,
    family: Family,
    tokenizer: Any,
    field: str = "",
) -> None:
    """ValueError for what ``evaluate`` would refuse, without weights. ``field``: how errors address ``spec``."""
    require_diffusion(family)
    settings = {dotted(field, "settings", name): setting for name, setting in spec.named_settings().items()}
    samplings: dict[Family, dict[str, Sampling]] = {}
    for name, setting in settings.items():
        decoding = decoding_family(family, setting.block_size, field=dotted(name, "block_size"))
        samplings.setdefault(decoding, {})[name] = setting.sampling(field=dotted(name, "rule"))
    for decoding, some in samplings.items():
        cache = cache_for(decoding, spec.cache, field=dotted(field, "cache"))
        check_problems(task, problems, some, family=decoding, tokenizer=tokenizer, cache=cache)


def evaluate(engine: Engine, task: Task, problems: Sequence[Problem], spec: EvaluationSpec) -> dict[str, Any]:
    """{"settings": {name: metrics}, "answers": {name: answers}, ...}.

    Metrics: those of ``revelm.eval.metrics.summarise``, each {"mean", "low", "high", "n"} with 95 % intervals clustered
    by problem; tokens_per_second (a number), of decoding alone, and seconds, of decoding and judging.
    """
    settings: dict[str, Any] = {}
    answers: dict[str, list[Answer]] = {}
    for name in spec.named_settings():
        found, spent = answers_to(engine, task, problems, spec, setting=name)
        tokens = sum(a.trajectory.num_tokens for a in found)
        numbers = summarise(samples_of(found, task), pass_at=spec.pass_at, is_voting=isinstance(task, AnswerTask))
        settings[name] = numbers | {"tokens_per_second": tokens / spent.decoding, "seconds": spent.total}
        answers[name] = found
    shown = {name: s.model_dump(mode="json") for name, s in spec.named_settings().items()}
    return {
        "task": task.name,
        "num_problems": len(problems),
        "decoding": shown,
        "cache": dict(spec.cache),
        "settings": settings,
        "answers": answers,
    }


def answers_to(
    engine: Engine, task: Task, problems: Sequence[Problem], spec: EvaluationSpec, *, setting: str
) -> tuple[list[Answer], Spent]:
    """The answers to ``problems`` under the setting of that name, and the time that they took."""
    how, began = spec.named_settings()[setting], perf_counter()
    used = engine_at(engine, how.block_size)
    before = used.stats.seconds_total
    found = collect(
        used,
        task,
        problems,
        sampling=how.sampling(),
        group_size=spec.num_answers(setting),
        seed=derive_seed(spec.seed, "evaluate", setting),
    )
    return found, Spent(used.stats.seconds_total - before, perf_counter() - began)


def engine_at(engine: Engine, block_size: int | None) -> Engine:
    """``engine``, or for a block model with blocks of another size an engine like it on the same weights."""
    model = decoding_model(engine.model, block_size)
    if model is engine.model:
        return engine
    other = Engine(model, engine.tokenizer, num_slots=engine.num_slots, cache=engine.cache, limits=engine.limits)
    other.weights_version = engine.weights_version
    return other
