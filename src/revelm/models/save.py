"""Models to Hugging Face directories: official names, official fields, shards of a limited size."""

import json
import os
import re
from pathlib import Path

from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from revelm.models.kind import kind_named
from revelm.models.language_model import LanguageModel
from revelm.models.names import pieces
from revelm.models.shards import INDEX

MAX_SHARD_SIZE = "5GB"
OS_ERROR = re.compile(r"\(os error (\d+)\)")
SHARD_NAMES = "model{suffix}.safetensors"


def save_model(model: LanguageModel, folder: str | Path, *, max_shard_size: str | int = MAX_SHARD_SIZE) -> None:
    """Write config.json, the weights under official names, and what came with the checkpoint, into ``folder``.

    ``max_shard_size`` (bytes, or text such as "5GB"): above it the weights are split, with an index. The folder is
    created if missing; weights of an earlier save in it are replaced.
    """
    state = official_state(model)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    config = json.dumps(official_config(model), indent=2, sort_keys=True)
    (target / "config.json").write_text(config + "\n", encoding="utf-8")
    for name, content in model.companions.items():
        (target / name).write_bytes(content)
    plan = split_state_dict_into_shards_factory(
        state,
        get_storage_size=lambda tensor: tensor.numel() * tensor.element_size(),
        get_storage_id=lambda tensor: None,  # the experts of a layer share a storage, and are tensors of their own
        filename_pattern=SHARD_NAMES,
        max_shard_size=max_shard_size,
    )
    for old in (*target.glob("model*.safetensors"), target / INDEX):
        old.unlink(missing_ok=True)
    for name, tensors in plan.filename_to_tensors.items():
        _write({key: state[key].contiguous() for key in tensors}, target / name)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (target / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write(tensors: dict[str, Tensor], file: Path) -> None:
    """One safetensors file. OSError, as of any other file, when it cannot be written (disk full, rights)."""
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        found = OS_ERROR.search(str(error))
        if found is None:
            raise
        code = int(found.group(1))
        raise OSError(code, os.strerror(code), str(file)) from error


def official_config(model: LanguageModel) -> dict[str, object]:
    """config.json as loaded, with the family's type, the block size and the dtype of the weights as they are now."""
    kind = kind_named(model.family.name)
    config = {**model.config, "model_type": kind.model_type}
    config.setdefault("architectures", [kind.architecture])
    if model.family.block_size is not None:
        config[kind.block_size_field] = model.family.block_size
    field = "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"
    return config | {field: str(model.dtype).removeprefix("torch.")}


def official_state(model: LanguageModel) -> dict[str, Tensor]:
    """Tensors by official name; the head is left out when it is tied to the embedding.

    ValueError for a model with an adapter that is not merged, or with 4-bit weights: no other program could read them.
    """
    if model.adapter is not None:
        raise ValueError(
            "the model has an adapter beside its weights: merge it first (revelm.models.lora.merge_lora), or save the "
            "adapter alone (save_adapter)"
        )
    if model.quantization is not None:
        raise ValueError(f"{model.quantization} weights are not saved; the checkpoint they came from still has them")
    skipped = {"lm_head.weight"} if model.sizes.tie_word_embeddings else set()
    state = {k: v.detach() for k, v in model.state_dict().items() if k not in skipped}
    return {
        piece.official: piece.of(state) for piece in pieces(state, kind_named(model.family.name).tables(model.config))
    }
