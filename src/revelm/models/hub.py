"""Checkpoints of the Hugging Face hub: first the files that say what a model is, then only the weights it needs.

A release may hold its weights twice (in another layout, or in folders for other programs): what its index names is
fetched, and nothing else.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from revelm.data.tokenizer_files import TOKENIZER_FILES
from revelm.models.shards import INDEX, WEIGHTS, read_index

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
FACTS = ("config.json", INDEX, ADAPTER_FILES[0])
BESIDE = ("generation_config.json", *TOKENIZER_FILES, "*.py")


def is_hub_id(name: str) -> bool:
    """Whether ``name`` could be a hub id, owner/name or owner/name@revision: without what only paths have."""
    repository, at, revision = name.partition("@")
    parts = repository.split("/")
    return len(parts) == 2 and all(parts) and name[0] not in "./~" and (not at or bool(revision))


def download(name: str, *, check: Callable[[Path], None]) -> Path:
    """The local copy of the hub's ``name``, fetched once.

    ``check`` sees the folder when it holds config.json alone, and raises ValueError for a model that is of no use. So
    does this, when the hub does not have the model, asks for a login, fails, or cannot be reached.
    """
    folder = _fetch(name, FACTS)
    is_adapter = (folder / ADAPTER_FILES[0]).is_file()
    if (folder / FACTS[0]).is_file() or not is_adapter:
        check(folder)
    index = folder / INDEX
    weights = set(read_index(index).values()) if index.is_file() else {WEIGHTS}
    folder = _fetch(name, (*FACTS, *sorted(weights), *(ADAPTER_FILES if is_adapter else ()), *BESIDE))
    if not any((folder / file).is_file() for file in (*weights, ADAPTER_FILES[1])):
        raise ValueError(f"model {name!r} has no {min(weights)} on the hub; only safetensors are read")
    return folder


def _fetch(name: str, patterns: Iterable[str]) -> Path:
    """The folder with the files of the hub's ``name`` that match, none from folders below."""
    from huggingface_hub import errors, snapshot_download

    repository, _, revision = name.partition("@")
    where = f"model {name!r} is no local directory"
    try:
        return Path(
            snapshot_download(
                repository, revision=revision or None, allow_patterns=list(patterns), ignore_patterns=["*/*"]
            )
        )
    except errors.GatedRepoError as error:
        raise ValueError(
            f"{where}, and on the hub it is gated: accept its terms on its page, then log in with `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(f"{where}, and the hub has no such model (or it is private: `hf auth login`)") from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{where}, and on the hub it has no revision {revision!r}") from error
    except Exception as error:  # a boundary: the network and its many libraries
        raise ValueError(f"{where}, {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why a download failed, in a clause: what the hub answered, or that it did not."""
    from huggingface_hub import errors

    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    if isinstance(error, errors.LocalEntryNotFoundError) and not isinstance(cause, errors.HfHubHTTPError):
        return "is not in the local hub cache, and the hub cannot be reached from here"
    reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
    return f"and it could not be fetched from the hub ({reason})"
