"""What the oracle says to requests: worked out once for each, however many tests ask."""

from collections.abc import Mapping, Sequence
from functools import cache

from revelm.decoding.sampling import Sampling
from revelm.engine.reference import decode_naively
from revelm.models.language_model import LanguageModel
from revelm.trajectories.record import Trajectory


def oracle(
    model: LanguageModel, prompt: Sequence[int], sampling: Sampling, *, given: Mapping[int, int] | None = None
) -> Trajectory:
    """``decode_naively`` of a model that nobody changes; the record is shared: do not change it either."""
    return _answer(model, tuple(prompt), sampling, tuple((given or {}).items()))


def oracles(model: LanguageModel, prompts: Sequence[Sequence[int]], settings: Sequence[Sampling]) -> list[Trajectory]:
    """An answer to each."""
    return [oracle(model, prompt, sampling) for prompt, sampling in zip(prompts, settings, strict=True)]


@cache
def _answer(
    model: LanguageModel, prompt: tuple[int, ...], sampling: Sampling, given: tuple[tuple[int, int], ...]
) -> Trajectory:
    return decode_naively(model, prompt, sampling, given=dict(given))
