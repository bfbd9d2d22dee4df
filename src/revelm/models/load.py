"""Models from and to Hugging Face directories: config.json, safetensors shards, official parameter names."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from revelm.core.registry import MODELS, build, nearest
from revelm.core.types import Family
from revelm.models.language_model import Initialisation, LanguageModel, initialise

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
LATEST = "LATEST"


def checkpoint_path(path: str | Path) -> Path:
    """The checkpoint directory that ``path`` means: itself, or what the LATEST file of a run directory names."""
    folder = Path(path)
    pointer = folder / LATEST
    if (folder / "config.json").is_file() or not pointer.is_file():
        return folder
    target = folder / pointer.read_text(encoding="utf-8").strip()
    if not target.is_dir() or target.resolve() == folder.resolve():
        raise ValueError(f"{pointer} names {target.name!r}, which does not exist; the run directory is incomplete")
    return checkpoint_path(target)


def load_model(path: str | Path, *, dtype: str | torch.dtype = "float32", device: str = "cpu") -> LanguageModel:
    """Load the checkpoint directory ``path`` natively, without remote code.

    ``dtype``: "float32", "bfloat16", "float16", "float64" or a torch dtype. Raises ValueError (one sentence: the
    file, what is wrong, the remedy) for anything that is not a complete checkpoint of a known family.
    """
    if isinstance(dtype, str) and dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, allowed: {', '.join(DTYPES)}")
    place = _device(device)
    folder = checkpoint_path(path)
    config = read_model_config(folder)
    kind = _kind(config, folder)
    model = _empty_model(kind, config, _special_ids(config, folder))
    _fill(model, kind, _weight_files(folder), folder)
    return model.to(device=place, dtype=DTYPES[dtype] if isinstance(dtype, str) else dtype).eval()


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device is {name!r}, expected a name such as 'cpu', 'cuda' or 'cuda:1'") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices here; use 'cpu'")
    return device


def new_model(
    config: Mapping[str, Any], *, seed: int, dtype: str = "float32", how: Initialisation | None = None
) -> LanguageModel:
    """A randomly initialised model from an official config that carries mask, pad and end-of-turn ids."""
    kind = build("models", {"kind": config["model_type"]})
    model = _empty_model(kind, config, _special_ids(config, None)).to_empty(device="cpu").float()
    if model.sizes.tie_word_embeddings:
        model.lm_head.weight = model.decoder.embed_tokens.weight
    initialise(model, torch.Generator().manual_seed(seed), how or Initialisation())
    return model.to(DTYPES[dtype]).eval()


def save_model(model: LanguageModel, folder: str | Path) -> None:
    """Write config.json and model.safetensors under official names into ``folder`` (created if missing)."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    kind = build("models", {"kind": model.family.name})
    config = {**model.config, "model_type": kind.model_type, "architectures": [kind.architecture]}
    config |= {"dtype": str(model.dtype).removeprefix("torch."), "block_size": model.family.block_size}
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file(official_state(model), target / WEIGHTS, metadata={"format": "pt"})


def official_state(model: LanguageModel) -> dict[str, Tensor]:
    """Parameters by official name; the head is left out when it is tied to the embedding."""
    kind = build("models", {"kind": model.family.name})
    skipped = {"lm_head.weight"} if model.sizes.tie_word_embeddings else set()
    state = {k: v for k, v in model.state_dict().items() if k not in skipped}
    return {_translate(k, kind.names, to_official=True): v.detach().contiguous() for k, v in state.items()}


def read_model_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint directory; ValueError when the directory is not one."""
    file = folder / "config.json"
    if not folder.is_dir():
        raise ValueError(f"model path {str(folder)!r} is not a directory; give a local checkpoint directory")
    if not file.is_file():
        raise ValueError(f"{file} is missing: not a checkpoint directory, or one that was only half written")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not valid JSON ({error}); the checkpoint is damaged") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds a {type(config).__name__}, expected an object of fields")
    return config


def _kind(config: Mapping[str, Any], folder: Path) -> Any:
    name = config.get("model_type")
    if name not in MODELS:
        hint = nearest(str(name), MODELS)
        known = ", ".join(sorted(MODELS))
        raise ValueError(f"{folder / 'config.json'}: model_type {name!r} is not known{hint}; known: {known}")
    return build("models", {"kind": name})


def _special_ids(config: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """Mask, pad and stop ids: from config.json, else from the checkpoint's tokenizer."""
    mask, pad, stop = (config.get(f"{name}_token_id") for name in ("mask", "pad", "eos"))
    if folder is not None and (mask is None or pad is None or stop is None):
        from revelm.data.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(folder)
        mask = tokenizer.mask_token_id if mask is None else mask
        pad = tokenizer.pad_token_id if pad is None else pad
        stop = tokenizer.eos_token_id if stop is None else stop
    if mask is None:
        raise ValueError(f"{folder}: no mask token: config.json has no mask_token_id and the tokenizer has none either")
    stops = [] if stop is None else stop if isinstance(stop, list) else [stop]
    pad = pad if pad is not None else (stops[0] if stops else mask)
    return {"mask_id": mask, "pad_id": pad, "stop_ids": stops}


