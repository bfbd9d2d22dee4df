"""Tiny real models for tests, requests that exercise everything the engine does, and how two records are compared."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from revelm.decoding.dynamic import Dynamic
from revelm.decoding.rule import Rule
from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.engine.run import Run
from revelm.models.language_model import LanguageModel
from revelm.models.load import new_model
from revelm.trajectories.record import Trajectory

VOCAB, EOS, PAD, MASK = 50, 46, 47, 48
SHARPNESS = 8.0
RULES: tuple[Rule, ...] = (Static(1), Static(3), Dynamic(0.3), Dynamic(0.9))
SETTINGS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0, "confidence": "max"},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 1.3, "top_p": 0.8, "confidence": "max"},
    {"temperature": 0.9, "min_p": 0.02, "repetition_penalty": 1.4, "banned_ids": (3, 7), "confidence": "margin"},
)


def tiny_config(**changes: Any) -> dict[str, Any]:
    """config.json of a two-layer model; every size differs from every other one, so that a mix-up cannot fit."""
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "vocab_size": VOCAB}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256}
    ids = {"mask_token_id": MASK, "pad_token_id": PAD, "eos_token_id": EOS}
    return {"model_type": "sdar", "block_size": 4, "rope_theta": 10_000.0, **sizes, **heads, **ids, **changes}


def sharpened(model: LanguageModel, factor: float = SHARPNESS) -> LanguageModel:
    """``model`` with larger matrices, in place: fresh weights give flat distributions, which hide wrong contexts."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(factor)
    return model


@lru_cache(maxsize=16)
def sharp_model(block_size: int = 4, *, seed: int = 0, vocab_size: int = VOCAB) -> LanguageModel:
    """A float64 model with distributions that are far from flat. Shared: do not change it."""
    config = tiny_config(block_size=block_size, vocab_size=vocab_size)
    return sharpened(new_model(config, seed=seed).double())


@lru_cache(maxsize=32)
def declared_model(attention: str, *, is_shifted: bool = False, block_size: int = 4) -> LanguageModel:
    """A sharp float64 model declared to be of another kind. Shared: do not change it."""
    model = sharpened(new_model(tiny_config(block_size=block_size), seed=0).double())
    kind: dict[str, Any] = {"attention": attention, "is_shifted": is_shifted, "name": f"tiny-{attention}"}
    size = block_size if attention == "block" else None
    model.family = replace(model.family, **kind, block_size=size)
    return model


def prompt_of(length: int, seed: int) -> list[int]:
    """Random ids without special ones."""
    return np.random.default_rng(seed).integers(0, EOS, length).tolist()


def mixed_requests(rule: Rule, lengths: Sequence[int]) -> tuple[list[list[int]], list[Sampling]]:
    """Every prompt length with every setting; a fifth of the vocabulary stops, so that responses end in any block."""
    prompts, settings = [], []
    for length in lengths:
        for changes in SETTINGS:
            seed = len(prompts)
            prompts.append(prompt_of(length, seed))
            stops = tuple(range(seed % 3, EOS, 7)) if seed % 4 else ()
            fixed = {"rule": rule, "max_new_tokens": 3 + seed * 7 % 23, "seed": seed, "stop_ids": stops}
            settings.append(Sampling(**fixed, **changes))
    return prompts, settings


def started(engine: Engine, prompts: Sequence[Any], settings: Any) -> Run:
    """The inside of an engine that has just got these requests."""
    engine.submit(prompts, settings)
    assert engine._run is not None
    return engine._run


def assert_same(one: Trajectory, other: Trajectory, *, forward: bool = True, tolerance: float = 1e-10) -> None:
    """Tokens, steps, edits, forwards and ending identical; numbers within ``tolerance``."""
    assert one.prompt_ids.tolist() == other.prompt_ids.tolist()
    assert one.completion_ids.tolist() == other.completion_ids.tolist()
    assert one.step.tolist() == other.step.tolist()
    if forward:
        assert one.forward.tolist() == other.forward.tolist()
        assert one.num_forwards == other.num_forwards
    for edit, expected in zip(one.edits, other.edits, strict=True):
        assert replace(edit, logprob=expected.logprob) == expected
        assert abs(edit.logprob - expected.logprob) <= tolerance
    for name in ("num_steps", "stop_length", "finish_reason", "block_size", "grid_offset", "is_filtered"):
        assert vars(one)[name] == vars(other)[name], name
    for name in ("logprob", "logprob_t1", "confidence"):
        np.testing.assert_allclose(vars(one)[name], vars(other)[name], rtol=0, atol=tolerance, err_msg=name)
