"""The oracle: block decoding of one request with a full recompute every step, no cache, plain Python control flow.

Slow and obvious. The engine must give the same tokens, steps and log-probabilities. Only the head is spared on rows
nobody reads: it runs on the current block.
"""

from collections.abc import Sequence

import numpy as np
import torch

from revelm.core.grid import block_start
from revelm.decoding.propose import SamplingRows
from revelm.decoding.rule import most_confident
from revelm.decoding.sampling import Sampling
from revelm.decoding.uniform import uniform
from revelm.engine.request import make_request
from revelm.engine.slots import describe_rule, describe_sampling
from revelm.models.language_model import LanguageModel
from revelm.trajectories.record import NEVER, Trajectory


def decode_naively(model: LanguageModel, prompt: Sequence[int], sampling: Sampling) -> Trajectory:
    """Decode one prompt of token ids; stop strings are not supported here."""
    family = model.family
    assert family.block_size is not None, "the oracle decodes block by block"
    request = make_request(0, prompt, sampling, family)
    length, size = len(request.prompt_ids), family.block_size
    tokens = [int(i) for i in request.prompt_ids]
    hidden = [False] * length
    columns: dict[str, list[float]] = {k: [] for k in ("step", "forward", "logprob", "logprob_t1", "confidence")}
    settings = _settings(sampling, family.banned_ids)
    start, step, end, reason = block_start(length, size), 0, None, "length"
    while end is None:
        extra = start + size - len(tokens)
        tokens += [family.mask_id] * extra
        hidden += [True] * extra
        for name, values in columns.items():
            values += [NEVER if name in ("step", "forward") else 0.0] * extra
        while end is None and any(hidden[start:]):
            step += 1
            _denoise(model, tokens, hidden, columns, settings, (start, length, step, sampling))
            first_hidden = next((i for i in range(start, start + size) if hidden[i]), start + size)
            known = range(max(start, length), min(first_hidden, request.limit))
            stop = next((i for i in known if tokens[i] in request.stop_ids), None)
            if stop is not None:
                end, reason = stop + 1, "stop"
            elif first_hidden >= request.limit:
                end = request.limit
        start += size
    arrays = {k: np.array(v, dtype=np.int32 if k in ("step", "forward") else np.float64) for k, v in columns.items()}
    return Trajectory(
        prompt_ids=request.prompt_ids,
        completion_ids=np.array(tokens[length:], dtype=np.int32),
        **arrays,
        num_steps=step,
        block_size=size,
        grid_offset=0,
        stop_length=end - length,
        finish_reason=reason,  # type: ignore[arg-type]
        rule=describe_rule(sampling.rule),
        sampling=describe_sampling(sampling),
        is_filtered=sampling.is_filtered,
    )


def _settings(sampling: Sampling, banned_ids: tuple[int, ...]) -> SamplingRows:
    return SamplingRows(
        temperature=torch.tensor([sampling.temperature], dtype=torch.float64),
        top_k=torch.tensor([sampling.top_k]),
        top_p=torch.tensor([sampling.top_p], dtype=torch.float64),
        is_max=torch.tensor([sampling.confidence == "max"]),
        banned_ids=banned_ids,
        is_plain=sampling.temperature == 1.0,
        is_filtered=sampling.is_filtered,
    )


def _denoise(
    model: LanguageModel,
    tokens: list[int],
    hidden: list[bool],
    columns: dict[str, list[float]],
    settings: SamplingRows,
    place: tuple[int, int, int, Sampling],
) -> None:
    """One step: recompute everything up to the block's end, reveal some positions in place."""
    start, length, step, sampling = place
    ids = torch.tensor([tokens])
    positions = torch.arange(len(tokens))[None]
    with torch.inference_mode():
        features = model.body(ids, positions, None)
        logits = model.head(features[:, start:])
    block = torch.arange(start, len(tokens))[None]
    numbers = uniform(torch.tensor([[sampling.seed]]), block, torch.tensor([[step]]))
    undecided = torch.tensor([hidden[start:]])
    proposal = sampling.rule.propose(logits, numbers, settings)
    chosen = sampling.rule.select(proposal.confidence, undecided, torch.tensor([step])) & undecided
    if not chosen.any():
        chosen = most_confident(proposal.confidence, undecided, 1)
    for offset in chosen[0].nonzero()[:, 0].tolist():
        position = start + offset
        tokens[position], hidden[position] = int(proposal.token[0, offset]), False
        row = position - length
        columns["step"][row] = columns["forward"][row] = step
        for name in ("logprob", "logprob_t1", "confidence"):
            columns[name][row] = float(vars(proposal)[name][0, offset])
