"""The oracle: block decoding of one request with a full recompute every step, no cache, plain Python control flow.

Slow and obvious. The engine must give the same tokens, steps and log-probabilities. Only the head is spared on rows
nobody reads: it runs on the current block.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from revelm.core.grid import block_start
from revelm.decoding.propose import SamplingRows
from revelm.decoding.rule import most_confident
from revelm.decoding.sampling import Sampling
from revelm.decoding.uniform import uniform
from revelm.engine.request import make_request
from revelm.engine.slots import RECORDED, describe_rule, describe_sampling
from revelm.models.language_model import LanguageModel
from revelm.trajectories.record import NEVER, Trajectory

COUNTS = ("step", "forward")


@dataclass
class _Response:
    """A response as it grows: tokens and hidden flags by absolute position, records by place in the completion."""

    prompt_length: int
    tokens: list[int]
    hidden: list[bool]
    step: int = 0
    records: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in (*COUNTS, *RECORDED)})

    def open_block(self, end: int, mask_id: int) -> None:
        """Append hidden positions up to ``end``."""
        extra = end - len(self.tokens)
        self.tokens += [mask_id] * extra
        self.hidden += [True] * extra
        for name, values in self.records.items():
            values += [NEVER if name in COUNTS else 0.0] * extra

    def arrays(self) -> dict[str, np.ndarray]:
        """The records as a trajectory has them."""
        return {k: np.array(v, dtype=np.int32 if k in COUNTS else np.float64) for k, v in self.records.items()}


def decode_naively(model: LanguageModel, prompt: Sequence[int], sampling: Sampling) -> Trajectory:
    """Decode one prompt of token ids; stop strings are not supported here."""
    family, size = model.family, model.family.block_size
    assert size is not None, "the oracle decodes block by block"
    request = make_request(0, prompt, sampling, family)
    length = len(request.prompt_ids)
    response = _Response(length, [int(i) for i in request.prompt_ids], [False] * length)
    start, end, reason = block_start(length, size), None, "length"
    while end is None:
        response.open_block(start + size, family.mask_id)
        while end is None and any(response.hidden[start:]):
            _denoise(model, response, start, sampling)
            first_hidden = next((i for i in range(start, start + size) if response.hidden[i]), start + size)
            known = range(max(start, length), min(first_hidden, request.limit))
            stop = next((i for i in known if response.tokens[i] in request.stop_ids), None)
            if stop is not None:
                end, reason = stop + 1, "stop"
            elif first_hidden >= request.limit:
                end = request.limit
        start += size
    return Trajectory(
        prompt_ids=request.prompt_ids,
        completion_ids=np.array(response.tokens[length:], dtype=np.int32),
        **response.arrays(),
        num_steps=response.step,
        block_size=size,
        grid_offset=0,
        stop_length=end - length,
        finish_reason=reason,  # type: ignore[arg-type]
        rule=describe_rule(sampling.rule),
        sampling=describe_sampling(request.sampling),
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


def _denoise(model: LanguageModel, response: _Response, start: int, sampling: Sampling) -> None:
    """One step: recompute everything up to the block's end, reveal some positions in place."""
    response.step += 1
    positions = torch.arange(len(response.tokens))[None]
    with torch.inference_mode():
        features = model.body(torch.tensor([response.tokens]), positions, None)
        logits = model.head(features[:, start:])
    step = torch.tensor([response.step])
    numbers = uniform(torch.tensor([[sampling.seed]]), positions[:, start:], step[:, None])
    undecided = torch.tensor([response.hidden[start:]])
    proposal = sampling.rule.propose(logits, numbers, _settings(sampling, model.family.banned_ids))
    chosen = sampling.rule.select(proposal.confidence, undecided, step) & undecided
    if not chosen.any():
        chosen = most_confident(proposal.confidence, undecided, 1)
    for offset in chosen[0].nonzero()[:, 0].tolist():
        position, place = start + offset, start + offset - response.prompt_length
        response.tokens[position], response.hidden[position] = int(proposal.token[0, offset]), False
        for name in COUNTS:
            response.records[name][place] = response.step
        for name in RECORDED:
            response.records[name][place] = float(vars(proposal)[name][0, offset])
