"""A run that was stopped goes on as if it never was, and a run that cannot work says why."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from revelm.cli.main import main
from revelm.core.config import load_config, parse_config
from revelm.objectives import score as scoring
from revelm.trainers import rl, sft
from revelm.trainers.config import RLConfig, SFTConfig
from revelm.trainers.saved_state import read_state
from revelm.trajectories.store import read_trajectories
from tests.tiny_checkpoint import save_tiny

CHAIN = {"kind": "chain", "num_train": 40, "num_test": 4, "num_operations": [2, 2]}
TASK = "tests.toy_tasks:Parity"
SCHEDULE = {"learning_rate": 3e-3, "schedule": "cosine", "warmup_steps": 3, "floor": 0.1, "weight_decay": 0.01}


@pytest.fixture(scope="module")
def full_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint of a family with full attention, shifted."""
    return save_tiny(tmp_path_factory.mktemp("model") / "full", model_type="Dream")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def sft_values(source: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """A small SFT run."""
    return {
        "model": {"path": str(source)},
        "task": CHAIN,
        "data": {"num": 30},
        "batch_size": 4,
        "optimizer": SCHEDULE,
        "train": {"steps": 10, "save_every": 5, "max_positions": 200},
        "out": str(out),
    } | changes


def rl_values(source: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """A small RL run on a task that an untrained model is right about half of the time."""
    return {
        "model": {"path": str(source)},
        "task": TASK,
        "rollout": {"problems_per_step": 2, "group_size": 4, "max_new_tokens": 8, "save_every": 5},
        "optimizer": SCHEDULE,
        "train": {"steps": 10, "save_every": 5, "max_positions": 200},
        "eval": {"num_problems": 2, "max_new_tokens": 8, "settings": {"dynamic": {"max_new_tokens": 8}}},
        "eval_every": 5,
        "out": str(out),
    } | changes


def run_sft(values: dict[str, Any]) -> Path:
    return sft.run(parse_config(SFTConfig, values))


def run_rl(values: dict[str, Any]) -> Path:
    return rl.run(parse_config(RLConfig, values))


def rows(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the times."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("seconds", "tokens_per_second"))} for row in found]


def same(a: Any, b: Any) -> bool:
    """Equality of nested states, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def assert_same_runs(one: Path, other: Path, step: int) -> None:
    """Weights, everything of the trainer, and metrics except times are the same bit for bit."""
    a, b = one / f"checkpoint-{step}", other / f"checkpoint-{step}"
    names = {path.name for path in a.glob("*.safetensors")}
    assert names == {path.name for path in b.glob("*.safetensors")}
    assert names
    assert all(same(load_file(a / name), load_file(b / name)) for name in names)
    assert same(*(torch.load(c / "trainer" / "rng.pt", weights_only=True) for c in (a, b)))
    assert same(*(read_state(c / "trainer" / "optimizer") for c in (a, b)))
    files = [{p.relative_to(c): load_file(p) for p in (c / "critic").glob("*.safetensors")} for c in (a, b)]
    assert same(*files)
    assert (a / "trainer" / "state.json").read_text() == (b / "trainer" / "state.json").read_text()
    assert rows(one) == rows(other)
    assert (one / "LATEST").read_text() == (other / "LATEST").read_text()


def only_first_half(run: Path, target: Path) -> None:
    """What is left of ``run`` when it is killed while it writes its second checkpoint."""
    shutil.copytree(run, target, ignore=shutil.ignore_patterns("checkpoint-10", "trajectories"))
    (target / "LATEST").write_text("checkpoint-5\n")
    (target / ".checkpoint-10.tmp").mkdir()
    with (target / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "rl", "st')


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sft_resumed_is_bit_for_bit(model: Path, tmp_path: Path, dtype: str) -> None:
    """Catches data, noise, schedule, moments or fp32 masters that start anew after a resume; metrics kept twice."""
    spec = {"model": {"path": str(model), "dtype": dtype}}
    straight = run_sft(sft_values(model, tmp_path / "a", **spec))
    only_first_half(straight, tmp_path / "b")
    resumed = run_sft(sft_values(model, tmp_path / "b", resume=True, **spec))
    assert_same_runs(straight, resumed, 10)
    assert [row["step"] for row in rows(resumed)] == list(range(1, 11))
    weights = load_file(straight / "checkpoint-10" / "model.safetensors")
    assert not same(weights, load_file(straight / "checkpoint-5" / "model.safetensors"))


@pytest.mark.parametrize(
    "method",
    [
        {"objective": {"kind": "trace_rl"}},
        {"objective": {"kind": "trace_rl", "shrinkage": 3, "normalisation": "token"}, "updates_per_step": 2},
        {"objective": {"kind": "random_mask_rl", "num_masks": 2}, "updates_per_step": 2, "rewards": "shuffled"},
        {"objective": {"kind": "rejection_sft"}, "task": TASK},
        {"objective": {"kind": "trace_rl"}, "value": {"warmup_steps": 2}, "updates_per_step": 2},
        {"objective": {"kind": "trace_rl", "reference_weight": 0.1}, "value": {"backbone": "shared"}},
        {
            "objective": {"kind": "trace_rl", "reference_weight": 0.1},
            "lora": {"rank": 2},
            "value": {"backbone": "shared"},
        },
    ],
    ids=["trace_rl", "shrinkage", "random_mask_rl", "rejection_sft", "value", "shared_value", "lora"],
)
def test_rl_resumed_is_bit_for_bit(model: Path, tmp_path: Path, method: dict[str, Any]) -> None:
    """Catches problems, answers or updates that depend on anything but the checkpoint, and evaluations kept twice."""
    if method["objective"]["kind"] == "rejection_sft":
        # An untrained model hardly ever stops by itself; answers that did not stop are no demonstrations.
        with pytest.raises(RuntimeError, match="zero updates"):
            run_rl(rl_values(model, tmp_path / "a", train={"steps": 1}, **method))
        return
    if "lora" in method:
        method = {name: value for name, value in method.items() if name != "lora"} | {
            "model": {"path": str(model), "lora": method["lora"]}
        }
    straight = run_rl(rl_values(model, tmp_path / "a", **method))
    found = rows(straight)
    assert sum(row.get("num_trained", 0) > 0 for row in found) >= 7
    assert [row["step"] for row in found if row["phase"] == "eval"] == [5, 10]
    cursor = json.loads((straight / "checkpoint-10" / "trainer" / "state.json").read_text())
    assert cursor["problems_drawn"] * 4 == sum(row.get("num_answers", 0) for row in found)
    files = (straight / "trajectories").iterdir()
    assert len({t.info["problem"] for file in files for t in read_trajectories(file)}) > 2, "problems must change"
    only_first_half(straight, tmp_path / "b")
    assert_same_runs(straight, run_rl(rl_values(model, tmp_path / "b", resume=True, **method)), 10)
    names = sorted(p.name for p in (straight / "trajectories").iterdir())
    assert names == ["step-1.parquet", "step-6.parquet"]


def test_runs_whose_logits_are_made_in_chunks(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches steps in which nothing but a value is learnt and logits are asked for, and metrics that do not add up."""
    changes = {"train": {"steps": 3}, "eval_every": 0, "value": {"backbone": "shared", "warmup_steps": 1},
               "model": {"path": str(model), "dtype": "float64"}}  # fmt: skip
    found = [rows(run_rl(rl_values(model, tmp_path / "a", **changes)))]
    for name, value in (("KEPT_LOGITS", 0), ("CHUNK_ROWS", 3), ("CACHED_LOGITS", 1)):
        monkeypatch.setattr(scoring, name, value)
    found.append(rows(run_rl(rl_values(model, tmp_path / "b", **changes))))
    assert [row.keys() for row in found[0]] == [row.keys() for row in found[1]]
    for one, other in zip(*found, strict=True):
        for name, number in one.items():
            known = number if isinstance(number, str | dict) else pytest.approx(number, rel=1e-9, abs=1e-12)
            assert other[name] == known, name


@pytest.mark.parametrize("run", [run_sft, run_rl])
def test_a_longer_run_continues_a_shorter_one(model: Path, tmp_path: Path, run: Any) -> None:
    """Catches 5 + 5 steps that differ from 10 when the first run ended of itself, with an ordinary last save."""
    values = sft_values if run is run_sft else rl_values
    constant = {"optimizer": {"learning_rate": 2e-3}}
    straight = run(values(model, tmp_path / "a", **constant))
    run(values(model, tmp_path / "b", train={"steps": 5, "max_positions": 200}, **constant))
    resumed = run(values(model, tmp_path / "b", resume=True, **constant))
    assert_same_runs(straight, resumed, 10)
    assert same(rows(run(values(model, tmp_path / "b", resume=True, **constant))), rows(straight)), "nothing left to do"


def test_full_attention_runs_resumed_are_bit_for_bit(full_model: Path, tmp_path: Path) -> None:
    """Catches an objective for block models by default, a config.yaml that does not say which was taken, and a resumed
    run that is refused because the default was not named."""
    straight = run_sft(sft_values(full_model, tmp_path / "a"))
    assert load_config(SFTConfig, straight / "config.yaml", []).objective == {"kind": "random_mask_sft"}
    only_first_half(straight, tmp_path / "b")
    assert_same_runs(straight, run_sft(sft_values(full_model, tmp_path / "b", resume=True)), 10)
    with pytest.raises(ValueError, match=r"resume: objective\.num_pad is 2, but .* says nothing"):
        run_sft(sft_values(full_model, tmp_path / "b", resume=True, objective={"num_pad": 2}))
    straight = run_rl(rl_values(full_model, tmp_path / "c"))
    ratios = [row["ratio"] for row in rows(straight) if row["phase"] == "rl" and row["num_trained"]]
    assert ratios == pytest.approx([1.0] * len(ratios), abs=1e-4)
    only_first_half(straight, tmp_path / "d")
    assert_same_runs(straight, run_rl(rl_values(full_model, tmp_path / "d", resume=True)), 10)


def test_the_saved_configuration_is_the_run(model: Path, tmp_path: Path) -> None:
    """Catches defaults or overrides that are missing in config.yaml, so that a run cannot be repeated from it."""
    values = sft_values(model, tmp_path / "a", train={"steps": 3})
    run = run_sft(values)
    config = load_config(SFTConfig, run / "config.yaml", [f"out={tmp_path / 'b'}"])
    assert rows(sft.run(config)) == rows(run)


def failing(capsys: pytest.CaptureFixture[str], code: int, verb: str, recipe: dict[str, Any], *words: str) -> str:
    """The error line of a command that must fail with ``code`` and no traceback."""
    file = Path(recipe["out"]).parent / "recipe.yaml"
    file.write_text(json.dumps(recipe))
    assert main([verb, str(file), *words]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert "run directory" not in captured.out
    return captured.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("verb", "override", "words"),
    [
        ("sft", "model.block_size=8", "model.block_size: 8, but the checkpoint"),
        ("rl", "model.block_size=8", "was trained with blocks of 4"),
        ("sft", "objectiv.kind=block_sft", "objectiv"),
        ("sft", "objective={kind: block_sft, lwo: 0.2}", "low"),
        ("rl", "rollout.group_sizes=3", "group_size"),
        ("rl", "rollout.group_size=many", "rollout.group_size"),
        ("rl", "rollout.rule.kind=dinamic", "dynamic"),
        ("rl", "objective={kind: trace_rl, clip_low: -1}", "clip_low is -1"),
        ("sft", "task=chains", "chain"),
        ("sft", "data.path=nowhere.jsonl", "nowhere.jsonl"),
        ("sft", "model.path=nowhere", "nowhere"),
        ("sft", "objective.lwo=0.2", "objective.lwo: unknown field; did you mean 'low'"),
        ("sft", "objective=random_mask_sft", "sdar has block attention; use 'block_sft'"),
        ("rl", "task.num_train=0", "no training problems"),
        ("rl", "task.question=a<|mask|>b", "<|mask|>"),
        ("rl", "rollout.max_new_tokens=95", "the model has 96"),
        ("rl", f"task.question={'x' * 95}", "the model has 96"),
    ],
)
def test_bad_input_is_one_clear_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, override: str, words: str
) -> None:
    """Catches a traceback, or a run that starts with something else than what was asked."""
    values = (sft_values if verb == "sft" else rl_values)(model, tmp_path / "run")
    values["task"] = {"kind": values["task"]} if verb == "rl" else values["task"]
    assert words in failing(capsys, 2, verb, values, override)
    assert not (tmp_path / "run" / "LATEST").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "has no rows"),
        ('{"prompt": "1", "completion": "2"}\n{"prompt": "1"}\n', "row 2"),
        (
            '{"prompt": "1", "completion": "a <|mask|> b"}\n',
            "data.jsonl, row 1 (line 1): messages.1.content spells",
        ),
        ('{"prompt": "1", "completion": "%s"}\n' % ("long " * 50), "row 1 (line 1) has"),
        ("not json\n", "not JSON"),
    ],
)
def test_bad_data_is_one_clear_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, words: str
) -> None:
    """Catches an empty data set that ends "successfully", and rows that are skipped or cut in silence."""
    (tmp_path / "data.jsonl").write_text(content)
    values = sft_values(model, tmp_path / "run", data={"path": str(tmp_path / "data.jsonl")})
    assert words in failing(capsys, 2, "sft", values)


