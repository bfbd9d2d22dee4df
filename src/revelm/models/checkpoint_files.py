"""Where a checkpoint is and what stands beside its weights: a local directory first, else a hub id.

Nothing of a checkpoint is ever executed: modelling files that came with it are carried along when it is saved again,
so that other tools find them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LATEST = "LATEST"
CONFIG = "config.json"
HUB_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.py")
MAX_COMPANION_BYTES = 1 << 20


def checkpoint_path(path: str | Path) -> Path:
    """The checkpoint directory that ``path`` means: itself, or what the LATEST file of a run directory names."""
    folder = Path(path)
    pointer = folder / LATEST
    if (folder / CONFIG).is_file() or not pointer.is_file():
        return folder
    target = folder / pointer.read_text(encoding="utf-8").strip()
    if not target.is_dir() or target.resolve() == folder.resolve():
        raise ValueError(f"{pointer} names {target.name!r}, which does not exist; the run directory is incomplete")
    return checkpoint_path(target)


def resolve_checkpoint(path_or_id: str | Path) -> Path:
    """The local directory of ``path_or_id``: a checkpoint or run directory, or a hub id, which is downloaded once.

    ValueError when there is no such directory and the hub does not have it, asks for a login, or cannot be reached.
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return checkpoint_path(folder)
    name = str(path_or_id)
    if not is_hub_id(name):
        raise ValueError(f"model path {name!r} is not a directory; give a checkpoint directory or a hub id owner/name")
    return _download(name)


def is_hub_id(name: str) -> bool:
    """Whether ``name`` could be a hub id: owner/name, without what only paths have."""
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and name[0] not in "./~"


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    where = f"model {name!r} is no local directory"
    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_PATTERNS)))
    except GatedRepoError as error:
        raise ValueError(
            f"{where}, and on the hub it is gated: accept its terms on its page, then log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"{where}, and the hub has no such model (or it is private: `hf auth login`)") from error
    except LocalEntryNotFoundError as error:
        raise ValueError(f"{where}, is not in the local hub cache, and the hub cannot be reached from here") from error
    except Exception as error:  # a boundary: the network and its many libraries
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"{where}, and it could not be fetched from the hub ({reason})") from error


def read_model_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint directory; ValueError when the directory is not one."""
    if not folder.is_dir():
        raise ValueError(f"model path {str(folder)!r} is not a directory; give a local checkpoint directory")
    config = read_json(folder / CONFIG)
    if config is None:
        raise ValueError(f"{folder / CONFIG} is missing: not a checkpoint directory, or one that was only half written")
    method = config.get("quantization_config")
    if method is not None:
        kind = method.get("quant_method", "unknown") if isinstance(method, dict) else method
        raise ValueError(
            f"{folder / CONFIG}: the checkpoint is quantised ({kind}), which is not supported; get the bf16 release"
        )
    return config


def read_json(file: Path) -> dict[str, Any] | None:
    """The object in ``file``, None where there is no such file. ValueError when it holds anything else."""
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({error}); the checkpoint is damaged") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, expected an object of fields")
    return content


def companions(folder: Path, config: Mapping[str, Any]) -> dict[str, bytes]:
    """Small files that other tools expect beside the weights: generation settings, and modelling code for them."""
    names = {"generation_config.json"}
    if config.get("auto_map"):
        names |= {file.name for file in folder.glob("*.py")}
    files = [folder / name for name in sorted(names) if (folder / name).is_file()]
    return {file.name: file.read_bytes() for file in files if file.stat().st_size <= MAX_COMPANION_BYTES}
