"""One evaluation of a checkpoint: every task under every setting, in batches that are kept, by any number of processes.

Each answer's seed comes from (seed, setting, problem, number of the answer) alone, so that neither batches, nor a
stop, nor the number of processes change what is found.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from revelm.core.atomic import write_json_atomic, write_text_atomic
from revelm.core.registry import build
from revelm.core.types import Problem
from revelm.engine.engine import Engine
from revelm.engine.named_caches import read_cache
from revelm.eval.agreement import agreement
from revelm.eval.batches import Asked, Tell, answer_all, times
from revelm.eval.config import EvalConfig
from revelm.eval.environment import environment
from revelm.eval.finished import finished_in
from revelm.eval.identity import SUMMARY, alone_in, begin, state_of
from revelm.eval.jobs import Job, jobs_of, resolved
from revelm.eval.metrics import summarise
from revelm.eval.run import check_evaluation, select_problems
from revelm.eval.samples import in_order
from revelm.eval.store import forget_parts, join_parts
from revelm.eval.tables import summary_markdown
from revelm.models.load import load_model, load_tokenizer, read_family, resolve_checkpoint
from revelm.parallel.world import World, joined
from revelm.tasks.task import AnswerTask, Task
from revelm.viz.evaluation_page import write_evaluation_page


def evaluate_config(config: EvalConfig, *, tell: Tell | None = None) -> dict[str, Any]:
    """Evaluate ``config.model`` and keep everything in ``out``, if given; returns the summary, in every process.

    The summary: of a single task what ``revelm.eval.run.evaluate`` says, without answers; of several ``tasks``: name ->
    the same. In either case ``model``, ``environment`` and, per setting, ``expected`` where something is expected.
    Everything is checked under every setting before the weights are loaded, so that errors cost nothing.
    """
    folder = resolve_checkpoint(config.model)
    tokenizer, family = load_tokenizer(folder), read_family(folder)
    every = []
    for job in jobs_of(config):
        task = build("tasks", job.spec, field=job.address)
        problems = _problems(job, task)
        where = job.address.rpartition(".")[0]
        check_evaluation(task, problems, job.asked, family=family, tokenizer=tokenizer, field=where)
        every.append(Asked(job, task, problems, None if config.out is None else Path(config.out) / job.folder))
    with joined(config.device) as world, ExitStack() as held:
        finished = None
        with world.together():
            if config.out is not None and world.is_main:
                held.enter_context(alone_in(Path(config.out)))
                finished = _begun(config, folder, every)
        summary = world.broadcast(finished)
        if summary is None:
            model = load_model(folder, dtype=config.dtype, device=str(world.device))
            engine = Engine(model, tokenizer, num_slots=config.num_slots, cache=read_cache(config.cache))
            results = {one.job.name: _task_result(one, engine, config, world, tell=tell) for one in every}
            summary = next(iter(results.values())) if config.task is not None else {"tasks": results}
            summary |= {"model": config.model, "seed": config.seed}
            summary |= {"environment": environment(world, dtype=config.dtype)}
        _expect(summary, every)
        with world.together():
            if config.out is not None and world.is_main:
                _write(Path(config.out), summary, every)
    return summary


def _problems(job: Job, task: Task) -> list[Problem]:
    """The problems of a task; errors about its data say which of several tasks it is."""
    try:
        return select_problems(task, job.asked)
    except ValueError as error:  # a boundary: data of others
        if not job.folder:
            raise
        raise ValueError(f"{job.address.rpartition('.')[0]}: {error}") from error


def _begun(config: EvalConfig, checkpoint: Path, every: Sequence[Asked]) -> dict[str, Any] | None:
    """Begin in ``config.out``, or see that it is this evaluation; the summary where that is finished."""
    out = Path(str(config.out))
    begin(out, resolved(config), state_of(checkpoint, {one.job.name: (one.task, one.problems) for one in every}))
    return finished_in(out, every) if (out / SUMMARY).is_file() else None


def _expect(summary: Mapping[str, Any], every: Sequence[Asked]) -> None:
    """Add to the numbers what was expected of them."""
    for one in every:
        result = summary["tasks"][one.job.name] if "tasks" in summary else summary
        for name, numbers in result["settings"].items():
            numbers.pop("expected", None)
            if name in one.job.expected:
                numbers["expected"] = agreement(numbers["accuracy"], one.job.expected[name])


def _task_result(
    asked: Asked, engine: Engine, config: EvalConfig, world: World, *, tell: Tell | None
) -> dict[str, Any]:
    """The numbers of one task, under all its settings."""
    settings = {}
    named = asked.job.asked.named_settings()
    for name in named:
        parts = answer_all(asked, name, engine, world, save_every=config.save_every, tell=tell)
        samples = in_order(one for part in parts for one in part.samples)
        with world.together():
            if asked.folder is not None and world.is_main:
                join_parts(asked.folder, name, parts, samples)
        is_voting = isinstance(asked.task, AnswerTask)
        settings[name] = summarise(samples, pass_at=asked.job.asked.pass_at, is_voting=is_voting) | times(parts)
    return {
        "task": asked.task.name,
        "num_problems": len(asked.problems),
        "samples_per_problem": asked.job.asked.samples_per_problem,
        "answers_per_problem": {name: asked.job.asked.num_answers(name) for name in named},
        "decoding": {name: setting.model_dump(mode="json") for name, setting in named.items()},
        "cache": dict(config.cache),
        "settings": settings,
    }


def _write(out: Path, summary: Mapping[str, Any], every: Sequence[Asked]) -> None:
    """What is made of everything; then the parts are no longer needed."""
    write_text_atomic(out / "summary.md", summary_markdown(summary))
    write_evaluation_page(out, summary)
    write_json_atomic(out / SUMMARY, summary)
    for asked in every:
        assert asked.folder is not None
        forget_parts(asked.folder)
