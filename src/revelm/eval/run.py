"""Evaluate a fixed model on a task under several decode settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from revelm.core.atomic import write_json_atomic
from revelm.core.registry import build
from revelm.core.seeds import derive_seed
from revelm.core.types import Family, Problem, require_diffusion
from revelm.core.validation import dotted
from revelm.decoding.sampling import Sampling
from revelm.engine.engine import Engine
from revelm.engine.named_caches import cache_for, read_cache
from revelm.eval.config import EvalConfig, EvaluationSpec
from revelm.eval.intervals import average, proportion, ratio
from revelm.eval.jobs import jobs_of
from revelm.models.blocks import decoding_family, decoding_model
from revelm.models.load import load_model, load_tokenizer, read_family, resolve_checkpoint
from revelm.rollout.collect import Answer, check_problems, collect
from revelm.tasks.task import Task
from revelm.trajectories.store import write_trajectories


def evaluate_config(config: EvalConfig) -> dict[str, Any]:
    """Load ``config.model``, evaluate, write ``out`` if given; returns what ``evaluate`` does.

    Every problem is checked under every setting before the weights are loaded, so that errors cost nothing.
    """
    (job,) = jobs_of(config)
    task = build("tasks", job.spec, field=job.address)
    problems = select_problems(task, config)
    folder = resolve_checkpoint(config.model)
    tokenizer = load_tokenizer(folder)
    check_evaluation(task, problems, config, family=read_family(folder), tokenizer=tokenizer)
    model = load_model(folder, dtype=config.dtype, device=config.device)
    engine = Engine(model, tokenizer, num_slots=config.num_slots, cache=read_cache(config.cache))
    result = evaluate(engine, task, problems, config)
    answers = result.pop("answers")
    if config.out is not None:
        out = Path(config.out)
        out.mkdir(parents=True, exist_ok=True)
        write_json_atomic(out / "summary.json", result)
        for name, found in answers.items():
            write_trajectories(out / "trajectories" / f"{name}.parquet", [a.trajectory for a in found])
    return result


def select_problems(task: Task, spec: EvaluationSpec) -> list[Problem]:
    """The problems to ask. ValueError when the split is empty."""
    problems = list(task.problems(spec.split))
    if not problems:
        raise ValueError(f"task {task.name!r} has no problems in split {spec.split!r}")
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
        samplings.setdefault(decoding, {})[name] = setting.sampling()
    for decoding, some in samplings.items():
        cache = cache_for(decoding, spec.cache, field=dotted(field, "cache"))
        check_problems(task, problems, some, family=decoding, tokenizer=tokenizer, cache=cache)


def evaluate(engine: Engine, task: Task, problems: Sequence[Problem], spec: EvaluationSpec) -> dict[str, Any]:
    """{"settings": {name: metrics}, "answers": {name: answers}, ...}.

    Metrics: accuracy, tokens_per_forward, length (tokens up to the stop), truncated (share that hit the limit), each
    {"mean", "low", "high", "n"} with 95 % intervals clustered by problem; tokens_per_second (a number, engine time);
    breakdown of scores; "groups": the same accuracy on seen and unseen problems where the task tells them apart.
    """
    settings: dict[str, Any] = {}
    answers: dict[str, list[Answer]] = {}
    for name, setting in spec.named_settings().items():
        began = perf_counter()
        found = collect(
            engine_at(engine, setting.block_size),
            task,
            problems,
            sampling=setting.sampling(),
            group_size=spec.samples_per_problem,
            seed=derive_seed(spec.seed, "evaluate", name),
        )
        seconds = perf_counter() - began
        tokens = sum(a.trajectory.num_tokens for a in found)
        settings[name] = summarise(found) | {"tokens_per_second": tokens / seconds, "seconds": seconds}
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


def engine_at(engine: Engine, block_size: int | None) -> Engine:
    """``engine``, or for a block model with blocks of another size an engine like it on the same weights."""
    model = decoding_model(engine.model, block_size)
    if model is engine.model:
        return engine
    other = Engine(model, engine.tokenizer, num_slots=engine.num_slots, cache=engine.cache, limits=engine.limits)
    other.weights_version = engine.weights_version
    return other


def summarise(answers: Sequence[Answer]) -> dict[str, Any]:
    """The metrics of ``evaluate`` for one setting, without the times."""
    clusters = [a.group for a in answers]
    metrics: dict[str, Any] = {
        "accuracy": proportion([a.score.breakdown["correct"] for a in answers], clusters),
        "tokens_per_forward": ratio(
            [a.trajectory.num_tokens for a in answers], [a.trajectory.num_forwards for a in answers], clusters
        ),
        "length": average([a.trajectory.num_tokens for a in answers], clusters),
        "truncated": proportion([float(a.completion.finish_reason == "length") for a in answers], clusters),
    }
    names = sorted({name for a in answers for name in a.score.breakdown} - {"correct"})
    metrics["breakdown"] = {n: average([a.score.breakdown.get(n, 0.0) for a in answers], clusters) for n in names}
    metrics["groups"] = _seen_and_unseen(answers)
    return metrics


def _seen_and_unseen(answers: Sequence[Answer]) -> Mapping[str, Any]:
    """Accuracy on problems that training had seen, and on those it had not; empty when the task does not tell."""
    if any("seen" not in a.problem.info for a in answers):
        return {}
    parts = {
        "seen": [a for a in answers if a.problem.info["seen"]],
        "unseen": [a for a in answers if not a.problem.info["seen"]],
    }
    return {
        name: {"accuracy": proportion([a.score.breakdown["correct"] for a in part], [a.group for a in part])}
        for name, part in parts.items()
        if part
    }
