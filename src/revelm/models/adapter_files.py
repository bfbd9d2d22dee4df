"""Adapter directories in peft's layout: which base they belong to, and what their files hold. Needs neither peft nor a
model.

``adapter_config.json`` names the base and the settings, ``adapter_model.safetensors`` holds
``base_model.model.<official module>.lora_A.weight`` and ``...lora_B.weight``.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from revelm.models.checkpoint_files import is_hub_id, read_json, resolve_checkpoint
from revelm.models.shards import INDEX, WEIGHTS

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
NAME = re.compile(re.escape(PREFIX) + r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
# Settings of peft that change the computation and are not implemented, with the values that switch them off.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none", None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": (None, []),
    "target_parameters": (None, []),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "lora_bias": (False, None),
    "use_qalora": (False, None),
    "use_bdlora": (None, False),
    "alora_invocation_tokens": (None,),
    "arrow_config": (None,),
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),  # others change the base as well
}


def adapter_base(folder: Path) -> str | None:
    """The model (directory or hub id) that the adapter in ``folder`` was made for; None when there is only a model.

    ValueError when the adapter does not say, or names a directory that is not there.
    """
    config = read_json(folder / ADAPTER_CONFIG)
    if config is None or (folder / WEIGHTS).is_file() or (folder / INDEX).is_file():
        return None
    base, where = config.get("base_model_name_or_path"), f"{folder / ADAPTER_CONFIG}: base_model_name_or_path"
    if not base:
        raise ValueError(f"{where} is not set; put the base model's directory or hub id there")
    if Path(base).is_dir():
        if Path(base).resolve() == folder.resolve():
            raise ValueError(f"{where} is the adapter's own directory; put the base model's there")
        return str(base)
    if not is_hub_id(base):
        raise ValueError(f"{where} is {base!r}, which is not there; put the base model's new place there")
    return str(base)


def base_folder(folder: Path) -> Path:
    """The directory of the model itself: ``folder``, or for an adapter that of its base."""
    base = adapter_base(folder)
    return folder if base is None else base_folder(resolve_checkpoint(base))


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a LoRA adapter. ValueError for another method, or a variant that is not implemented."""
    file = folder / ADAPTER_CONFIG
    config = read_json(file)
    if config is None:
        raise ValueError(f"{file} is missing: not the directory of an adapter")
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{file}: peft_type is {config.get('peft_type')!r}, only 'LORA' is supported")
    for name in ("r", "lora_alpha"):
        if not isinstance(config.get(name), int | float):
            raise ValueError(f"{file}: {name} is {config.get(name)!r}, expected a number")
    for name, values in NEUTRAL.items():
        if name in config and config[name] not in values:
            raise ValueError(f"{file}: {name} is {config[name]!r}, which is not supported; allowed: {values[0]!r}")
    return config


def read_adapter_weights(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Official module name -> {"A": [rank, in], "B": [out, rank]}. ValueError when the file is not such an adapter."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        raise ValueError(f"{file} is missing; only adapters in safetensors are read")
    try:
        stored = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or truncated ({error}); copy the adapter again") from error
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        match = NAME.fullmatch(key)
        if match is None:
            raise ValueError(f"{file}: {key!r} is no matrix of a LoRA adapter, expected {PREFIX}<module>.lora_A.weight")
        found.setdefault(match["module"], {})[match["side"]] = tensor
    halves = [name for name, pair in found.items() if len(pair) < 2]
    if halves or not found:
        raise ValueError(f"{file} is incomplete: {halves[0] + ' has one matrix of two' if halves else 'it is empty'}")
    return found
