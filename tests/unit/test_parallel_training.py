"""Two processes and one: the same gradients, losses, numbers, answers and checkpoints, however work is divided."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from revelm.models.load import load_model
from revelm.objectives.batch import Batch
from revelm.parallel.placement import Strategy
from revelm.parallel.world import World
from revelm.trainers.saved_state import read_state
from revelm.trainers.update import update
from tests.contract.test_objectives import packed
from tests.parallel_training import (
    Run,
    Training,
    critic_trained,
    decoded,
    numbers,
    poisoned,
    resumed,
    saved_and_gone_on,
    told,
    trained,
    trained_in_chunks,
    unlogged,
    unsaved,
)
from tests.processes import Processes

TIED = (("tie_word_embeddings", True),)
SPARSE = (
    ("model_type", "sdar_moe"),
    ("num_experts", 4),
    ("num_experts_per_tok", 2),
    ("moe_intermediate_size", 12),
    ("norm_topk_prob", True),
)


def words(world: World) -> tuple[Any, ...]:
    """Everything that processes can say to each other."""
    found = world.gather(world.rank), world.broadcast("main" if world.is_main else "other")
    added = world.add(np.array([world.rank, 0.5])).tolist()
    world.barrier()
    flags = world.any(world.rank == 1), world.any(False)
    return *found, world.sum(world.rank + 0.5), world.max(world.rank), added, *flags


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], *, tolerance: float) -> None:
    """Equal names; tensors differ by at most ``tolerance`` of the largest number in each."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        size = float(tensor.double().abs().max()) or 1.0
        assert float((tensor - other[name]).double().abs().max()) <= tolerance * size, name


def assert_same_losses(one: list[dict[str, float]], other: list[dict[str, float]], *, tolerance: float) -> None:
    """Every metric of every update."""
    assert [list(found) for found in one] == [list(found) for found in other]
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=tolerance, abs=tolerance)


def test_what_processes_say_to_each_other(pair: Processes) -> None:
    """Catches answers that differ between processes, an order that is not that of their numbers, and an interrupt that
    only one of them hears of."""
    assert pair.run(words) == [([0, 1], "main", 2.0, 1.0, [1.0, 1.0], True, False)] * 2


def test_an_error_of_one_is_an_error_of_all(pair: Processes) -> None:
    """Catches processes that wait for one that has failed, and a full disk that comes out as something else."""
    heard = pair.run(told, 1, OSError(28, "No space left on device", "x"))
    assert heard == [("OSError", "[Errno 28] No space left on device: 'x'")] * 2
    assert pair.run(told, 0, ValueError("bad")) == [("ValueError", "bad")] * 2
    assert pair.run(told, 1, KeyError("k")) == [("RuntimeError", "process 1: KeyError: 'k'"), ("KeyError", "'k'")]
    assert pair.run(told, 7, KeyError("nobody")) == [("", "")] * 2


@pytest.mark.parametrize("changes", [(), TIED, SPARSE], ids=["untied", "tied", "sparse"])
def test_one_update_whoever_has_which_rows(pair: Processes, changes: tuple[tuple[str, Any], ...]) -> None:
    """Catches a mean of means, gradients of a head that only some processes have run, a tied matrix counted once, and
    a process that waits for others which have fewer micro-batches, or none."""
    expected, state = trained(World(), Run(changes=changes), 2 if changes else 10)
    for strategy in ("ddp", "fsdp"):
        for cut in ("shared", "uneven", "idle"):
            steps = len(expected) if cut == "shared" else 1
            for metrics, found in pair.run(trained, Run(strategy, cut, changes=changes), steps):
                assert_same(state, found, tolerance=1e-9)
                assert_same_losses(expected[:steps], metrics, tolerance=1e-6)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_one_update_whose_logits_are_made_in_chunks(pair: Processes, strategy: Strategy) -> None:
    """Catches shards that are gathered as often as a process has chunks, which another process has fewer of."""
    expected, state = trained(World(), Run(), 1)
    for metrics, found in pair.run(trained_in_chunks, Run(strategy, "idle"), 1):
        assert_same(state, found, tolerance=1e-9)
        assert_same_losses(expected, metrics, tolerance=1e-6)