def _empty_model(kind: Any, config: Mapping[str, Any], special_ids: Mapping[str, Any]) -> LanguageModel:
    try:
        sizes, family = kind.sizes(config), kind.family(config, special_ids)
    except KeyError as error:
        raise ValueError(f"config.json of a {kind.model_type} model lacks the field {error}") from error
    _check_ids(family)
    with torch.device("meta"):
        return LanguageModel(family, sizes, config)


def _check_ids(family: Family) -> None:
    for name, token in (("mask", family.mask_id), ("pad", family.pad_id), *(("stop", i) for i in family.stop_ids)):
        if not 0 <= token < family.vocab_size:
            raise ValueError(f"{name} token id {token} lies outside the vocabulary of {family.vocab_size} entries")
    if family.attention == "block" and (not isinstance(family.block_size, int) or family.block_size < 1):
        raise ValueError(f"config.json: block_size is {family.block_size!r}, must be an integer of at least 1")


def _weight_files(folder: Path) -> dict[str, Path]:
    """Official tensor name -> file that holds it."""
    index = folder / INDEX
    if index.is_file():
        table = _weight_map(index)
        missing = sorted({f for f in table.values() if not (folder / f).is_file()})
        if missing:
            raise ValueError(f"{index} names {missing[0]}, which is missing: the checkpoint is incomplete")
        return {name: folder / file for name, file in table.items()}
    file = folder / WEIGHTS
    if not file.is_file():
        raise ValueError(f"{file} is missing: not a checkpoint directory, or one that was only half written")
    with _opened(file) as handle:
        return dict.fromkeys(handle.keys(), file)


def _weight_map(index: Path) -> dict[str, str]:
    try:
        return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index} is not an index of tensor names; the checkpoint is damaged") from error


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is damaged or truncated ({error}); copy the checkpoint again") from error


def _fill(model: LanguageModel, kind: Any, files: Mapping[str, Path], folder: Path) -> None:
    """Stream every tensor from disk into the meta-device model; names and shapes must match exactly."""
    wanted = {_translate(k, kind.names, to_official=True): (k, v) for k, v in model.state_dict().items()}
    tied = model.sizes.tie_word_embeddings
    missing = [n for n in wanted if n not in files and not (tied and n == "lm_head.weight")]
    if missing:
        raise ValueError(f"{folder} lacks {len(missing)} of {len(wanted)} tensors, the first is {missing[0]!r}")
    unknown = [n for n in files if n not in wanted]
    if unknown:
        raise ValueError(f"{folder} has {len(unknown)} tensors that its config does not, such as {unknown[0]!r}")
    state: dict[str, Tensor] = {}
    for file in sorted(set(files.values())):
        with _opened(file) as handle:
            names = [name for name, home in files.items() if home == file]
            absent = sorted(set(names) - set(handle.keys()))
            if absent:
                raise ValueError(f"{file} lacks {absent[0]!r}, which {INDEX} puts there; the checkpoint is incomplete")
            for name in names:
                state[wanted[name][0]] = _checked(handle.get_tensor(name), wanted[name][1], name, file)
    if tied:
        state["lm_head.weight"] = state["decoder.embed_tokens.weight"]
    model.load_state_dict(state, assign=True)
    if tied:
        model.lm_head.weight = model.decoder.embed_tokens.weight


def _checked(tensor: Tensor, expected: Tensor, name: str, file: Path) -> Tensor:
    if tensor.shape != expected.shape:
        raise ValueError(f"{file}: {name} has shape {list(tensor.shape)}, config.json implies {list(expected.shape)}")
    return tensor


def _translate(name: str, table: tuple[tuple[str, str], ...], *, to_official: bool) -> str:
    for official, native in table:
        old, new = (native, official) if to_official else (official, native)
        if name.startswith(old):
            return new + name[len(old) :]
    raise AssertionError(f"parameter {name} has no name in the family's table")
