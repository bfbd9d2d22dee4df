"""CUDA only: flex attention and the engine on a GPU give what the CPU gives."""

import numpy as np
import pytest
import torch

from revelm.decoding.sampling import Sampling
from revelm.engine.engine import Engine
from revelm.masks.visibility import Pattern
from revelm.models.load import new_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

SHAPE = {
    "model_type": "sdar",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "block_size": 4,
    "mask_token_id": 99,
    "pad_token_id": 98,
    "eos_token_id": 97,
    "rope_theta": 10_000.0,
}


def test_flex_attention_equals_dense_attention() -> None:
    """A mask_mod that disagrees with the dense mask would train another model on a GPU than on a CPU."""
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(0, 97, (2, 96)))
    place = torch.arange(96).expand(2, 96)
    positions = torch.where(place < 64, place, place - 32)
    stream = (place >= 64).long()
    pattern = Pattern(stream, positions // 4, torch.zeros_like(place))
    gradients = []
    for device in ("cpu", "cuda"):
        model = new_model(SHAPE, seed=0).to(device)
        here = Pattern(stream.to(device), (positions // 4).to(device), torch.zeros_like(place).to(device))
        features = model.body(tokens.to(device), positions.to(device), here if device == "cuda" else pattern)
        features.square().sum().backward()
        gradients.append([p.grad.cpu() for p in model.parameters() if p.grad is not None])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-2, atol=1e-3)


def test_engine_gives_the_same_tokens_on_both_devices() -> None:
    """A tensor left on the wrong device, or a kernel that ignores the limit, would only show on a GPU."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 97, int(n)).tolist() for n in rng.integers(1, 30, 16)]
    found = []
    for device in ("cpu", "cuda"):
        engine = Engine(new_model(SHAPE, seed=0).double().to(device), num_slots=5)
        found.append(engine.generate(prompts, Sampling(max_new_tokens=24)))
    for first, second in zip(*found, strict=True):
        assert first.completion_ids.tolist() == second.completion_ids.tolist()
        assert first.step.tolist() == second.step.tolist()