def test_an_existing_run_is_not_overwritten(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a second start that trains over, or silently continues, the first."""
    values = sft_values(model, tmp_path / "run", train={"steps": 2})
    run = run_sft(values)
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    assert "already holds checkpoint-2; add resume=true" in failing(capsys, 2, "sft", values)
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_a_damaged_checkpoint_is_named(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a resume that starts from nothing when the newest checkpoint cannot be read."""
    values = sft_values(model, tmp_path / "run", train={"steps": 2})
    run = run_sft(values)
    file = run / "checkpoint-2" / "trainer" / "optimizer" / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:1000])
    assert "checkpoint-2/trainer is damaged" in failing(capsys, 2, "sft", values, "resume=true")


def test_a_run_without_updates_fails(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a run that ends "successfully" though no group ever carried a signal."""
    task = {"kind": TASK, "is_constant": True}
    values = rl_values(model, tmp_path / "run", task=task, train={"steps": 2})
    with pytest.raises(RuntimeError, match="zero updates after 2 steps"):
        run_rl(values)
    found = rows(tmp_path / "run")
    assert [row["num_trained"] for row in found if row["phase"] == "rl"] == [0, 0]
    assert all(row["groups_without_signal"] == 1.0 for row in found if row["phase"] == "rl")
    assert found[0]["num_answers"] == 2 * 4 * 4, "every attempt of the step is counted"
    values["out"] = str(tmp_path / "again")
    assert "zero updates" in failing(capsys, 1, "rl", values)


def test_a_kill_between_a_checkpoint_and_its_pointers_is_mended(model: Path, tmp_path: Path) -> None:
    """Catches a run whose LATEST and BEST stay behind its checkpoints for ever, so that others read old weights."""
    best = {"best": {"metric": "length"}, "train": {"steps": 10, "save_every": 5, "max_positions": 200}}
    run = run_rl(rl_values(model, tmp_path / "a", **best))
    assert (run / "LATEST").read_text() == "checkpoint-10\n"
    told = (run / "BEST").read_text()
    (run / "LATEST").write_text("checkpoint-5\n")
    (run / "BEST").unlink()
    run_rl(rl_values(model, tmp_path / "a", resume=True, **best))
    assert (run / "LATEST").read_text() == "checkpoint-10\n"
    assert (run / "BEST").read_text() == told


def test_the_reference_is_what_the_run_began_with(model: Path, tmp_path: Path) -> None:
    """Catches a resumed run that is pulled to other weights, because the run it began at went on."""
    first = run_sft(sft_values(model, tmp_path / "sft", train={"steps": 2, "max_positions": 200}))
    values = rl_values(first, tmp_path / "a", objective={"kind": "trace_rl", "reference_weight": 0.1}, eval_every=0)
    run_rl(values | {"train": {"steps": 2, "max_positions": 200}})
    run_sft(sft_values(model, tmp_path / "sft", train={"steps": 4, "max_positions": 200}, resume=True))
    cursor = json.loads((tmp_path / "a" / "checkpoint-2" / "trainer" / "state.json").read_text())
    assert Path(cursor["reference"]).name == "checkpoint-2"
    shutil.rmtree(first / "checkpoint-2")
    with pytest.raises(ValueError, match=r"reference_weight: .*checkpoint-2, which the run began with, is gone"):
        run_rl(values | {"train": {"steps": 4, "max_positions": 200}, "resume": True})


def test_what_does_not_change_the_learning_may_change(model: Path, tmp_path: Path) -> None:
    """Catches a run that cannot go on with fewer slots, or its judge on another port."""
    values = rl_values(model, tmp_path / "a", eval_every=0, train={"steps": 1, "max_positions": 200})
    run_rl(values)
    rollout = {**values["rollout"], "num_slots": 3, "save_every": 0}
    run_rl(values | {"rollout": rollout, "optimizer": {**SCHEDULE, "max_skipped": 2}, "resume": True})
    with pytest.raises(ValueError, match=r"resume: rollout\.group_size is 2"):
        run_rl(values | {"rollout": {**rollout, "group_size": 2}, "resume": True})
