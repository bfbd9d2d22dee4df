"""What it costs to judge answers as mathematics or as programs: the RL phase of the quickstart, three times.

The same fine-tuned model is trained on the same worksheets with the same seeds; only the way that answers are judged
differs (``task.verdict``: exact, math, code). As all three reach the same verdicts, the weights in the end are the same
as well, and the difference in time is what the worker processes, the comparison of formulas and the sandbox take.

    python -m benchmarks.rewards_rl --out runs/rewards-rl
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from time import perf_counter

import torch

from revelm.models.load import checkpoint_path
from revelm.trainers import rl, sft
from revelm.trainers.quickstart import QuickstartConfig, quickstart_config, rl_config, sft_config, start_model

VERDICTS = ("exact", "math", "code")


@dataclass(frozen=True)
class Timed:
    """One RL phase. ``seconds``: in all; ``rollout``: of them for answers and verdicts. ``weights``: a digest."""

    verdict: str
    seconds: float
    rollout: float
    answers: int
    accuracy: tuple[float, float]
    weights: str


def with_verdict(config: QuickstartConfig, verdict: str) -> QuickstartConfig:
    """The same recipe, with answers judged in another way."""
    return config.model_copy(update={"task": {**config.task, "verdict": verdict}})


def tuned_model(config: QuickstartConfig, folder: Path) -> Path:
    """The model after SFT; one on disk is reused."""
    folder.mkdir(parents=True, exist_ok=True)
    return sft.run(sft_config(config, start_model(config, folder), folder / "sft"))


def timed_rl(config: QuickstartConfig, tuned: Path, out: Path, verdict: str) -> Timed:
    """Train with answers judged by ``verdict``, in a new folder."""
    began = perf_counter()
    run = rl.run(rl_config(with_verdict(config, verdict), tuned, out))
    seconds = perf_counter() - began
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    weights = (checkpoint_path(run) / "model.safetensors").read_bytes()
    return Timed(
        verdict,
        seconds,
        sum(row["seconds_rollout"] for row in rows),
        int(sum(row["num_answers"] for row in rows)),
        (rows[0]["accuracy"], rows[-1]["accuracy"]),
        blake2b(weights, digest_size=4).hexdigest(),
    )


def table(found: Sequence[Timed]) -> str:
    """Markdown."""
    lines = [
        "| verdict | RL phase, s | of it rollouts, s | answers | first to last step | weights |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {t.verdict} | {t.seconds:.1f} | {t.rollout:.1f} | {t.answers} | {t.accuracy[0]:.3f} to {t.accuracy[1]:.3f} "
        f"| {t.weights} |"
        for t in found
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="The RL phase of the quickstart with answers judged in three ways.")
    parser.add_argument("--out", default="runs/rewards-rl", help="default: runs/rewards-rl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few steps")
    words = parser.parse_args(arguments)
    torch.set_num_threads(1)
    config = quickstart_config("chain", words.seed, smoke=words.smoke)
    folder = Path(words.out)
    tuned = tuned_model(config, folder)
    number = 1 + sum(1 for path in folder.glob("rl-*") if path.is_dir())
    load = os.getloadavg()[0]
    found = [timed_rl(config, tuned, folder / f"rl-{number}-{verdict}", verdict) for verdict in VERDICTS]
    print(table(found))
    print(f"\n{len(os.sched_getaffinity(0))} cores; load before: {load:.1f}")


if __name__ == "__main__":
    main()
