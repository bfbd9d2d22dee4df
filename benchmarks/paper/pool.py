"""All jobs of some experiments over a few processes, one thread each."""

from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks.paper.arms import EXPERIMENTS, NOT_RL, RL_ARMS, experiments_with
from benchmarks.paper.experiments import Job, base_of, run_job
from benchmarks.paper.place import Place, hold_to_protocol
from benchmarks.paper.restore import known_compute
from benchmarks.paper.training import trained, tuned_start


def run_all(
    names: tuple[str, ...], place: Place, *, seeds: tuple[int, ...] | None, arms: set[str] | None, workers: int
) -> bool:
    """Run all missing jobs of the experiments; returns whether none failed.

    Starts come first, one by one per base and seed, and the arms whose compute is the budget of others; then jobs seed
    by seed, so that an interrupted series leaves whole seeds. A job that fails is named, and the others go on.
    ValueError when ``place`` holds results of another protocol.
    """
    hold_to_protocol(place)
    jobs = [
        Job(name, arm, seed, place)
        for name in names
        for seed in seeds or EXPERIMENTS[name].seeds
        for arm in EXPERIMENTS[name].arms
        if arms is None or arm in arms
    ]
    missing = [job for job in jobs if not job.is_done]
    starts = list(dict.fromkeys((base_of(job.experiment, job.arm), job.seed) for job in missing))
    budgets = list(dict.fromkeys((arm, job.seed) for job in missing if (arm := reference_of(job)) is not None))
    budgets = [(arm, seed) for arm, seed in budgets if known_compute(arm, seed, place, experiments_with(arm)) is None]
    failed = 0
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        tasks: dict[Future[Any], str] = {}
        tasks |= {pool.submit(tuned_start, base, seed, place): f"start {base}, seed {seed}" for base, seed in starts}
        tasks |= {pool.submit(trained, arm, seed, place): f"budget {arm}, seed {seed}" for arm, seed in budgets}
        tasks |= {pool.submit(run_job, job): f"{job.experiment}, {job.arm}, seed {job.seed}" for job in missing}
        for number, task in enumerate(as_completed(tasks), 1):
            error = task.exception()
            failed += error is not None
            said = "done" if error is None else f"failed: {type(error).__name__}: {error}"
            print(f"[{number} of {len(tasks)}] {tasks[task]}: {said}", flush=True)
    return not failed


def reference_of(job: Job) -> str | None:
    """The arm whose compute the arm of a job is to spend; None where it has no budget."""
    return RL_ARMS[job.arm].budget if job.experiment not in NOT_RL else None


def _one_thread() -> None:
    torch.set_num_threads(1)
