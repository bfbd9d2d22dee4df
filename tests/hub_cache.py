"""Data sets as ``datasets`` keeps them after a download, so that a test reads the hub's copy without a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def cache_data_set(cache: Path, name: str, splits: Mapping[str, Sequence[Mapping[str, Any]]], *, config: str) -> None:
    """Put ``owner/name`` into the folder that ``HF_DATASETS_CACHE`` is to name."""
    from datasets import Dataset, DatasetInfo, SplitDict, SplitInfo
    from datasets.arrow_writer import ArrowWriter

    owner, _, short = name.partition("/")
    folder = cache / f"{owner}___{short}" / config / "0.0.0" / ("a" * 40)
    folder.mkdir(parents=True)
    infos: dict[str, Any] = {}
    for split, rows in splits.items():
        features = Dataset.from_list([dict(row) for row in rows]).features
        with ArrowWriter(path=str(folder / f"{short}-{split}.arrow"), features=features) as writer:
            for row in rows:
                writer.write(dict(row))
            num_examples, num_bytes = writer.finalize()
        infos[split] = SplitInfo(name=split, num_bytes=num_bytes, num_examples=num_examples, dataset_name=short)
    info = DatasetInfo(
        features=features,
        splits=SplitDict(infos),
        builder_name="parquet",
        dataset_name=short,
        config_name=config,
        version="0.0.0",
    )
    info.write_to_directory(str(folder))


def offline(cache: Path) -> dict[str, str]:
    """The environment of a process that sees this cache and no network."""
    source = Path(__file__).resolve().parents[1] / "src"
    return {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cache / "home"),
        "HF_DATASETS_CACHE": str(cache),
        "PYTHONPATH": str(source),
    }
