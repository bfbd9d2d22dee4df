"""Evaluation while a run trains: the weights as they are, an engine of their own, rows in the metrics, a sample table.

Every loop calls ``evaluate_run``. What an evaluation would refuse is an error of ``plan_evaluation``, before the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from revelm.core.types import Family, Problem
from revelm.engine.engine import Engine
from revelm.engine.named_caches import read_cache
from revelm.eval.config import EvaluationSpec
from revelm.eval.metrics import summarise
from revelm.eval.run import check_evaluation, evaluate, select_problems
from revelm.eval.samples import samples_of
from revelm.models.language_model import LanguageModel
from revelm.parallel.world import World
from revelm.rollout.collect import Answer
from revelm.tasks.task import Task
from revelm.trainers.run_log import RunLog
from revelm.trainers.samples import write_samples

LOGGED = ("accuracy", "tokens_per_forward", "length", "truncated", "tokens_per_second", "seconds")
LOGGED_WHERE_KNOWN = ("breakdown", "groups")


@dataclass(frozen=True)
class Evaluation:
    """What a run's evaluations ask, the same each time. ``num_samples``: rows of each sample table, 0 for none.

    ``world``: processes that share the problems; answers are the same as those of one.
    """

    task: Task
    problems: Sequence[Problem]
    spec: EvaluationSpec
    num_samples: int = 24
    world: World = field(default_factory=World)


def plan_evaluation(
    task: Task,
    spec: EvaluationSpec,
    *,
    family: Family,
    tokenizer: Any,
    num_samples: int = 24,
    world: World | None = None,
) -> Evaluation:
    """The evaluation of a run. ValueError for a split without problems, and for what could not be asked."""
    problems = select_problems(task, spec)
    check_evaluation(task, problems, spec, family=family, tokenizer=tokenizer, field="eval")
    return Evaluation(task, problems, spec, num_samples, world or World())


def evaluate_run(
    evaluation: Evaluation,
    model: LanguageModel,
    tokenizer: Any,
    *,
    log: RunLog,
    step: int,
) -> Mapping[str, Any]:
    """Evaluate the weights after ``step`` and log it; returns the metrics of each setting, as ``evaluate`` has them.

    All processes of a run call this and get the same, an error as well; the main one writes. The model is as before
    afterwards, in training mode or not.
    """
    spec, was_training = evaluation.spec, model.training
    model.eval()
    try:
        engine = Engine(model, tokenizer, num_slots=spec.num_slots, cache=read_cache(spec.cache))
        settings, answers = _evaluated(engine, evaluation)
    finally:
        model.train(was_training)
    with evaluation.world.together():
        _log_evaluation(settings, answers, log, step, evaluation=evaluation, tokenizer=tokenizer)
    return settings


def _log_evaluation(
    settings: Mapping[str, Any],
    answers: Mapping[str, list[Answer]],
    log: RunLog,
    step: int,
    *,
    evaluation: Evaluation,
    tokenizer: Any,
) -> None:
    """Rows of metrics and the table of answers."""
    for name, metrics in settings.items():
        shown = {key: metrics[key] for key in LOGGED}
        shown |= {key: metrics[key] for key in LOGGED_WHERE_KNOWN if metrics[key]}
        log.write(step, {"at": log.phase, "setting": name, **shown}, phase="eval")
    if log.is_main:
        write_samples(log.run, step, answers, tokenizer=tokenizer, limit=evaluation.num_samples)


def _evaluated(engine: Engine, evaluation: Evaluation) -> tuple[dict[str, Any], dict[str, list[Answer]]]:
    """Metrics and answers by setting, over the answers of all processes in the order of the problems."""
    task, problems, spec, world = evaluation.task, evaluation.problems, evaluation.spec, evaluation.world
    if world.size == 1:
        result = evaluate(engine, task, problems, spec)
        return result["settings"], result["answers"]
    mine = range(world.rank, len(problems), world.size)
    own: dict[str, Any] = {"answers": {}, "settings": {}}
    with world.together():
        if mine:
            own = evaluate(engine, task, [problems[i] for i in mine], spec)
    numbered = {name: [replace(a, group=mine[a.group]) for a in found] for name, found in own["answers"].items()}
    seconds = {name: metrics["seconds"] for name, metrics in own["settings"].items()}
    parts = world.gather((numbered, seconds))
    answers, settings = {}, {}
    for name in spec.named_settings():
        found = sorted((a for told, _ in parts for a in told.get(name, ())), key=lambda a: a.group)
        spent = max(took.get(name, 0.0) for _, took in parts)
        tokens = sum(a.trajectory.num_tokens for a in found)
        answers[name] = found
        settings[name] = summarise(samples_of(found, task), pass_at=spec.pass_at) | {
            "tokens_per_second": tokens / spent,
            "seconds": spent,
        }
    return settings, answers
