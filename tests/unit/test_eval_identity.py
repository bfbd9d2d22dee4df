"""Whether an evaluation that is gone on with is the one that was begun."""

import json
from pathlib import Path

import pytest

from revelm.core.config import parse_config
from revelm.eval import identity
from revelm.eval.config import EvalConfig
from revelm.tasks.code import Code


def test_a_stop_between_the_first_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a folder that has a recipe and no digests, neither to be begun again nor to be gone on with; and what a
    kill left half written, which stays for ever."""
    config = parse_config(EvalConfig, {"model": "m", "task": "chain", "resume": True})

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("dump_yaml", "write_json_atomic"):
        with monkeypatch.context() as patch:
            patch.setattr(identity, name, stop)
            with pytest.raises(KeyboardInterrupt):
                identity.begin(tmp_path, config, {"weights": "w"})
        identity.begin(tmp_path / name, config, {"weights": "w"})
    identity.begin(tmp_path, config, {"weights": "w"})
    (tmp_path / "chain").mkdir()
    (tmp_path / "chain" / ".static.jsonl.17.tmp").touch()
    identity.begin(tmp_path, config, {"weights": "w"})
    assert list((tmp_path / "chain").iterdir()) == []


def test_other_tests_are_another_evaluation(tmp_path: Path) -> None:
    """Catches programs judged by the tests of before a stop, and others by those of a file that was changed since."""
    file = tmp_path / "code.jsonl"

    def state(test: str) -> object:
        file.write_text(json.dumps({"question": "Add.", "test_list": [test]}))
        task = Code(test_data=str(file))
        return identity.state_of(tmp_path, {"code": (task, task.problems("test"))})["problems"]

    assert state("assert add(1, 2) == 3") == state("assert add(1, 2) == 3")
    assert state("assert add(1, 2) == 3") != state("assert add(1, 2) == 4")
