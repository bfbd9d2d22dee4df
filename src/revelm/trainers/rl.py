"""Reinforcement learning: problems in, answers out, credit, update; engine and trainer run the same module.

Problems come from a seeded endless stream whose cursor is saved; answers are seeded by (run, place in the stream,
problem, number). A resumed run therefore goes on bit for bit. Groups whose answers all score the same teach nothing and
are left out; when none is left the step draws further problems, and a run without a single update is an error: at its
end, or as soon as its first ``MAX_IDLE_STEPS`` steps have learnt nothing.
"""

from pathlib import Path
from time import perf_counter
from typing import Any

from revelm.core.errors import RunError
from revelm.core.registry import build
from revelm.engine.engine import Engine
from revelm.engine.named_caches import read_cache
from revelm.models.blocks import decoding_model
from revelm.parallel import world
from revelm.rollout.open_rewards import check_rewards, open_rewards
from revelm.trainers.config import RLConfig
from revelm.trainers.critic import check_value_path
from revelm.trainers.evaluation import plan_evaluation
from revelm.trainers.learning import learn
from revelm.trainers.loop import train
from revelm.trainers.rl_recipe import check_rl, fitting, rl_objective
from revelm.trainers.rollouts import Ask, Asker, rollout_metrics
from revelm.trainers.run_log import RunLog
from revelm.trainers.session import Session, find_start, open_session
from revelm.trainers.trackers import check_trackers
from revelm.trajectories.store import write_trajectories

MAX_IDLE_STEPS = 20


def run(config: RLConfig) -> Path:
    """Train as ``config`` says; returns the run directory. KeyboardInterrupt after a saved, polite stop."""
    objective = rl_objective(config)
    check_trackers(config.trackers)
    task = build("tasks", config.task, field="task")
    ask = Ask(task, list(task.problems("train")))
    with world.joined(config.model.device) as processes:
        start = find_start(config, world=processes)
        ask = fitting(start, ask)
        objective = check_rl(start, objective, ask)
        check_rewards(config.reward, task)
        if config.value is not None and start.latest is None:
            check_value_path(config.value, start.family)
        evaluation = None
        if config.eval_every:
            parts = {"family": start.family, "tokenizer": start.tokenizer, "world": processes}
            evaluation = plan_evaluation(task, config.eval, num_samples=config.eval_samples, **parts)
        updates, needs = config.updates_per_step, objective.needs
        session = open_session(start, updates_per_step=updates, world=processes, value=config.value, needs=needs)
        session.cursor.setdefault("problems_drawn", 0)
        sources = open_rewards(config.reward, task, seed=config.train.seed)
        asker = Asker(ask, objective, config, processes, sources)
        engine = _engine(session, config)
        return train(session, "rl", lambda log: _step(session, engine, asker, log), evaluation, shows="reward")


def _step(session: Session, engine: Engine, asker: Asker, log: RunLog) -> dict[str, Any]:
    """One round: answers, credit, updates. Draws further problems while there is too little to learn from."""
    began, config = perf_counter(), asker.config
    engine.weights_version = session.optimizer.updates
    session.model.eval()
    try:
        with session.gathered():
            found = asker.draw(engine, step=session.step, drawn=session.cursor["problems_drawn"])
    except Exception:  # of all processes at once; a judge that died costs no step that was trained
        if session.step:
            session.save()
        raise
    metrics: dict[str, Any] = {**rollout_metrics(found.answers), **found.counts}
    metrics |= {"num_trained": float(len(found.episodes)), "seconds_rollout": perf_counter() - began}
    if session.is_due(config.rollout.save_every):
        with session.world.together():
            if session.world.is_main:
                file = session.run / "trajectories" / f"step-{session.step + 1}.parquet"
                write_trajectories(file, [a.trajectory for a in found.answers])
    if not found.episodes:
        log.say(f"step {session.step + 1}: no answers carried a signal (all groups scored alike); no update")
        _check_idle(session)
    else:
        metrics |= learn(session, asker.objective, found.episodes, config)
    session.cursor["problems_drawn"] = found.problems_drawn  # last: until a step is whole, none of it has been
    return metrics


def _check_idle(session: Session) -> None:
    """RunError when this step is at least the ``MAX_IDLE_STEPS``-th and nothing was trained yet."""
    critic = session.critic.optimizer if session.critic is not None else None
    updates = session.optimizer.updates + (0 if critic is None else critic.updates)
    if updates == 0 and session.step + 1 >= MAX_IDLE_STEPS:
        raise RunError(
            f"no answer of the first {session.step + 1} steps carried a signal, so nothing was learnt: every group's "
            "answers score alike. Take a model or problems of which some answers are right and some wrong, larger "
            "rollout.group_size or max_new_tokens, or a wider objective.group_range"
        )


def _engine(session: Session, config: RLConfig) -> Engine:
    """An engine on the weights that are trained, perhaps decoding in other blocks."""
    spec = config.rollout
    model = decoding_model(session.plain, spec.block_size)
    return Engine(model, session.tokenizer, num_slots=spec.num_slots, cache=read_cache(spec.cache))
