"""Several processes with one error: it is said once."""

from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from revelm.cli.main import main
from revelm.parallel.spokesman import speaks_of


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> TCPStore:
    """The store that torchrun would give its processes."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "3"}
    for name, value in (told | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, value)
    return store


def test_an_error_of_all_is_said_once(
    agent: TCPStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches the same line from every process, other exit codes, and an error of one process that nobody says."""
    said = []
    for rank, name in (("0", "x"), ("1", "x"), ("2", "y")):
        monkeypatch.setenv("RANK", rank)
        assert main(["trace", "view", f"{name}.parquet"]) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == "revelm: error: trajectory file 'x.parquet' does not exist\n"
    assert said[1] == ""
    assert said[2] == "revelm: process 2: error: trajectory file 'y.parquet' does not exist\n"


def test_an_error_of_another_process_is_said(agent: TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a run that ends without a word because the main process has no error, or torchrun starts it again."""
    monkeypatch.setenv("RANK", "1")
    assert speaks_of("one", patience=timedelta(milliseconds=1))
    monkeypatch.setenv("RANK", "0")
    assert speaks_of("one")
    monkeypatch.setenv("RANK", "1")
    assert not speaks_of("one")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert speaks_of("one", patience=timedelta(milliseconds=1))
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    assert speaks_of("one")
