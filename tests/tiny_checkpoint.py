"""A model small enough to train for a few steps in a test, in memory or as a checkpoint directory."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from revelm.data.tokenizer import build_tiny_tokenizer, save_tokenizer
from revelm.models.language_model import LanguageModel
from revelm.models.load import new_model, save_model

CONFIG = {
    "model_type": "sdar",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 96,
    "block_size": 4,
}


@lru_cache(maxsize=1)
def tiny_tokenizer() -> Any:
    """Bytes and special tokens only: ids 0, 1, 2 are pad, mask and end of turn."""
    return build_tiny_tokenizer([], 262)


def tiny_model(*, seed: int = 0, dtype: str = "float32", spread: float = 0.3, **changes: Any) -> LanguageModel:
    """Random weights, large enough that every visible token matters; ``changes`` are fields of config.json."""
    ids = {"vocab_size": 262, "pad_token_id": 0, "mask_token_id": 1, "eos_token_id": 2}
    model = new_model({**CONFIG, **ids, **changes}, seed=seed, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, spread, generator=generator)
    return model


def save_tiny(folder: Path, **changes: Any) -> Path:
    """A complete checkpoint in ``folder``; ``changes`` as in ``tiny_model``. An untrained model's answers are noise."""
    save_model(tiny_model(**{"spread": 0.05, **changes}), folder)
    save_tokenizer(tiny_tokenizer(), folder)
    return folder
