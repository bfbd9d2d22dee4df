"""Records of small blocks, trained on with larger ones: every token in the context that larger blocks give it."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from revelm.core.types import Family
from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.models.blocks import with_block_size
from revelm.models.language_model import LanguageModel
from revelm.objectives.batch import Batch, Episode, add_metrics
from revelm.objectives.random_mask_rl import RandomMaskRL
from revelm.objectives.records import fitted
from revelm.objectives.score import score
from revelm.objectives.trace_rl import TraceRL
from revelm.trajectories.record import GIVEN, NEVER, Event, Trajectory
from revelm.trajectories.replay import canvas, copies, in_blocks
from tests.editing import block_records
from tests.full_attention import records as canvas_records
from tests.models import MASK, RULES, mixed_requests, sharp_model

SIZE = 8
Scores = Mapping[tuple[int, int, int], float]


def decoded_at(block_size: int, *, lengths: range = range(1, 12)) -> list[Trajectory]:
    """Answers of the model of blocks of 8, decoded in smaller blocks on its weights."""
    engine = Engine(with_block_size(sharp_model(SIZE), block_size), num_slots=9)
    found = []
    for rule in RULES[:3]:
        found += engine.generate(*mixed_requests(rule, lengths))
    return found


def batch_of(records: list[Trajectory], family: Family, *, shrinkage: int = 1) -> Batch:
    """What TraceRL trains of these records."""
    objective = TraceRL(shrinkage=shrinkage, normalisation="token", behaviour="recomputed")
    return objective.prepare([Episode(t, 1.0, 0, i, 1.0 + i) for i, t in enumerate(records)], family, 0)


def scored(batch: Batch, model: LanguageModel) -> Scores:
    """Log-probability of every target, by (record, place in its completion, moment)."""
    with torch.no_grad():
        found = score(model, batch).logprob.tolist()
    places = [batch.columns[name].long().tolist() for name in ("episode", "place", "moment")]
    return {(e, p, m): value for e, p, m, value in zip(*places, found, strict=True)}


def moments(record: Trajectory, size: int, shrinkage: int) -> list[list[Event]]:
    """What happened in every merged step of every block of ``size``, in order."""
    by_block: dict[int, dict[int, list[Event]]] = {}
    for event in record.events:
        block = (len(record.prompt_ids) + event.position) // size
        by_block.setdefault(block, {}).setdefault(event.step, []).append(event)
    found = []
    for block in sorted(by_block):
        steps = [by_block[block][step] for step in sorted(by_block[block])]
        merged = [steps[i : i + shrinkage] for i in range(0, len(steps), shrinkage)]
        found += [[event for step in some for event in step] for some in merged]
    return found


def slow_scores(records: list[Trajectory], model: LanguageModel, shrinkage: int) -> Scores:
    """The same by hand: one forward for every moment, over text that grows event by event."""
    size, banned = model.family.block_size or 1, list(model.family.banned_ids)
    found = {}
    for e, record in enumerate(records):
        length = len(record.prompt_ids)
        text = record.prompt_ids.tolist()
        number = 0
        for happened in moments(record, size, shrinkage):
            end = ((length + happened[0].position) // size + 1) * size
            for place in range(len(text) - length, end - length):
                is_given = place < len(record.step) and record.step[place] == GIVEN
                text.append(int(record.completion_ids[place]) if is_given else MASK)
            after = list(text)
            for event in happened:
                after[length + event.position] = event.token
            due = sorted({event.position for event in happened if event.position < record.stop_length})
            if due:
                with torch.no_grad():
                    logits = model(torch.tensor([text]))[0]
                logits[:, banned] = -torch.inf
                chances = (logits / (record.sampling["temperature"] or 1.0)).log_softmax(-1)
                for place in due:
                    found[e, place, number] = float(chances[length + place, after[length + place]])
                number += 1
            text = after
    return found


@pytest.mark.parametrize("shrinkage", [1, 3])
@pytest.mark.parametrize("block_size", [1, 2, 4, 8])
def test_log_probabilities_are_those_of_the_larger_blocks(block_size: int, shrinkage: int) -> None:
    """Catches a context of the old blocks, of the old steps, or one that shows what was decoded later."""
    model, records = sharp_model(SIZE), decoded_at(block_size, lengths=(1, 4, 7, 10))
    batch = batch_of(records, model.family, shrinkage=shrinkage)
    expected = slow_scores(records, model, shrinkage)
    found = scored(batch, model)
    assert found.keys() == expected.keys()
    assert max(abs(found[key] - expected[key]) for key in expected) < 1e-10
    assert len(found) == sum((t.step[: t.stop_length] != NEVER).sum() for t in records)
    partial = [t for t in records if (len(t.prompt_ids) + len(t.step)) % SIZE]
    assert bool(partial) is (block_size < SIZE)
    for part in batch.split(300):
        for key, value in scored(part, model).items():
            assert value == pytest.approx(found[key], abs=1e-10)


@pytest.mark.parametrize("shrinkage", [1, 2])
def test_edits_are_enlarged_too(shrinkage: int) -> None:
    """Catches an edit of the first half that is shown from the start once both halves are one block."""
    model, records = sharp_model(SIZE), [t for t in block_records(4) if t.finish_reason != "cancelled"]
    assert any(t.edits for t in records)
    assert any((t.step == GIVEN).any() for t in records)
    found = scored(batch_of(records, model.family, shrinkage=shrinkage), model)
    expected = slow_scores(records, model, shrinkage)
    assert found.keys() == expected.keys()
    assert max(abs(found[key] - expected[key]) for key in expected) < 1e-10


def test_a_record_of_the_same_size_stays_as_it_is() -> None:
    """Catches a change of what is trained where nothing is enlarged."""
    sample = Episode(decoded_at(SIZE, lengths=range(3, 4))[0], 1.0, 0, 0)
    same = fitted(sample, sharp_model(SIZE).family)
    assert same.trajectory is sample.trajectory


def test_sizes_may_be_mixed_in_a_batch() -> None:
    """Catches one size for all records of a batch: the first one's, or the family's own."""
    model = sharp_model(SIZE)
    records = [decoded_at(size, lengths=range(5, 6))[3] for size in (2, 8, 4)]
    together = scored(batch_of(records, model.family), model)
    for e, record in enumerate(records):
        alone = scored(batch_of([record], model.family), model)
        assert {key[1:] for key in together if key[0] == e} == {key[1:] for key in alone}
        for (_, place, moment), value in alone.items():
            assert together[e, place, moment] == pytest.approx(value, abs=1e-10)


def test_a_first_update_is_on_policy_once_the_behaviour_is_evaluated() -> None:
    """Catches ratios with the log-probabilities of the smaller blocks, which are those of other contexts."""
    model, objective = sharp_model(SIZE), TraceRL(behaviour="recomputed")
    batch = batch_of(decoded_at(4), model.family)
    with torch.no_grad():
        now = score(model, batch)
    fresh = objective.judge(replace(now, behaviour=now.logprob), batch)
    stale = objective.judge(now, batch)
    means = [add_metrics([loss.metrics]) for loss in (fresh, stale)]
    assert means[0]["ratio"] == pytest.approx(1.0, abs=1e-12)
    assert means[0]["kl"] == pytest.approx(0.0, abs=1e-12)
    assert means[1]["kl"] > 0.01


def test_what_completes_the_last_block_is_hidden_whatever_it_holds() -> None:
    """Catches pads that the model sees: mask or any id behind the record's end give the same rows."""
    record = next(t for t in decoded_at(4) if (len(t.prompt_ids) + len(t.step)) % SIZE == 4 and t.stop_length > 8)
    rows = [
        TraceRL(behaviour="recomputed").prepare(
            [Episode(record, 1.0, 0, 0)], replace(sharp_model(SIZE).family, pad_id=i), 0
        )
        for i in (3, 4)
    ]
    assert torch.equal(rows[0].tokens, rows[1].tokens)
    large = in_blocks(record, SIZE, mask_id=MASK)
    behind = np.arange(len(record.step), len(large.step))
    assert len(behind) == 4
    assert (large.step[behind] == NEVER).all()
    assert (canvas(large)[len(large.prompt_ids) + behind] == MASK).all()
    last = copies(large).block == copies(large).block.max()
    assert copies(large).hidden[last, 4:].all()
    assert not copies(large).target[last, 4:].any()


