"""How likely a model finds given responses: a file of chats or of plain prompts, scored row by row."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
from pydantic import Field

from revelm.core.atomic import write_json_atomic, write_text_atomic
from revelm.core.config import Schema
from revelm.core.types import Family
from revelm.data.learnable import Source, read_source
from revelm.data.sample_ids import encode_pair, encode_whole
from revelm.data.shapes import Pair, Plain, Sample
from revelm.data.sniff import read_sample
from revelm.data.tokenizer import encode_demonstration
from revelm.eval.intervals import Z, ratio
from revelm.models.load import load_model, load_tokenizer, read_family, resolve_checkpoint
from revelm.noise.bound import Estimator
from revelm.objectives.batch import Text
from revelm.objectives.likelihood import Likelihood, fault, loglikelihood


class LikelihoodConfig(Schema):
    """The likelihood of every row of ``data`` under ``model``. ``num_samples``: masks per block or response where the
    bound is sampled; ``max_positions``: per forward; ``out``: a folder for summary.json and rows.jsonl.
    """

    model: str
    data: str
    estimator: Estimator = "auto"
    num_samples: int = Field(128, ge=2)
    max_positions: int = Field(8192, ge=1)
    seed: int = 0
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    device: str = "cpu"
    out: str | None = None


def loglikelihood_config(config: LikelihoodConfig) -> dict[str, Any]:
    """Load ``config.model``, score every row, write ``out`` if given; returns the summary (see ``summarise``).

    Rows are checked before the weights are loaded, so that their errors cost nothing; each names file and row.
    FloatingPointError when the model's numbers are not finite; nothing is written then.
    """
    folder = resolve_checkpoint(config.model)
    numbers, samples = read_samples(config.data, load_tokenizer(folder))
    _check(config, numbers, samples, read_family(folder))
    model = load_model(folder, dtype=config.dtype, device=config.device)
    began = perf_counter()
    found = loglikelihood(
        model,
        samples,
        estimator=config.estimator,
        num_samples=config.num_samples,
        seed=config.seed,
        max_positions=config.max_positions,
    )
    settings = config.model_dump(mode="json", exclude={"out"})
    summary = {**settings, **summarise(found), "seconds": perf_counter() - began}
    if config.out is not None:
        rows = [_row(number, sample, one) for number, sample, one in zip(numbers, samples, found, strict=True)]
        write_json_atomic(Path(config.out) / "summary.json", summary)
        write_text_atomic(Path(config.out) / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return summary


def read_samples(path: str | Path, tokenizer: Any) -> tuple[list[int], list[Text]]:
    """Numbers of a file's rows (from 1; of their lines, where it has lines) and their token ids.

    Chats go through the chat template, and the last assistant turn with its end-of-turn token is the response; rows
    with ``prompt`` and ``response`` are plain text, and so are those with a ``text``, which is all response. A sample's
    key is its number. ValueError names file and row.
    """
    rows, layout = read_source(Source(str(path)))
    numbers = [row.line or row.number for row in rows]
    samples = []
    for row, number in zip(rows, numbers, strict=True):
        sample = read_sample(row, layout)
        try:
            ids, length = _encode(tokenizer, sample)
        except ValueError as error:
            raise ValueError(f"{row.place}: {error}") from error
        samples.append(Text(np.array(ids, dtype=np.int64), length, number))
    return numbers, samples


def _encode(tokenizer: Any, sample: Sample) -> tuple[Sequence[int], int]:
    if isinstance(sample, Pair):
        return encode_pair(tokenizer, sample.prompt, sample.response)
    if isinstance(sample, Plain):
        found = encode_whole(tokenizer, sample.text)
        return found.ids, found.prompt_length
    return encode_demonstration(tokenizer, sample.messages)


def summarise(found: Sequence[Likelihood]) -> dict[str, Any]:
    """Metrics over rows, each {"mean", "low", "high", "n"} with a 95 % interval; ``n`` counts rows.

    ``loglikelihood_per_token``: nats, all rows' sum over all rows' tokens; ``perplexity``: exp of its negative, an
    upper bound on the model's. Intervals are over rows (which includes the sampling of masks); with a single row, of
    the sampling alone. ``sampling_error``: standard error of the mean per token that comes from sampling masks.
    """
    tokens = [one.num_tokens for one in found]
    mean = ratio([one.value for one in found], tokens, range(len(found)))
    error = math.sqrt(sum(one.standard_error**2 for one in found)) / sum(tokens)
    if len(found) == 1:
        mean |= {"low": mean["mean"] - Z * error, "high": mean["mean"] + Z * error}
    perplexity = {"mean": _exp(-mean["mean"]), "low": _exp(-mean["high"]), "high": _exp(-mean["low"]), "n": mean["n"]}
    return {
        "loglikelihood_per_token": mean,
        "perplexity": perplexity,
        "sampling_error": error,
        "num_tokens": sum(tokens),
        "num_masks": sum(one.num_masks for one in found),
        "is_exact": all(one.is_exact for one in found),
    }


def _check(config: LikelihoodConfig, numbers: Sequence[int], samples: Sequence[Text], family: Family) -> None:
    for number, sample in zip(numbers, samples, strict=True):
        if reason := fault(sample, family, estimator=config.estimator):
            raise ValueError(f"{config.data}, row {number} {reason}")


def _row(number: int, sample: Text, one: Likelihood) -> Mapping[str, Any]:
    return {
        "row": number,
        "loglikelihood": one.value,
        "standard_error": one.standard_error,
        "num_tokens": one.num_tokens,
        "num_prompt_tokens": sample.prompt_length,
        "num_masks": one.num_masks,
        "is_exact": one.is_exact,
    }


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))
