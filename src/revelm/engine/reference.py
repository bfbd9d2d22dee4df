"""The oracle: decoding of one request with a full recompute every step, no cache, plain Python control flow.

Slow and obvious. The engine must give the same tokens, steps and log-probabilities. Only the head is spared on rows
nobody reads: it runs on the current window (the block of block models).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from revelm.core.types import Family
from revelm.decoding.propose import SamplingRows
from revelm.decoding.rule import most_confident
from revelm.decoding.sampling import Sampling
from revelm.decoding.uniform import uniform
from revelm.engine.request import Request, make_request
from revelm.engine.slots import RECORDED, describe_rule, describe_sampling
from revelm.models.language_model import LanguageModel
from revelm.trajectories.record import NEVER, FinishReason, Trajectory

COUNTS = ("step", "forward")


@dataclass
class _Response:
    """A response as it grows: tokens and hidden flags by absolute position, records by place in the completion."""

    prompt_length: int
    tokens: list[int]
    hidden: list[bool]
    step: int = 0
    records: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in (*COUNTS, *RECORDED)})

    def extend(self, end: int, mask_id: int) -> None:
        """Append hidden positions up to ``end``."""
        extra = max(0, end - len(self.tokens))
        self.tokens += [mask_id] * extra
        self.hidden += [True] * extra
        for name, values in self.records.items():
            values += [NEVER if name in COUNTS else 0.0] * extra

    def arrays(self) -> dict[str, np.ndarray]:
        """The records as a trajectory has them."""
        return {k: np.array(v, dtype=np.int32 if k in COUNTS else np.float64) for k, v in self.records.items()}


def decode_naively(model: LanguageModel, prompt: Sequence[int], sampling: Sampling) -> Trajectory:
    """Decode one prompt of token ids; stop strings are not supported here."""
    request = make_request(0, prompt, sampling, model.family)
    length, is_full = len(request.prompt_ids), model.family.attention == "full"
    response = _Response(length, [int(i) for i in request.prompt_ids], [False] * length)
    if is_full:
        response.extend(request.limit, model.family.mask_id)
    size, windows = _windows(request, model.family)
    end: int | None = None
    reason: FinishReason = "length"
    for window in windows:
        if end is not None:
            break
        response.extend(window.stop, model.family.mask_id)
        while end is None and any(response.hidden[i] for i in window):
            _denoise(model, response, window, sampling)
            end, reason = _ending(response, window, request)
    assert end is not None, "the windows reach the limit"
    return Trajectory(
        prompt_ids=request.prompt_ids,
        completion_ids=np.array(response.tokens[length:], dtype=np.int32),
        **response.arrays(),
        num_steps=response.step,
        block_size=size,
        grid_offset=length if is_full else 0,
        stop_length=end - length,
        finish_reason=reason,
        rule=describe_rule(sampling.rule),
        sampling=describe_sampling(request.sampling),
        is_filtered=sampling.is_filtered,
    )


def _windows(request: Request, family: Family) -> tuple[int, list[range]]:
    """How many positions are decoded together, and which: blocks from position 0 on, or windows behind the prompt."""
    length, limit = len(request.prompt_ids), request.limit
    if family.attention == "full":
        size = min(request.sampling.block_size or limit - length, limit - length)
        return size, [range(start, min(start + size, limit)) for start in range(length, limit, size)]
    size = family.block_size or 1
    return size, [range(start, start + size) for start in range(0, limit, size) if start + size > length]


def _ending(response: _Response, window: range, request: Request) -> tuple[int | None, FinishReason]:
    """Where the response ends, if it does by now, and why."""
    first_hidden = next((i for i in window if response.hidden[i]), window.stop)
    known = range(max(window.start, response.prompt_length), min(first_hidden, request.limit))
    stop = next((i for i in known if response.tokens[i] in request.stop_ids), None)
    if stop is not None:
        return stop + 1, "stop"
    return (request.limit if first_hidden >= request.limit else None), "length"


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


def _denoise(model: LanguageModel, response: _Response, window: range, sampling: Sampling) -> None:
    """One step: recompute everything there is, reveal some positions of the window in place."""
    response.step += 1
    positions = torch.arange(len(response.tokens))[None]
    with torch.inference_mode():
        features = model.body(torch.tensor([response.tokens]), positions, None)
        logits = model.head(features[:, window.start : window.stop])
    step = torch.tensor([response.step])
    numbers = uniform(torch.tensor([[sampling.seed]]), torch.tensor([list(window)]), step[:, None])
    undecided = torch.tensor([[response.hidden[i] for i in window]])
    proposal = sampling.rule.propose(logits, numbers, _settings(sampling, model.family.banned_ids))
    chosen = sampling.rule.select(proposal.confidence, undecided, step) & undecided
    if not chosen.any():
        chosen = most_confident(proposal.confidence, undecided, 1)
    for offset in chosen[0].nonzero()[:, 0].tolist():
        position, place = window[offset], window[offset] - response.prompt_length
        response.tokens[position], response.hidden[position] = int(proposal.token[0, offset]), False
        for name in COUNTS:
            response.records[name][place] = response.step
        for name in RECORDED:
            response.records[name][place] = float(vars(proposal)[name][0, offset])
