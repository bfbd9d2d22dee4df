"""Whether an evaluation that is gone on with is the one that was begun."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from revelm.core.config import parse_config
from revelm.core.types import Problem
from revelm.eval import identity
from revelm.eval.config import EvalConfig
from revelm.eval.digests import digest_of_problems, digest_of_weights, spelt
from revelm.tasks.code import Code
from tests.tiny_checkpoint import save_tiny
from tests.toy_tasks import Parity

STATE = {"weights": "w", "problems": {"device": "p"}}
RECIPE: dict[str, Any] = {
    "model": "m",
    "settings": {"out": {"temperature": 0}, "a.b": {"top_k": 3}},
    "tasks": {"device": {"task": {"kind": "tests.toy_tasks:Parity", "num_train": 7}, "seed": 1}},
}


def config(**changes: Any) -> EvalConfig:
    return parse_config(EvalConfig, {**RECIPE, "resume": True, **changes})


def test_a_stop_between_the_first_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a folder that has a recipe and no digests, neither to be begun again nor to be gone on with; and what a
    kill left half written, which stays for ever."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("dump_yaml", "write_json_atomic"):
        with monkeypatch.context() as patch:
            patch.setattr(identity, name, stop)
            with pytest.raises(KeyboardInterrupt):
                identity.begin(tmp_path, config(), STATE)
        identity.begin(tmp_path / name, config(), STATE)
    identity.begin(tmp_path, config(), STATE)
    (tmp_path / "chain").mkdir()
    (tmp_path / "chain" / ".static.jsonl.17.tmp").touch()
    identity.begin(tmp_path, config(), STATE)
    assert list((tmp_path / "chain").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"settings": {**RECIPE["settings"], "out": {"temperature": 1}}}, r"settings\.out\.temperature"),
        ({"settings": {"out": {"temperature": 0}}}, r"settings\.a\.b\.temperature"),
        ({"tasks": {"device": {**RECIPE["tasks"]["device"], "seed": 2}}}, r"tasks\.device\.seed"),
        ({"tasks": {"device": {**RECIPE["tasks"]["device"], "task": {"kind": "chain"}}}}, r"tasks\.device\.task\.kind"),
    ],
)
def test_names_are_not_fields(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    """Catches a setting or a task that may change because it is called like a field that may: "out", "device"."""
    identity.begin(tmp_path, config(), STATE)
    with pytest.raises(ValueError, match=f"resume: {field} is"):
        identity.begin(tmp_path, config(**changes), STATE)


def test_what_changes_no_answer_may_change(tmp_path: Path) -> None:
    """Catches a refusal for another name of the same weights, another k or another published number; and a recipe in
    the folder that stays what it was."""
    identity.begin(tmp_path, config(), STATE)
    entry = {**RECIPE["tasks"]["device"], "pass_at": [1], "expected": {"out": {"accuracy": 0.5, "source": "s"}}}
    now = config(model="elsewhere/m", pass_at=[1], num_slots=3, tasks={"device": entry})
    identity.begin(tmp_path, now, STATE)
    assert identity.load_config(EvalConfig, tmp_path / "config.yaml", []) == now


@pytest.mark.parametrize("file", ["config.yaml", "state.json"])
@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1, ', '{"a": 1}'])
def test_damaged_files_are_named(tmp_path: Path, file: str, content: str) -> None:
    """Catches "Expecting value" of a file that nobody named, and a traceback."""
    identity.begin(tmp_path, config(), STATE)
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=r"give another --out") as found:
        identity.begin(tmp_path, config(), STATE)
    assert str(tmp_path) in str(found.value)


def test_a_model_is_no_place_for_an_evaluation(tmp_path: Path) -> None:
    """Catches --out that names the checkpoint: its files would be those of a run whose task is evaluated later."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"out: .* holds a model"):
        identity.begin(tmp_path, config(), STATE)
    assert not (tmp_path / "config.yaml").exists()


def test_two_evaluations_do_not_share_a_folder(tmp_path: Path) -> None:
    """Catches two resumes at once, of which the first to end takes away what the second still reads."""
    refused = pytest.raises(ValueError, match="another evaluation is at work")
    with identity.alone_in(tmp_path / "out"), refused, identity.alone_in(tmp_path / "out"):
        pass
    with identity.alone_in(tmp_path / "out"):
        pass


def test_other_tests_are_another_evaluation(tmp_path: Path) -> None:
    """Catches programs judged by the tests of before a stop, and others by those of a file that was changed since."""
    file = tmp_path / "code.jsonl"

    def state(test: str) -> object:
        file.write_text(json.dumps({"question": "Add.", "test_list": [test]}))
        task = Code(test_data=str(file))
        return identity.state_of(tmp_path, {"code": (task, task.problems("test"))})["problems"]

    assert state("assert add(1, 2) == 3") == state("assert add(1, 2) == 3")
    assert state("assert add(1, 2) == 3") != state("assert add(1, 2) == 4")


def test_any_tensor_that_moved_is_seen(tmp_path: Path) -> None:
    """Catches weights of which only the middle of the file counts: training that spares it would pass for the same."""
    weights = {name: torch.arange(6000.0) for name in ("embed", "q", "spared", "head")} | {"norm": torch.ones(3)}

    def digest() -> str:
        save_file(weights, tmp_path / "model.safetensors")
        return digest_of_weights(tmp_path)

    before = digest()
    for name in weights:
        weights[name] += 1.0
        assert digest() != before, name
        weights[name] -= 1.0
    assert digest() == before


def test_another_chat_template_is_another_model(tmp_path: Path) -> None:
    """Catches prompts in other words under weights that stayed; a note beside them changes nothing."""
    save_tiny(tmp_path)
    before = digest_of_weights(tmp_path)
    (tmp_path / "README.md").write_text("a note")
    assert digest_of_weights(tmp_path) == before
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert digest_of_weights(tmp_path) != before


def test_problems_are_spelt_alike_in_every_process() -> None:
    """Catches a resume that is refused because a set has another order, or an object another address, than before."""
    assert spelt({"b": {"z", "y"}, "a": [1, (None,)]}) == "{'a': [1, [None]], 'b': {'y', 'z'}}"
    assert spelt({"f": object()}) == spelt({"f": object()})
    some = [[Problem("i", "q", "r", {"group": group})] for group in ("a", "b", "a")]
    first, second, third = (digest_of_problems(Parity(), problems) for problems in some)
    assert first == third != second
