"""A tiny full-attention model, and decodings by it that end in every way there is."""

from functools import lru_cache

from revelm.decoding.dynamic import Dynamic
from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.reference import decode_naively
from revelm.models.language_model import LanguageModel
from revelm.trajectories.record import NEVER, Trajectory
from tests.models import EOS, declared_model, prompt_of


def full_model(*, is_shifted: bool = False) -> LanguageModel:
    """A float64 model in which everything sees everything. Shared: do not change it."""
    return declared_model("full", is_shifted=is_shifted)


@lru_cache(maxsize=2)
def records(*, is_shifted: bool = False) -> tuple[Trajectory, ...]:
    """Real decodings: the whole canvas at once, and windows of several sizes, the last one often shorter."""
    found = []
    for seed in range(14):
        settings = Sampling(
            temperature=(1.0, 0.7, 0.0)[seed // 2 % 3],
            rule=(Dynamic(0.3), Static(2), Static(3))[seed % 3],
            block_size=(None, 5, 4, 1)[seed % 4] if seed < 8 else (6, None)[seed % 2],
            max_new_tokens=4 + seed * 5 % 17,
            stop_ids=tuple(range(seed % 3, EOS, 15)) if seed % 4 else (),
            seed=seed,
        )
        found.append(decode_naively(full_model(is_shifted=is_shifted), prompt_of(1 + seed % 5, seed), settings))
    assert {t.finish_reason for t in found} == {"length", "stop"}
    assert any((t.step[t.stop_length :] != NEVER).any() for t in found), "tokens behind a stop were revealed before it"
    assert any((t.step == NEVER).any() for t in found), "some places were never revealed"
    assert any(0 < len(t.step) % t.block_size < t.stop_length for t in found), "some last windows are shorter"
    assert any(len({*t.step.tolist()}) < len(t.step) / 2 for t in found), "some steps reveal several tokens"
    return tuple(found)
