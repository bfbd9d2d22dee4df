"""Every task that ships, evaluated by a tiny model, killed and gone on with: ``python -m benchmarks.evaluate_all``.

The model learns the chain task for some steps, so that its answers are text of a kind; it has no chance elsewhere. Each
task asks a few problems of its public file in ``../shared/data``, or of the sample that comes with the package where
there is none. The evaluation runs once from beginning to end, and once killed (SIGKILL) at random moments and gone on
with by --resume; the numbers, every sample and every trajectory of both have to be the same.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from revelm.core.atomic import write_json_atomic
from revelm.core.registry import names
from revelm.tasks.data_source import SAMPLE, sample_file
from revelm.trainers import sft
from revelm.trainers.quickstart import QuickstartConfig, quickstart_config, sft_config, start_model
from revelm.trajectories.store import read_trajectories

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FILES: dict[str, dict[str, str]] = {
    "aime2024": {"data": "aime2024/test.jsonl"},
    "aime2025": {"data": "aime2025/test.jsonl"},
    "amc23": {"data": "amc23/test.jsonl"},
    "apps": {"data": "apps_sample/apps_train_5.jsonl"},
    "code": {"data": "stdio_code/codeforces_test.json", "test_data": "function_code/leetcode_test.json"},
    "countdown": {"data": "countdown/countdown_cd3_test.jsonl"},
    "gsm8k": {"data": "gsm8k/test.jsonl", "train_data": "gsm8k/train.jsonl"},
    "humaneval": {"data": "humaneval/HumanEval.jsonl.gz"},
    "humaneval_plus": {"data": "humanevalplus/HumanEvalPlus-OriginFmt.jsonl.gz"},
    "math": {"data": "math_train/train.jsonl", "test_data": "math500/test.jsonl"},
    "math500": {"data": "math500/test.jsonl"},
    "mbpp": {"data": "mbpp/mbpp.jsonl"},
    "mbpp_plus": {"data": "mbppplus/MbppPlus-OriginFmt.jsonl.gz"},
    "minerva": {"data": "minerva_math/test.jsonl"},
    "olympiadbench": {"data": "olympiadbench/test.jsonl"},
    "sudoku": {"data": "sudoku/4x4_test_sudoku.csv"},
    "sudoku4": {"data": "sudoku/4x4_test_sudoku.csv"},
}
SETTINGS = {
    "static": {"temperature": 0, "rule": "static"},
    "dynamic": {"temperature": 1, "rule": {"kind": "dynamic", "threshold": 0.9}},
}
TIMES = ("seconds", "tokens_per_second", "environment")
PROBLEMS, SAVE_EVERY = 5, 2
POSITIONS = 16384  # long programs are prompts of thousands of tokens for a vocabulary of 300


def entry(name: str) -> dict[str, Any]:
    """A task with local data."""
    task: dict[str, Any]
    if name == "chain":
        task = dict(quickstart_config("chain", 0).task)  # what the model has learnt
    elif name in FILES and DATA.is_dir():
        task = {field: str(DATA / file) for field, file in FILES[name].items()}
    else:
        task = {"data": SAMPLE} if Path(sample_file(name)).is_file() else {}
    return {"task": task, "split": "train" if name == "apps" and DATA.is_dir() else "test"}  # its five have no test


def trained(folder: Path, steps: int) -> Path:
    """A tiny model after some steps on the chain task."""
    shipped = quickstart_config("chain", 0)
    sizes = {**shipped.model, "max_position_embeddings": POSITIONS}
    config = QuickstartConfig.model_validate(shipped.model_dump() | {"model": sizes})
    recipe = sft_config(config, start_model(config, folder), folder / "sft")
    train = recipe.train.model_copy(update={"steps": steps, "save_every": 0})
    rate = recipe.optimizer.model_copy(update={"warmup_steps": steps // 10})
    return sft.run(recipe.model_copy(update={"train": train, "optimizer": rate, "resume": False}))


def command(recipe: Path, out: Path) -> list[str]:
    """The command line of both evaluations."""
    return [sys.executable, "-m", "revelm", "eval", str(recipe), "--out", str(out), "--resume", "--format", "md"]


def killed(recipe: Path, out: Path, kills: int, rng: random.Random) -> int:
    """Start the evaluation again and again, each time killed a moment after so many parts are there; then let it end.

    How often it was killed.
    """
    total = sum(-(-PROBLEMS // SAVE_EVERY) for _ in names("tasks") for _ in SETTINGS)
    done = 0
    for threshold in sorted(rng.sample(range(1, int(0.9 * total)), kills)):
        process = subprocess.Popen(command(recipe, out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.glob("*/parts/*/*.json"))) < threshold:
            sleep(0.02)
        sleep(rng.uniform(0.0, 0.5))
        done += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(recipe, out), check=True, stdout=subprocess.DEVNULL)
    return done


def differences(one: Path, other: Path) -> list[str]:
    """Files that are not the same, times apart."""
    found = []
    summaries = [without_times(json.loads((out / "summary.json").read_text())) for out in (one, other)]
    if summaries[0] != summaries[1]:
        found.append("summary.json")
    for file in sorted(one.glob("*/samples/*.jsonl")):
        name = file.relative_to(one)
        if file.read_bytes() != (other / name).read_bytes():
            found.append(str(name))
        place = name.parent.parent / "trajectories" / f"{name.stem}.parquet"
        ids = [[t.completion_ids.tolist() for t in read_trajectories(out / place)] for out in (one, other)]
        if ids[0] != ids[1]:
            found.append(str(place))
    return found


def without_times(value: Any) -> Any:
    """A summary without what differs from run to run."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return value


def main() -> None:
    """Print the numbers of the uninterrupted evaluation, and whether the other one is the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/evaluate-all", help="a fresh folder")
    parser.add_argument("--steps", type=int, default=300, help="of training (default: 300)")
    parser.add_argument("--kills", type=int, default=6)
    words = parser.parse_args()
    folder = Path(words.out)
    os.environ["OMP_NUM_THREADS"] = "1"
    recipe = {
        "model": str(trained(folder, words.steps)),
        "num_problems": PROBLEMS,
        "samples_per_problem": 2,
        "max_new_tokens": 48,
        "num_slots": 16,
        "save_every": SAVE_EVERY,
        "settings": SETTINGS,
        "tasks": {name: entry(name) for name in names("tasks")},
    }
    write_json_atomic(folder / "eval.yaml", recipe)
    began = monotonic()
    subprocess.run(command(folder / "eval.yaml", folder / "whole"), check=True)
    seconds = monotonic() - began
    count = killed(folder / "eval.yaml", folder / "stopped", words.kills, random.Random(0))
    found = differences(folder / "whole", folder / "stopped")
    print(f"\n{len(recipe['tasks'])} tasks in {seconds:.0f} s; killed {count} times and gone on with: ", end="")
    print(f"differs in {', '.join(found)}" if found else "the same numbers, samples and trajectories")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
