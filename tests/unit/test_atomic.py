"""Files and directories that appear complete or not at all; seeds that never change."""

import errno
import os
from pathlib import Path

import pytest

from revelm.core import atomic
from revelm.core.atomic import atomic_directory, replace_directory, write_json_atomic, write_text_atomic
from revelm.core.seeds import derive_seed


def no_space(*_: object) -> None:
    """What the operating system does on a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


def listed(folder: Path) -> list[str]:
    """Names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_write_and_overwrite(tmp_path: Path) -> None:
    """Catches left-over temporary files and a missing parent folder."""
    file = tmp_path / "deep" / "a.json"
    write_json_atomic(file, {"a": "ü\r\n"})
    write_text_atomic(file, "zwei\r\n")
    assert file.read_bytes() == b"zwei\r\n"
    assert listed(file.parent) == ["a.json"]


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a truncated file after a failed write."""
    file = tmp_path / "a.txt"
    write_text_atomic(file, "old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="disk full") as caught:
        write_text_atomic(file, "new")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(file))
    assert file.read_text() == "old"
    assert listed(tmp_path) == ["a.txt"]


def test_value_that_is_not_json_touches_nothing(tmp_path: Path) -> None:
    """Catches serialising into the open file."""
    write_text_atomic(tmp_path / "a.json", "old")
    with pytest.raises(TypeError):
        write_json_atomic(tmp_path / "a.json", {"a": object()})
    assert (tmp_path / "a.json").read_text() == "old"


def test_directory_appears_and_is_replaced(tmp_path: Path) -> None:
    """Catches files of the old directory surviving in the new one."""
    final = tmp_path / "checkpoint-1"
    for name in ("a", "b"):
        with atomic_directory(final) as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / name).write_text(name)
            assert not (final / "sub" / name).exists()
    assert listed(final / "sub") == ["b"]
    assert listed(tmp_path) == ["checkpoint-1"]


def one_old_checkpoint(tmp_path: Path) -> tuple[Path, Path]:
    """A finished directory, and a folder that is to replace it."""
    final, new = tmp_path / "checkpoint-1", tmp_path / "new"
    with atomic_directory(final) as folder:
        (folder / "a").write_text("old")
    new.mkdir()
    (new / "a").write_text("new")
    return final, new


def test_error_while_filling_leaves_the_old_directory(tmp_path: Path) -> None:
    """Catches a half-written checkpoint that looks finished."""
    final, new = one_old_checkpoint(tmp_path)

    def fill() -> None:
        with atomic_directory(final) as folder:
            new.rename(folder / "sub")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fill()
    assert (final / "a").read_text() == "old"
    assert listed(tmp_path) == ["checkpoint-1"]


def test_full_disk_leaves_the_old_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches renaming before the new files are safe on the disk."""
    final, new = one_old_checkpoint(tmp_path)
    monkeypatch.setattr(atomic, "_sync", no_space)
    with pytest.raises(OSError, match="disk full"):
        replace_directory(new, final)
    assert (final / "a").read_text() == "old"
    assert listed(tmp_path) == ["checkpoint-1"]


def test_failed_rename_puts_the_old_directory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an error between the two renames that leaves no directory at all."""
    final, new = one_old_checkpoint(tmp_path)
    rename = Path.rename

    def fail_for_new(self: Path, target: Path) -> Path:
        if self == new:
            raise OSError(errno.EIO, "broken")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(OSError, match="broken"):
        replace_directory(new, final)
    assert (final / "a").read_text() == "old"
    assert listed(tmp_path) == ["checkpoint-1"]


def test_seeds_are_stable_and_distinct() -> None:
    """Catches Python's salted hash, and parts that run into each other."""
    assert derive_seed(0, "rollout", 7) == derive_seed(0, "rollout", 7)
    seen = {derive_seed(*p) for p in [(1,), ("1",), (1, 1), (11,), ("a", "b"), ("ab",), ("a", "b", ""), (-1,), ()]}
    assert len(seen) == 9
    assert all(0 <= seed < 2**63 for seed in seen)
    assert derive_seed("revelm", 1) == 387615122210510648
    with pytest.raises(TypeError):
        derive_seed(1.0)  # type: ignore[arg-type]
