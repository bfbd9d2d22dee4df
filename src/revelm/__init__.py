"""Revelm: train and run diffusion language models, which write by revealing hidden tokens in parallel."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from revelm.data.tokenizer import save_tokenizer
    from revelm.decoding.credit import Credit
    from revelm.decoding.dynamic import Dynamic
    from revelm.decoding.entropy_bounded import EntropyBounded
    from revelm.decoding.factor import Factor
    from revelm.decoding.hierarchical import Hierarchical
    from revelm.decoding.joint import Joint
    from revelm.decoding.random import Random
    from revelm.decoding.rule import Rule
    from revelm.decoding.sampling import Sampling
    from revelm.decoding.sequential import Sequential
    from revelm.decoding.static import Static
    from revelm.decoding.untempered import Untempered
    from revelm.engine.async_engine import AsyncEngine
    from revelm.engine.engine import Engine
    from revelm.engine.generate import generate
    from revelm.engine.prompts import Infill
    from revelm.engine.run import Update
    from revelm.engine.settings import Approximate, Exact, Limits, QueueFullError, Uncached
    from revelm.models.load import load_model, load_tokenizer
    from revelm.models.save import save_model
    from revelm.objectives.batch import Text
    from revelm.objectives.likelihood import loglikelihood
    from revelm.trajectories.record import Trajectory

__all__ = [
    "Approximate",
    "AsyncEngine",
    "Credit",
    "Dynamic",
    "Engine",
    "EntropyBounded",
    "Exact",
    "Factor",
    "Hierarchical",
    "Infill",
    "Joint",
    "Limits",
    "QueueFullError",
    "Random",
    "Rule",
    "Sampling",
    "Sequential",
    "Static",
    "Text",
    "Trajectory",
    "Uncached",
    "Untempered",
    "Update",
    "generate",
    "load_model",
    "load_tokenizer",
    "loglikelihood",
    "save_model",
    "save_tokenizer",
]
__version__ = "0.1.0"

_HOMES = {
    "Approximate": "revelm.engine.settings",
    "AsyncEngine": "revelm.engine.async_engine",
    "Credit": "revelm.decoding.credit",
    "Dynamic": "revelm.decoding.dynamic",
    "Engine": "revelm.engine.engine",
    "EntropyBounded": "revelm.decoding.entropy_bounded",
    "Exact": "revelm.engine.settings",
    "Factor": "revelm.decoding.factor",
    "Hierarchical": "revelm.decoding.hierarchical",
    "Infill": "revelm.engine.prompts",
    "Joint": "revelm.decoding.joint",
    "Limits": "revelm.engine.settings",
    "QueueFullError": "revelm.engine.settings",
    "Random": "revelm.decoding.random",
    "Rule": "revelm.decoding.rule",
    "Sampling": "revelm.decoding.sampling",
    "Sequential": "revelm.decoding.sequential",
    "Static": "revelm.decoding.static",
    "Untempered": "revelm.decoding.untempered",
    "Text": "revelm.objectives.batch",
    "Trajectory": "revelm.trajectories.record",
    "Uncached": "revelm.engine.settings",
    "Update": "revelm.engine.run",
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
