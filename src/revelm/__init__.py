"""Revelm: train and run diffusion language models, which write by revealing hidden tokens in parallel."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from revelm.data.tokenizer import save_tokenizer
    from revelm.decoding.dynamic import Dynamic
    from revelm.decoding.sampling import Sampling
    from revelm.decoding.static import Static
    from revelm.engine.engine import Engine
    from revelm.engine.generate import generate
    from revelm.models.load import load_model, load_tokenizer
    from revelm.models.save import save_model
    from revelm.objectives.batch import Text
    from revelm.objectives.likelihood import loglikelihood
    from revelm.trajectories.record import Trajectory

__all__ = [
    "Dynamic",
    "Engine",
    "Sampling",
    "Static",
    "Text",
    "Trajectory",
    "generate",
    "load_model",
    "load_tokenizer",
    "loglikelihood",
    "save_model",
    "save_tokenizer",
]
__version__ = "0.1.0"

_HOMES = {
    "Dynamic": "revelm.decoding.dynamic",
    "Engine": "revelm.engine.engine",
    "Sampling": "revelm.decoding.sampling",
    "Static": "revelm.decoding.static",
    "Text": "revelm.objectives.batch",
    "Trajectory": "revelm.trajectories.record",
    "generate": "revelm.engine.generate",
    "load_model": "revelm.models.load",
    "load_tokenizer": "revelm.models.load",
    "loglikelihood": "revelm.objectives.likelihood",
    "save_model": "revelm.models.save",
    "save_tokenizer": "revelm.data.tokenizer",
}


def __getattr__(name: str) -> Any:
    """Public names load their module on first use, so that ``import revelm`` and ``revelm --help`` need no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'revelm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
