"""``python -m benchmarks.shuffled``: what TraceRL learns from rewards that mean nothing, from one start, many seeds.

Within each group rewards trade places, so that they say nothing of the answers and the expected gradient is zero. What
the policy does none the less is a random walk: its spread grows with the learning rate, its mean does not, unless the
control leaks. On ``chain`` a policy is described by one number, how often it works the steps out; a walk of the log
odds of that number without drift still raises a small share, and lowers a large one. The starts are those of
``python -m benchmarks.run methods``, which runs first.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.methods import spread
from revelm.core.atomic import write_json_atomic
from revelm.core.config import merge
from revelm.models.load import checkpoint_path, load_tokenizer
from revelm.trainers import quickstart, rl
from revelm.trajectories.store import read_trajectories

RATES = (6.0e-5, 1.5e-5)  # that of the quickstart, and a quarter of it
GUESS = "\\boxed"


def share_worked(model: Path, evaluation: Path) -> float:
    """The share of answers that do not box a guess at once."""
    tokenizer = load_tokenizer(checkpoint_path(model))
    found = read_trajectories(evaluation / "trajectories" / "dynamic.parquet")
    texts = [str(tokenizer.decode(one.response_ids.tolist())) for one in found]
    return float(np.mean([not text.lstrip().startswith(GUESS) for text in texts]))


def run_one(start: int, rate: float, seed: int, out: str) -> float:
    """The share of worked answers after RL with shuffled rewards from the SFT of seed ``start``."""
    import torch

    torch.set_num_threads(1)
    config = quickstart.quickstart_config("chain", start)
    change = {"rewards": "shuffled", "optimizer": {"learning_rate": rate}}
    config = config.model_copy(update={"rl": merge(config.rl, change), "seed": 100 + seed})
    folder = Path(out) / "shuffled" / f"{start}-{rate:g}-{seed}"
    taught = rl.run(quickstart.rl_config(config, Path(out) / "methods" / f"chain-{start}" / "sft", folder))
    quickstart.evaluate_stage(config, taught, folder / "eval")
    return share_worked(taught, folder / "eval")


def share_before(start: int, out: str) -> float:
    """The share of worked answers of the SFT of seed ``start``, over eight answers to each problem."""
    config = quickstart.quickstart_config("chain", start)
    config = config.model_copy(update={"eval": config.eval.model_copy(update={"samples_per_problem": 8})})
    model, evaluation = Path(out) / "methods" / f"chain-{start}" / "sft", Path(out) / "shuffled" / f"before-{start}"
    quickstart.evaluate_stage(config, model, evaluation)
    return share_worked(model, evaluation)


def log_odds(shares: list[float], *, answers: int = 170) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Log odds of shares of ``answers``, half an answer added to either side so that none is infinite."""
    counts = np.array(shares) * answers
    return np.log((counts + 0.5) / (answers - counts + 0.5))


def main() -> None:
    """Run every start, rate and seed, two processes at a time, and print shares and log odds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", default="runs", help="where the starts are, and what is measured goes")
    words = parser.parse_args()
    cases = [(start, rate) for start in words.starts for rate in RATES]
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        runs = {case: [pool.submit(run_one, *case, seed, words.out) for seed in range(words.seeds)] for case in cases}
        shares = {case: [one.result() for one in asked] for case, asked in runs.items()}
    table = Table(
        title=f"TraceRL with shuffled rewards, {words.seeds} seeds from each start, mean +- 95 % (Student's t)"
    )
    for column in (
        "start",
        "learning rate",
        "worked before",
        "after",
        "log odds, change",
        "its spread",
        "after, by seed",
    ):
        table.add_column(column, justify="right")
    for (start, rate), found in shares.items():
        before = share_before(start, words.out)
        change = log_odds(found) - log_odds([before])[0]
        after, moved = (f"{mean:+.3f} +- {half:.3f}" for mean, half in (spread(found), spread(change.tolist())))
        each = " ".join(f"{share:.2f}" for share in sorted(found))
        table.add_row(f"{start}", f"{rate:g}", f"{before:.3f}", after, moved, f"{change.std(ddof=1):.2f}", each)
    Console(width=170).print(table)
    kept = {f"{start}, {rate:g}": found for (start, rate), found in shares.items()}
    write_json_atomic(Path(words.out) / "shuffled.json", kept)


if __name__ == "__main__":
    main()
