"""A config.json in another family's words: possible where both describe the same decoder.

Two families have the same backbone when what their kinds read from a config (``DecoderConfig``) is equal: the same
parameters, used in the same way. Attention and shift may differ, for they are no parameters; training adapts to them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from revelm.core.registry import build, names
from revelm.models.decoder import DecoderConfig
from revelm.models.kind import Kind, sizes_of
from revelm.models.rotary import Rope, scaling_of

CARRIED = ("bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id", "dtype", "torch_dtype", "initializer_range")


def translated(config: Mapping[str, Any], source: Kind, target: Kind, *, block_size: int | None) -> dict[str, Any]:
    """config.json of the same decoder as a ``target``, with ``block_size`` or else the one it has, or the family's.

    ValueError says what does not fit and lists the families that do; or that ``target`` has no blocks.
    """
    if block_size is not None and target.attention != "block":
        raise ValueError(f"block_size: {block_size}, but {target.name} has {target.attention} attention, no blocks")
    found = dict(config)
    if target.name != source.name:
        found, reason = _attempt(config, source, target)
        if reason is not None:
            fitting = compatible(config, source)
            listed = ", ".join(fitting) if fitting else "none of the families"
            raise ValueError(f"to: this {source.name} model cannot become {target.name} ({reason}); it fits {listed}")
    if target.attention == "block":
        size = block_size or found.get(target.block_size_field) or target.default_block_size
        if size is None:
            raise ValueError(f"block_size: {target.name} has no default; give one")
        found[target.block_size_field] = size
    return found


def compatible(config: Mapping[str, Any], source: Kind) -> list[str]:
    """Names of the other diffusion families that hold the decoder of ``config``."""
    kinds: list[Kind] = [build("models", name) for name in names("models") if name != source.name]
    return [k.name for k in kinds if k.attention != "causal" and _attempt(config, source, k)[1] is None]


def _attempt(config: Mapping[str, Any], source: Kind, target: Kind) -> tuple[dict[str, Any], str | None]:
    """The config as a ``target``, and why it cannot be one (None: it can)."""
    if target.attention == "causal":
        return {}, "which is autoregressive"
    sizes = sizes_of(source, config)
    if target.fields_of is not None:
        found = {name: config[name] for name in CARRIED if name in config} | target.fields_of(sizes)
    else:
        # auto_map names modelling code of the source family
        found = {name: value for name, value in config.items() if name not in ("auto_map", source.block_size_field)}
        found |= {name: value for name, value in _plain(config, sizes).items() if found.get(name) is None}
    found |= {"model_type": target.model_type, "architectures": [target.architecture]}
    try:
        made = target.sizes(found)
    except KeyError:
        return {}, "which has another layout"
    except ValueError as error:
        return {}, str(error).removeprefix("config.json: ")
    return found, _difference(sizes, made)


def _plain(config: Mapping[str, Any], sizes: DecoderConfig) -> dict[str, Any]:
    """What transformers 5 writes in other words, in those of transformers 4, which the families' own code reads."""
    scaling = {k: v for k, v in scaling_of(config).items() if k not in ("rope_theta", "partial_rotary_factor", "type")}
    rope = sizes.rope
    found: dict[str, Any] = {
        "rope_theta": rope.theta,
        "rope_scaling": None if rope.kind == "default" else scaling | {"rope_type": rope.kind},
        "head_dim": sizes.head_dim,
    }
    return found if sizes.experts is None else found | {"num_experts": sizes.experts.num_experts}


def _difference(sizes: DecoderConfig, made: DecoderConfig) -> str | None:
    """The first setting in which two decoders differ, in words."""
    for field in dataclasses.fields(DecoderConfig):
        one, other = (vars(given)[field.name] for given in (sizes, made))
        if field.name == "rope":
            one, other = _in_effect(one), _in_effect(other)
        if one != other:
            return f"{field.name} is {one}, there it is {other}"
    return None


def _in_effect(rope: Rope) -> Rope:
    """``rope`` without the numbers that its kind does not use."""
    return rope if rope.kind in ("llama3", "yarn") else Rope(rope.dim, rope.theta, rope.kind, rope.factor)
