"""The one loop of training: take a step, write it down, evaluate and save when it is time, stop politely.

What a step is differs between supervised and reinforcement learning, and nothing else does. Under several processes
all of them take every step; they agree on whether to stop, so that none waits for another for ever.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from revelm.trainers.best import keep_best, metric_of
from revelm.trainers.closing import close_session
from revelm.trainers.evaluation import Evaluation, evaluate_run
from revelm.trainers.run_log import RunLog, interruptible
from revelm.trainers.session import Session
from revelm.trainers.trackers import Trackers, open_trackers

Step = Callable[[RunLog], Mapping[str, Any]]


def train(session: Session, phase: str, step: Step, evaluation: Evaluation | None, *, shows: str) -> Path:
    """Take steps until as many are done as the run has; returns the run directory.

    ``step`` trains and returns its metrics; it may say things in the log. ``evaluation``: every ``eval_every`` steps.
    ``shows``: the metric beside the progress bar. KeyboardInterrupt after a saved, polite stop.
    """
    total, is_stopped = session.train.steps, False
    with session.world.together():
        log = _log(session, phase)
    with log, interruptible() as interrupt:
        while session.step < total and not is_stopped:
            began = perf_counter()
            metrics = step(log)
            session.step += 1
            with session.world.together():
                log.write(session.step, {**metrics, "seconds": perf_counter() - began})
            _check_finite(session)
            log.show(session.step, f"{shows} {metrics[shows]:.3f}" if shows in metrics else "")
            if evaluation is not None and session.is_due(session.config.eval_every):
                _evaluate(session, evaluation, log)
            is_stopped = session.world.any(interrupt.is_requested)
            if session.is_due(session.train.save_every):
                session.save()
    close_session(session, is_interrupted=is_stopped)
    return session.run


def _log(session: Session, phase: str) -> RunLog:
    """The run's log; only the main process writes, and only it has trackers."""
    trackers, is_main = Trackers({}), session.world.is_main
    places = {"total": session.train.steps, "start": session.step}
    if is_main:
        trackers = open_trackers(session.run, session.config.trackers, config=session.config, start=session.step)
    return RunLog(session.run, phase=phase, trackers=trackers, is_main=is_main, **places)


def _check_finite(session: Session) -> None:
    """Stop, at the end of a step, where updates are left out again and again; what was trained is saved first."""
    try:
        session.check_finite()
    except FloatingPointError:  # of all processes at once
        session.save()
        raise


def _evaluate(session: Session, evaluation: Evaluation, log: RunLog) -> None:
    """Evaluate and log; keep the best checkpoint. When it fails, the steps trained so far are saved first."""
    try:
        with session.gathered():
            settings = evaluate_run(evaluation, session.plain, session.tokenizer, log=log, step=session.step)
    except Exception:  # of all processes at once
        session.save()
        raise
    if (spec := session.config.best) is None:
        return
    if metric_of(settings, spec) is None:
        log.say(f"best: the evaluation has no {spec.metric}; it is nobody's best")

    def save(told: Mapping[str, Any]) -> None:
        session.cursor["best"] = told
        session.saved = -1 if session.saved == session.step else session.saved
        session.save()

    keep_best(session.run, session.step, spec, settings, save=save, world=session.world)
