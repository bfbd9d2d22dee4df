"""Which files of a directory are the tokenizer's, and what every release of transformers can read in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "*.model",
    "*.jinja",
)
GENERIC_CLASS = "PreTrainedTokenizerFast"
LEAKED = ("is_local", "local_files_only", "backend")  # how a tokenizer was read, which says nothing about it


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of the tokenizer in ``folder``, its chat template included."""
    return sorted(file for pattern in TOKENIZER_FILES for file in folder.glob(pattern) if file.is_file())


def portable_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json as transformers 5 writes it, in the words that transformers 4 reads too.

    The generic class keeps its older name, and a list of further special tokens its older field: under the newer one
    transformers 4 expects an object.
    """
    found = {name: value for name, value in settings.items() if name not in LEAKED}
    found["tokenizer_class"] = found["tokenizer_class"].replace("TokenizersBackend", GENERIC_CLASS)
    if isinstance(found.get("extra_special_tokens"), list):
        found["additional_special_tokens"] = found.pop("extra_special_tokens")
    return found
