"""Memory and time of one TraceRL update beside the plain one (``benchmarks.padded_rows``), and padding of ragged data.

Every run is a process of its own with one thread and default settings of the C library. Both variants do the same
update of the same answers (``tests/unit/test_update_benchmark.py``: the same gradient to 1e-9): forward, backward,
AdamW. Measured are its seconds of processor time, and by how much the high-water mark of resident memory in it exceeds
what the process held before, model and prepared rows included. Variants run in turn, every other round in reverse.

Four padded rows can be the rounds of one trace, or one merged round of each of four answers; the first is what TraceRL
is about, the second leaves nothing to share. Both are measured, and what lies between.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
BLOCK, SPECIAL = 4, 3
OURS, PLAIN = "ours", "plain"
LARGE = 100_000  # a vocabulary from here on is measured once: a plain step takes half a minute and 9 GB


@dataclass(frozen=True)
class Case:
    """One update: ``answers`` of ``answer`` tokens to prompts of ``prompt``, each block in ``rounds`` rounds.

    ``max_positions``: of our micro-batches; the plain step takes its rows at once.
    """

    vocabulary: int
    answers: int
    rounds: int
    prompt: int = 64
    answer: int = 512
    max_positions: int = 2048
    recompute_layers: bool = False
    layers: int = 2
    hidden: int = 256
    dtype: str = "float32"


CASES: dict[str, Case] = {
    f"V = {vocabulary:,}: {answers} x {rounds}": Case(vocabulary, answers, rounds)
    for vocabulary in (8192, 151_936)
    for answers, rounds in ((1, 4), (2, 2), (4, 1))
}
LONG: dict[str, Case] = {
    f"V = {vocabulary:,}": Case(vocabulary, 1, 2, answer=8192, recompute_layers=True) for vocabulary in (8192, 151_936)
}


def model_for(case: Case) -> Any:
    """A model with random weights: grouped-query attention, heads of 32, untied embeddings."""
    from revelm.core.allocator import return_freed_memory
    from revelm.models.load import new_model

    config = {
        "model_type": "sdar",
        "vocab_size": case.vocabulary,
        "hidden_size": case.hidden,
        "intermediate_size": 3 * case.hidden,
        "num_hidden_layers": case.layers,
        "num_attention_heads": case.hidden // 32,
        "num_key_value_heads": case.hidden // 64,
        "head_dim": 32,
        "max_position_embeddings": 32_768,
        "block_size": BLOCK,
        "eos_token_id": case.vocabulary - 3,
        "pad_token_id": case.vocabulary - 2,
        "mask_token_id": case.vocabulary - 1,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
    }
    model = new_model(config, seed=0, dtype=case.dtype)
    model.decoder.recomputes_layers = case.recompute_layers
    return_freed_memory(sum(parameter.nbytes for parameter in model.parameters()))
    return model.train()


def episode(prompt: int, answer: int, rounds: int, *, vocabulary: int, key: int) -> Any:
    """An answer of random tokens, revealed in random order in ``rounds`` equal steps per block, with made-up credit."""
    from revelm.objectives.batch import Episode
    from revelm.trajectories.record import Trajectory

    rng, first = np.random.default_rng(key), prompt // BLOCK
    blocks = -(-(prompt + answer) // BLOCK) - first
    ids = rng.integers(0, vocabulary - SPECIAL, BLOCK * (first + blocks)).astype(np.int32)
    order = rng.permuted(np.tile(np.arange(BLOCK) * rounds // BLOCK, (blocks, 1)), axis=1)
    step = (order + rounds * np.arange(blocks)[:, None] + 1).astype(np.int32).ravel()[prompt % BLOCK :]
    numbers = np.full(len(step), -np.log(vocabulary))
    record = Trajectory(
        prompt_ids=ids[:prompt],
        completion_ids=ids[prompt:],
        step=step,
        forward=step,
        logprob=numbers,
        logprob_t1=numbers,
        confidence=np.exp(numbers),
        num_steps=int(step.max()),
        block_size=BLOCK,
        grid_offset=0,
        stop_length=answer,
        finish_reason="length",
        rule={"kind": "static"},
        sampling={"temperature": 1.0},
    )
    return Episode(record, 1.0, 0, key, credit=(-1.0, 1.0)[key % 2])


def prepared(case: Case, variant: str) -> tuple[Any, Any, list[Any]]:
    """Model, objective and the micro-batches of the update."""
    from benchmarks.padded_rows import padded_rows
    from revelm.objectives.packing import micro_batches
    from revelm.objectives.trace_rl import TraceRL

    model, objective = model_for(case), TraceRL()
    samples = [
        episode(case.prompt, case.answer, case.rounds, vocabulary=case.vocabulary, key=key)
        for key in range(case.answers)
    ]
    if variant == PLAIN:
        return model, objective, [padded_rows(objective, samples, model.family)]
    return model, objective, micro_batches(objective.prepare(samples, model.family, 0), case.max_positions)


def losses(model: Any, objective: Any, batches: list[Any], variant: str) -> list[Any]:
    """What the optimiser is to call, one for each micro-batch."""
    from benchmarks.padded_rows import padded_loss
    from revelm.objectives.loss_in_chunks import loss_of

    if variant == PLAIN:
        return [lambda b=batch: padded_loss(model, objective, b).sum for batch in batches]
    return [lambda b=batch: loss_of(model, b, objective).sum for batch in batches]


def run(case: Case, variant: str) -> dict[str, float]:
    """One update in this process: its seconds, the growth of its peak in bytes, and the peak itself."""
    import torch

    from revelm.trainers.config import OptimizerSpec
    from revelm.trainers.optimizer import Optimizer

    torch.set_num_threads(1)
    warm_up(variant)
    model, objective, batches = prepared(case, variant)
    optimizer = Optimizer(model, OptimizerSpec(), total_updates=1)
    count = sum(batch.count for batch in batches)
    before = _restart_peak()
    began = process_time()
    optimizer.step(losses(model, objective, batches, variant), count)
    seconds = process_time() - began
    peak = _status("VmHWM")
    positions = sum(batch.tokens.numel() for batch in batches)
    return {"seconds": seconds, "growth": peak - before, "peak": peak, "positions": positions}


def warm_up(variant: str) -> None:
    """The same on a tiny model: what a process does once is no part of an update."""
    from revelm.trainers.config import OptimizerSpec
    from revelm.trainers.optimizer import Optimizer

    model, objective, batches = prepared(Case(64, 1, 2, prompt=8, answer=16, hidden=64), variant)
    optimizer = Optimizer(model, OptimizerSpec(), total_updates=1)
    optimizer.step(losses(model, objective, batches, variant), 1.0)


def _restart_peak() -> int:
    """Set the high-water mark to what is resident now, and return that in bytes (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return _status("VmRSS")


def _status(name: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def child(case: Case, variant: str) -> dict[str, float]:
    """``run`` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.update", variant, json.dumps(asdict(case))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
    found: dict[str, float] = json.loads(out.stdout.splitlines()[-1])
    return found


def compare(case: Case, repeats: int) -> dict[str, dict[str, float]]:
    """Medians of both variants over interleaved fresh processes."""
    runs: dict[str, list[dict[str, float]]] = {OURS: [], PLAIN: []}
    for index in range(repeats):
        for variant in (OURS, PLAIN) if index % 2 == 0 else (PLAIN, OURS):
            runs[variant].append(child(case, variant))
    return {v: {name: median(r[name] for r in found) for name in found[0]} for v, found in runs.items()}


def padding() -> dict[str, dict[str, float]]:
    """Padding shares of ragged data in micro-batches of 8,192 positions, and all rows as long as the longest."""
    from revelm.objectives.packing import micro_batches, padding_share
    from revelm.objectives.trace_rl import TraceRL

    rng, found = np.random.default_rng(0), {}
    family = model_for(Case(64, 1, 1, hidden=64)).family
    for name, lengths in {
        "uniform, 8 to 512 tokens": rng.integers(8, 513, 128),
        "log-normal, median 150": np.clip(rng.lognormal(5.0, 0.8, 128), 8, 2048).astype(int),
        "12 answers of 40 to 400 tokens": rng.integers(40, 401, 12),
    }.items():
        samples = [
            episode(int(rng.integers(16, 257)), int(n), int(rng.choice([1, 2, 4])), vocabulary=64, key=i)
            for i, n in enumerate(lengths)
        ]
        batch = TraceRL().prepare(samples, family, 0)
        shares = {how: padding_share(micro_batches(batch, 8192, packing=how)) for how in ("rows", "packed", "auto")}  # type: ignore[arg-type]
        found[name] = {"one batch": padding_share([batch]), **shares}
    return found


def chosen(only: str) -> tuple[dict[str, Case], dict[str, Case]]:
    """Updates and long answers whose names contain ``only``. ValueError where no name does."""
    cases, long = ({name: case for name, case in known.items() if only in name} for known in (CASES, LONG))
    if not cases and not long:
        raise ValueError(f"no name contains {only!r}; there are {'; '.join([*CASES, *LONG])}")
    return cases, long


def benchmark(*, repeats: int = 3, out: str | Path | None = None, only: str = "") -> dict[str, Any]:
    """Everything, or what is ``chosen``; written to ``out`` (JSON) when given."""
    from revelm.core.atomic import write_json_atomic

    cases, long = chosen(only)
    result = {
        "repeats": repeats,
        "cases": {name: compare(case, repeats if case.vocabulary < LARGE else 1) for name, case in cases.items()},
        "long": {name: child(case, OURS) for name, case in long.items()},
        "padding": {} if only else padding(),
    }
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(Path(out), result)
    return result


def show(result: Mapping[str, Any]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    cases = Table(
        *("answers x rounds", "positions", "plain", "seconds", "plain", "ratio", "growth MB", "plain", "ratio"),
        title=f"one update of four padded rows; median of {result['repeats']}; asked: seconds <= 0.5, growth <= 0.333",
    )
    for name, both in result["cases"].items():
        ours, plain = both[OURS], both[PLAIN]
        cells = [f"{ours['positions']:,.0f}", f"{plain['positions']:,.0f}"]
        cells += [f"{ours['seconds']:.2f}", f"{plain['seconds']:.2f}", f"{ours['seconds'] / plain['seconds']:.2f}"]
        cells += [f"{ours['growth'] / 1e6:,.0f}", f"{plain['growth'] / 1e6:,.0f}"]
        cases.add_row(name, *cells, f"{ours['growth'] / plain['growth']:.2f}")
    long = Table("vocabulary", "positions", "seconds", "peak GB", title="answers of 8,192 tokens; asked: < 8.6 GB")
    for name, found in result["long"].items():
        long.add_row(name, f"{found['positions']:,.0f}", f"{found['seconds']:.0f}", f"{found['peak'] / 1e9:.2f}")
    ragged = Table("answers", "one batch", "rows", "packed", "auto", title="padding of ragged rows, %; asked: <= 10")
    for name, shares in result["padding"].items():
        ragged.add_row(name, *(f"{100 * share:.1f}" for share in shares.values()))
    Console(width=150).print(*(table for table in (cases, long, ragged) if table.row_count))


def main() -> None:
    """One variant of one case in this process, for ``child``; prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=(OURS, PLAIN))
    parser.add_argument("case")
    words = parser.parse_args()
    print(json.dumps(run(Case(**json.loads(words.case)), words.variant)))


if __name__ == "__main__":
    main()