def test_rewards_and_versions_keep_their_places() -> None:
    """Catches numbers per token that end before the enlarged record does, and a record that cannot be made."""
    record = next(t for t in decoded_at(4) if (len(t.prompt_ids) + len(t.step)) % SIZE == 4)
    count = len(record.step)
    sample = Episode(replace(record, versions=np.arange(count)), 1.0, 0, 0, rewards=np.arange(count) + 1.0)
    large = fitted(sample, sharp_model(SIZE).family)
    assert large.rewards is not None
    assert large.trajectory.versions is not None
    assert large.rewards.tolist() == [*range(1, count + 1), 0, 0, 0, 0]
    assert large.trajectory.versions[:count].tolist() == list(range(count))
    assert large.trajectory.token_arrays()["logprob"][:count].tolist() == record.logprob.tolist()


def test_random_masks_follow_the_larger_blocks() -> None:
    """Catches masks on the old grid, or an index behind the record's end."""
    model, records = sharp_model(SIZE), decoded_at(4)
    samples = [Episode(t, 1.0, 0, i, 1.0) for i, t in enumerate(records)]
    batch = RandomMaskRL(low=1.0).prepare(samples, model.family, 0)
    assert len(batch.targets) == sum(t.stop_length for t in records)
    hidden = batch.stream > 0
    assert ((batch.positions // SIZE)[hidden] == batch.block[hidden]).all()


def test_what_cannot_be_enlarged_is_refused() -> None:
    """Catches blocks that straddle the old ones: their contexts would show tokens that came later."""
    record = decoded_at(4, lengths=range(5, 6))[0]
    for size in (6, 2, 7):
        with pytest.raises(ValueError, match=f"decoded in blocks of 4, and cannot be replayed in blocks of {size}"):
            in_blocks(record, size, mask_id=MASK)
        with pytest.raises(ValueError, match=f"decoded in blocks of 4, sdar has blocks of {size}"):
            fitted(Episode(record, 1.0, 0, 0), sharp_model(size).family)
    of_canvas = next(t for t in canvas_records() if t.block_size == 4)
    with pytest.raises(ValueError, match="was decoded with full attention"):
        fitted(Episode(of_canvas, 1.0, 0, 0), sharp_model(SIZE).family)
    with pytest.raises(ValueError, match="full attention, whose windows begin behind the prompt"):
        fitted(Episode(record, 1.0, 0, 0), replace(sharp_model(SIZE).family, attention="full", block_size=None))


def test_static_steps_of_small_blocks_are_as_many_rounds() -> None:
    """Catches rounds that merge the steps of the parts: B' tokens one by one are B' rounds."""
    prompts, settings = mixed_requests(Static(1), range(8, 9))
    settings = [replace(s, stop_ids=(), ignore_eos=True, max_new_tokens=16) for s in settings]
    record = Engine(with_block_size(sharp_model(SIZE), 4)).generate(prompts, settings)[0]
    seen = copies(in_blocks(record, SIZE, mask_id=MASK))
    assert seen.round.tolist() == [*range(8), *range(8)]
    assert seen.hidden.sum(axis=1).tolist() == [*range(8, 0, -1), *range(8, 0, -1)]


def test_recorded_numbers_of_smaller_blocks_are_not_trusted() -> None:
    """Catches ratios that begin far from 1, because nobody evaluated the behaviour policy on the larger blocks."""
    sample = Episode(decoded_at(4, lengths=range(5, 6))[0], 1.0, 0, 0)
    for objective in (TraceRL(), TraceRL(behaviour="recorded")):
        with pytest.raises(ValueError, match="decoded in blocks of 4 and is trained in blocks of 8"):
            objective.prepare([sample], sharp_model(SIZE).family, 0)
    assert RandomMaskRL().prepare([sample], sharp_model(SIZE).family, 0).count > 0
