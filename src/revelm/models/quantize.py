"""Frozen weights in 4 bits: normal-float blocks with quantised scales (QLoRA, arXiv 2305.14314), by bitsandbytes.

The linear maps of the layers become ``bitsandbytes.nn.Linear4bit`` while a checkpoint is loaded, one matrix at a time;
embedding, head, norms, routers and stacks of experts stay as they are. CUDA only. Such a model is for adapters
(``revelm.models.lora``) and for reading; its own weights are neither trained nor saved.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from revelm.models.language_model import LanguageModel

METHODS = ("nf4",)
BYTES_PER_WEIGHT = 0.55  # half a byte, and an 8-bit scale for each block of 64 with scales of its own

MakeLinear = Callable[[nn.Linear, Tensor], nn.Module]


def check_quantize(method: str, device: torch.device) -> None:
    """ValueError, before anything is loaded, when ``method`` is unknown or cannot be had on ``device``."""
    if method not in METHODS:
        raise ValueError(f"quantize is {method!r}, allowed: {', '.join(METHODS)}")
    if device.type != "cuda":
        raise ValueError(f"quantize={method!r} needs a CUDA device, the device is {device}; leave quantize out")
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"quantize={method!r} needs the package bitsandbytes: pip install 'revelm[train]'")


def quantisable(model: LanguageModel) -> tuple[str, ...]:
    """Names of the linear maps that are quantised: those of the layers but not their routers, in their order."""
    layers = model.decoder.layers.named_modules(prefix="decoder.layers")
    return tuple(name for name, module in layers if isinstance(module, nn.Linear) and "router" not in name.split("."))


def replace_linear(model: LanguageModel, name: str, weight: Tensor, *, make: MakeLinear) -> None:
    """Put ``make(linear, weight)`` in the place of the linear map ``name``, which has its bias already, if it has one.

    ``weight`` [out, in] is the matrix as it is stored, in the model's dtype.
    """
    linear = model.get_submodule(name)
    assert isinstance(linear, nn.Linear), f"{name} is no linear map"
    model.set_submodule(name, make(linear, weight))


def nf4_linear(linear: nn.Linear, weight: Tensor) -> nn.Module:
    """``linear`` with ``weight`` in 4 bits, on the device of ``weight``; products are computed in its dtype."""
    library: Any = import_module("bitsandbytes")
    packed = library.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=weight.dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    frozen = library.nn.Params4bit(weight, requires_grad=False, compress_statistics=True, quant_type="nf4")
    packed.weight = frozen.to(weight.device)  # the move is what quantises
    if linear.bias is not None:
        packed.bias = linear.bias
    return packed