def test_one_update_however_it_is_cut() -> None:
    """Catches what accumulation or packing would change in one process: the reference of all tests here."""
    states, losses = [], []
    for cut in (lambda b: [b], lambda b: b.split(1), lambda b: b.split(90), lambda b: [packed(b)], lambda b: packed(b)):
        training = Training(World(), Run())
        batch = training.objective.prepare(training.texts(), training.model.family, 0)
        losses.append(update(training.model, training.optimizer, training.objective, cut(batch)))
        states.append(training.state())
    for state in states[1:]:
        assert_same(states[0], state, tolerance=1e-9)
    assert_same_losses(losses[:1] * 4, losses[1:], tolerance=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_narrow_models_have_wide_masters(pair: Processes, dtype: str) -> None:
    """Catches shards, moments or sums over processes in bf16: gradients would agree to two digits at best."""
    expected, state = trained(World(), Run(dtype=dtype), 2)
    for run in (Run("ddp", dtype=dtype), Run("fsdp", dtype=dtype), Run("fsdp", dtype=dtype, recomputes=True)):
        for metrics, found in pair.run(trained, run, 2):
            assert {tensor.dtype for name, tensor in found.items() if name != "counts"} == {torch.float32}
            assert_same(state, found, tolerance=2e-2 if dtype == "bfloat16" else 1e-4)
            assert_same_losses(expected, metrics, tolerance=2e-2 if dtype == "bfloat16" else 1e-4)


def test_samples_that_count_without_a_row(pair: Processes) -> None:
    """Catches a denominator that forgets what a process without rows has to add, and a run that hangs when nobody has
    any."""
    expected = spare_loss(World())
    assert pair.run(spare_loss) == [pytest.approx(expected, rel=1e-9)] * 2
    assert pair.run(nothing_to_train_on) == ["the batch has no scored tokens: every sample was empty or filtered"] * 2


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_loss_that_is_no_number_anywhere_is_skipped_everywhere(pair: Processes, strategy: Any) -> None:
    """Catches processes whose weights part for good as one of them skips what the others take."""
    for skipped, counts, state in (found := pair.run(poisoned, Run(strategy))):
        assert skipped == [0.0, 1.0, 1.0, 0.0]
        assert counts == [2, 2, 0]
        assert_same(found[0][2], state, tolerance=0.0)
        assert all(bool(tensor.isfinite().all()) for tensor in state.values())


def test_numbers_without_gradient(pair: Processes) -> None:
    """Catches log-probabilities under weights of an earlier update, left gathered since, and a hang where a process
    has nothing to ask."""
    expected = numbers(World(), Run())
    assert not np.allclose(expected[0], expected[1], rtol=1e-4)
    for cut in ("shared", "idle"):
        for found in pair.run(numbers, Run("fsdp", cut)):
            for one, other in zip(expected, found, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-9)


def test_a_critic_in_shards_with_a_whole_head(pair: Processes) -> None:
    """Catches the head's gradient summed once too often or never, and values of another head in each process."""
    expected = critic_trained(World(), Run())
    for strategy in ("ddp", "fsdp"):
        for found in pair.run(critic_trained, Run(strategy)):
            assert_same_losses(expected, found, tolerance=1e-9)


def test_decoding_needs_no_company(pair: Processes) -> None:
    """Catches a rollout that waits for another process, old weights in the copy, and memory that is never given
    back."""
    answers, sizes = decoded(World(), Run())
    assert sizes[0] > 0
    assert answers[:2] != answers[2:]
    for strategy in ("ddp", "fsdp"):
        one, other = pair.run(decoded, Run(strategy))
        assert (one[0], other[0]) == (answers, [])
        assert one[1] == ([0, 0] if strategy == "fsdp" else sizes)


ALONE, DDP, FSDP = None, Run("ddp", average=0.9), Run("fsdp", average=0.9)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(DDP, ALONE, id="ddp-alone"),
        pytest.param(FSDP, ALONE, id="fsdp-alone"),
        pytest.param(ALONE, FSDP, id="alone-fsdp"),
        pytest.param(ALONE, DDP, id="alone-ddp", marks=pytest.mark.slow),
        pytest.param(FSDP, DDP, id="fsdp-ddp", marks=pytest.mark.slow),
        pytest.param(DDP, FSDP, id="ddp-fsdp", marks=pytest.mark.slow),
    ],
)
def test_any_processes_go_on_from_any(pair: Processes, tmp_path: Path, first: Run | None, second: Run | None) -> None:
    """Catches state by place or by process number, shards saved as if they were whole, and averages that start anew."""

    def run(work: Any, how: Run | None) -> list[dict[str, float]]:
        return work(World(), Run(average=0.9), tmp_path) if how is None else pair.run(work, how, tmp_path)[-1]

    expected = saved_and_gone_on(World(), Run(average=0.9), tmp_path / "expected")
    assert_same_losses(expected, run(saved_and_gone_on, first), tolerance=1e-9)
    assert_same_losses(expected, run(resumed, second), tolerance=1e-9)
    here, there = (folder / "checkpoint-3" for folder in (tmp_path / "expected", tmp_path))
    for part in (".", "ema"):
        assert_same(*(load_file(c / part / "model.safetensors") for c in (here, there)), tolerance=1e-9)
        assert load_model(there / part).family == load_model(here).family
    states = [read_state(c / "trainer" / "optimizer") for c in (here, there)]
    assert_same(*states, tolerance=1e-9)
    for part, name in ((".", "master"), ("ema", "ema")):
        head = load_file(there / part / "model.safetensors")["lm_head.weight"]
        assert torch.equal(head, states[1][f"{name}.lm_head.weight"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["LATEST", "checkpoint-3", "expected"]


def test_adapters_of_processes_that_hold_the_base_each(pair: Processes, tmp_path: Path) -> None:
    """Catches frozen weights summed over processes, saved, or averaged."""
    run = Run(adapter=True, average=0.9)
    expected = saved_and_gone_on(World(), run, tmp_path / "alone")
    for found in pair.run(saved_and_gone_on, run, tmp_path / "pair"):
        assert_same_losses(expected, found, tolerance=1e-9)
    for part in (".", "ema"):
        files = [tmp_path / name / "checkpoint-3" / part / "adapter_model.safetensors" for name in ("alone", "pair")]
        assert_same(*(load_file(file) for file in files), tolerance=1e-9)
    names = {
        name.partition(".")[2] for name in read_state(tmp_path / "pair" / "checkpoint-3" / "trainer" / "optimizer")
    }
    assert all("lora_" in name for name in names if name)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_three_processes_have_uneven_parts(tmp_path: Path, strategy: Any) -> None:
    """Catches sizes that no number of processes but two divides: of tensors, of shares, of buckets."""
    expected = saved_and_gone_on(World(), Run(average=0.9), tmp_path / "alone")
    with Processes(3) as three:
        for found in three.run(saved_and_gone_on, Run(strategy, average=0.9), tmp_path / "three"):
            assert_same_losses(expected, found, tolerance=1e-9)
    assert_same_losses(expected, resumed(World(), Run(average=0.9), tmp_path / "three"), tolerance=1e-9)


def test_weights_are_saved_in_the_dtype_that_is_computed_in(pair: Processes, tmp_path: Path) -> None:
    """Catches fp32 shards written as the model: twice the size, under a config.json that says otherwise."""
    for strategy in ("ddp", "fsdp"):
        folder = tmp_path / strategy
        pair.run(saved_and_gone_on, Run(strategy, dtype="bfloat16"), folder)
        found = load_file(folder / "checkpoint-3" / "model.safetensors")
        assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
        assert load_model(folder, dtype="auto").dtype == torch.bfloat16
        masters = read_state(folder / "checkpoint-3" / "trainer" / "optimizer")
        assert {tensor.dtype for name, tensor in masters.items() if name != "counts"} == {torch.float32}


@pytest.mark.parametrize(("strategy", "is_early"), [("ddp", True), ("fsdp", False)])
def test_a_checkpoint_that_cannot_be_written(pair: Processes, tmp_path: Path, strategy: Any, is_early: bool) -> None:
    """Catches processes that wait for a main one that has failed, the checkpoint before lost, and half a new one."""
    heard = pair.run(unsaved, Run(strategy), tmp_path, is_early)
    assert all("checkpoint-2" in text for text, _ in heard), heard
    assert is_early or "disk full: nothing was written" in heard[0][0]
    assert all(len(losses) == 1 for _, losses in heard), "training can go on"
    assert (tmp_path / "LATEST").read_text() == "checkpoint-1\n"
    assert load_model(tmp_path) is not None
    assert not (tmp_path / ".checkpoint-2.tmp").is_dir()


@pytest.mark.parametrize("is_early", [True, False])
def test_metrics_that_cannot_be_written(pair: Processes, tmp_path: Path, is_early: bool) -> None:
    """Catches a main process that ends alone, while the others go on to the next step and wait for it there."""
    heard = pair.run(unlogged, tmp_path / "run", is_early)
    assert all(("File exists" if is_early else "metrics.jsonl") in text for text, _, _ in heard), heard
    assert [found for _, *found in heard] == [[0 if is_early else 2, [0, 1]]] * 2


def spare_loss(world: World) -> float:
    """Rows in the main process; in the last one samples that count, without a row."""
    training = Training(world, Run("fsdp", "idle"))
    batches = training.batches()
    if world.rank == world.size - 1:
        empty = training.objective.prepare([], training.model.family, 0)
        batches = [*batches, with_spare(empty, 40.0)]
    return update(training.model, training.optimizer, training.objective, batches)["loss"]


def with_spare(batch: Batch, count: float) -> Batch:
    """``batch`` with samples that have no row."""
    return Batch(**{**vars(batch), "spare": count})


def nothing_to_train_on(world: World) -> str:
    """What each process hears."""
    training = Training(world, Run("fsdp"))
    try:
        update(training.model, training.optimizer, training.objective, [])
    except ValueError as error:
        return str(error)
    return ""
