"""Which checkpoint a ``--model`` means."""

from pathlib import Path


def model_folder(path: str) -> str:
    """``path`` itself, or for a run directory the checkpoint that its LATEST names.

    Raises ValueError when LATEST names a directory that is not there.
    """
    run = Path(path)
    pointer = run / "LATEST"
    if (run / "config.json").is_file() or not pointer.is_file():
        return path
    folder = run / pointer.read_text(encoding="utf-8").strip()
    if not folder.is_dir():
        raise ValueError(f"--model {path}: its LATEST names {folder.name!r}, which does not exist; name a checkpoint")
    return str(folder)
