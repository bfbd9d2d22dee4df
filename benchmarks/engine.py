"""Speed of the slot engine against the naive oracle, side by side in one process with one thread.

4 layers x 128, vocabulary 1,000, random weights; 128-token prompts, 256-token answers, blocks of 4, two tokens per
step. The engine decodes 256 requests; the oracle decodes a few, one at a time (its speed does not depend on how many).
Runs are interleaved and medians reported. Prints tokens/s, tokens per forward, forwards per block and where time goes.
"""

from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.engine.reference import decode_naively
from revelm.models.language_model import LanguageModel
from revelm.models.load import new_model

SHAPE: dict[str, Any] = {
    "model_type": "sdar",
    "vocab_size": 1000,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "block_size": 4,
    "mask_token_id": 999,
    "pad_token_id": 998,
    "eos_token_id": 997,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
}
NUM_PROMPT, NUM_ANSWER, NUM_REQUESTS, NUM_NAIVE = 128, 256, 256, 2


class TimedModel:
    """Counts the seconds an oracle run spends inside body and head."""

    def __init__(self, model: LanguageModel) -> None:
        self.family, self.inner, self.seconds = model.family, model, 0.0

    def body(self, *arguments: Any) -> torch.Tensor:
        """The model's body, timed."""
        return self._timed(self.inner.body, *arguments)

    def head(self, *arguments: Any) -> torch.Tensor:
        """The model's head, timed."""
        return self._timed(self.inner.head, *arguments)

    def _timed(self, call: Any, *arguments: Any) -> torch.Tensor:
        began = perf_counter()
        out: torch.Tensor = call(*arguments)
        self.seconds += perf_counter() - began
        return out


def run_engine(model: LanguageModel, prompts: list[list[int]], num_slots: int) -> dict[str, float]:
    """One engine run over all prompts."""
    engine = Engine(model, num_slots=num_slots)
    sampling = Sampling(rule=Static(2), max_new_tokens=NUM_ANSWER, ignore_eos=True)
    trajectories = engine.generate(prompts, sampling)
    stats = engine.stats
    blocks = sum(-(-len(t.completion_ids) // t.block_size) for t in trajectories)
    return {
        "tokens/s": stats.tokens / stats.seconds_total,
        "tpf": stats.tokens / sum(t.num_forwards for t in trajectories),
        "forwards/block": sum(t.num_forwards for t in trajectories) / blocks,
        "body": stats.seconds_body / stats.seconds_total,
        "head": stats.seconds_head / stats.seconds_total,
        "sampler": stats.seconds_sampler / stats.seconds_total,
    }


def run_naive(model: LanguageModel, prompts: list[list[int]]) -> dict[str, float]:
    """The oracle, one request at a time."""
    timed = TimedModel(model)
    sampling = Sampling(rule=Static(2), max_new_tokens=NUM_ANSWER, ignore_eos=True)
    began = perf_counter()
    found = [decode_naively(timed, p, sampling) for p in prompts[:NUM_NAIVE]]  # type: ignore[arg-type]
    seconds = perf_counter() - began
    tokens = sum(t.num_tokens for t in found)
    return {
        "tokens/s": tokens / seconds,
        "tpf": tokens / sum(t.num_forwards for t in found),
        "forwards/block": sum(t.num_forwards for t in found) / (tokens / 4),
        "body": timed.seconds / seconds,
        "head": 0.0,
        "sampler": 0.0,
    }


def benchmark(*, repeats: int = 5) -> dict[str, Any]:
    """Interleaved runs; medians by row."""
    torch.set_num_threads(1)
    model = new_model(SHAPE, seed=0)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 990, NUM_PROMPT).tolist() for _ in range(NUM_REQUESTS)]
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(repeats):
        runs.setdefault("oracle, one at a time", []).append(run_naive(model, prompts))
        for slots in (1, 8, 64):
            part = prompts[: 8 * slots] if slots < 64 else prompts
            runs.setdefault(f"engine, {slots} slots", []).append(run_engine(model, part, slots))
    return {name: {k: median(r[k] for r in rows) for k in rows[0]} for name, rows in runs.items()}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    base = result["oracle, one at a time"]["tokens/s"]
    table = Table(title="4 x 128, vocabulary 1k, 128 + 256 tokens, B = 4, two tokens per step; one thread")
    for column in ("", "tokens/s", "x oracle", "TPF", "forwards/block", "body %", "head %", "sampler %"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in result.items():
        shares = [f"{100 * row[k]:.0f}" if row[k] else "-" for k in ("body", "head", "sampler")]
        if name.startswith("oracle"):
            shares = [f"{100 * row['body']:.0f} (with head)", "", "-"]
        cells = [f"{row['tokens/s']:,.0f}", f"{row['tokens/s'] / base:.1f}", f"{row['tpf']:.2f}"]
        table.add_row(name, *cells, f"{row['forwards/block']:.2f}", *shares)
    Console(width=120).print(table)
