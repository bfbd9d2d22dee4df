"""Verdicts while other answers are being decoded, or after: the seconds of one round of rollouts.

Worksheets of ``chain``, answered by the quickstart's fine-tuned model and judged as programs in the sandbox, or by
mathematics (``--verdict math``). There are more answers than slots, as on a real model, so that some end long before
others. The three ways take turns; each line is the median of its rounds. ``--threads``: of the engine; with one for
each core workers have none of their own.

    python -m benchmarks.rewards_meanwhile --out runs/rewards-rl
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from benchmarks.rewards_rl import tuned_model
from revelm.decoding.dynamic import Dynamic
from revelm.decoding.sampling import Sampling
from revelm.engine.engine import Engine
from revelm.models.load import checkpoint_path, load_model, load_tokenizer
from revelm.rollout.collect import Answer, collect, collect_meanwhile
from revelm.tasks.chain import Chain
from revelm.trainers.quickstart import quickstart_config

SAMPLING = Sampling(temperature=1.0, rule=Dynamic(threshold=0.9), max_new_tokens=48)


def seconds_of(work: Callable[[], list[Answer]]) -> tuple[float, int]:
    """How long it takes, and how many of the answers are different."""
    began = perf_counter()
    found = work()
    return perf_counter() - began, len({(answer.problem.id, answer.completion) for answer in found})


def measure(engine: Engine, guarded: Chain, *, problems: int, group_size: int, rounds: int) -> list[str]:
    """A table in Markdown. ``guarded``: the task whose verdicts workers reach."""
    ways = {
        "decoding, verdicts by text": (collect, Chain()),
        f"decoding, then {guarded.verdict}": (collect, guarded),
        f"{guarded.verdict} meanwhile": (collect_meanwhile, guarded),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    different = 0
    for number in range(rounds + 1):
        for name, (way, task) in ways.items():
            asked = task.problems("train")[number * problems : (number + 1) * problems]
            took, different = seconds_of(
                lambda way=way, task=task, asked=asked, number=number: way(  # type: ignore[misc]
                    engine, task, asked, sampling=SAMPLING, group_size=group_size, seed=number
                )
            )
            seconds[name] += [took] if number else []  # the first round starts workers
    plain = median(seconds["decoding, verdicts by text"])
    lines = [f"{problems * group_size} answers, {different} of the last round different; {engine.num_slots} slots", ""]
    lines += ["| way | s a round | to decoding alone |", "|---|---:|---:|"]
    return lines + [f"| {name} | {median(took):.2f} | {median(took) / plain:.2f} |" for name, took in seconds.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Rollouts whose programs are judged meanwhile, or after.")
    parser.add_argument("--out", default="runs/rewards-rl", help="where the model is, or goes (runs/rewards-rl)")
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--group-size", type=int, default=4)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--verdict", choices=("code", "math"), default="code")
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args(arguments)
    torch.set_num_threads(words.threads)
    tuned = checkpoint_path(tuned_model(quickstart_config("chain", 0), Path(words.out)))
    engine = Engine(load_model(tuned).eval(), load_tokenizer(tuned), num_slots=words.slots)
    sizes = {"problems": words.problems, "group_size": words.group_size, "rounds": words.rounds}
    print("\n".join(measure(engine, Chain(verdict=words.verdict), **sizes)))
    print(f"\n{len(os.sched_getaffinity(0))} cores; load: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
