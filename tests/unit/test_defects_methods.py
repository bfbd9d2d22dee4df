"""What all methods and families have in common: pads, weights that are trained or decay, denominators, work done."""

import ast
import dataclasses
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from tokenizers.processors import TemplateProcessing

import revelm
from revelm.core import registry
from revelm.data.tokenizer import build_tiny_tokenizer, encode_chat, encode_demonstration
from revelm.objectives.batch import Episode, Text
from revelm.objectives.gae import advantages
from revelm.objectives.objective import FamilyObjective, RLObjective
from revelm.objectives.returns import entry_rewards
from revelm.objectives.score import score
from revelm.objectives.supervised import SFT_KINDS
from revelm.trainers.config import OptimizerSpec, RLConfig, SFTConfig
from revelm.trainers.curriculum import CurriculumConfig
from revelm.trainers.optimizer import Optimizer
from revelm.trainers.update import update
from tests.families import diffusion_families, tiny
from tests.full_attention import full_model, records
from tests.models import PAD, sharp_model

START, RESPONSE = 6, 7
MODELS: dict[str, Callable[[], Any]] = {"block": sharp_model, "full": full_model}


def texts(number: int, *, length: int = START + RESPONSE) -> list[Text]:
    """Random texts without pads or masks, with an order."""
    rng = np.random.default_rng(0)
    order = np.arange(1, length - START + 1, dtype=np.int32)
    return [Text(rng.integers(3, 40, length), START, key, step=order) for key in range(number)]


def padded_objectives() -> list[str]:
    """Registered methods for texts that can learn pads."""
    found = []
    for name in registry.names("objectives"):
        kind = registry.resolve("objectives", name)
        is_for_texts = not isinstance(registry.build("objectives", name), RLObjective)
        if is_for_texts and "num_pad" in {f.name for f in dataclasses.fields(kind)}:
            found.append(name)
    return found


@pytest.mark.parametrize("num_pad", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("attention", MODELS)
@pytest.mark.parametrize("name", padded_objectives())
def test_pads_mean_the_same_everywhere(name: str, attention: str, num_pad: int) -> None:
    """Catches a number of pads that one method counts per text, another per row or per block, or does not read."""
    family = MODELS[attention]().family
    objective = registry.build("objectives", {"kind": name, "num_pad": num_pad})
    assert isinstance(objective, FamilyObjective)
    try:
        objective.check_family(family)
    except ValueError:
        return
    room = -(START + RESPONSE) % family.block_size if family.attention == "block" else num_pad
    learnt = set()
    for seed in range(40):
        batch = objective.prepare(texts(3), family, seed)
        places = batch.positions.flatten()[batch.scored]
        learnt |= set(zip(places.tolist(), (batch.targets == PAD).tolist(), strict=True))
    expected = {(START + i, False) for i in range(RESPONSE)}
    assert learnt == expected | {(START + RESPONSE + i, True) for i in range(min(num_pad, room))}


@pytest.mark.parametrize("name", diffusion_families())
def test_every_weight_of_every_family_is_trained(name: str) -> None:
    """Catches weights that an optimiser holds and no gradient reaches: embeddings used without it, frozen parts."""
    model = tiny(name).train()
    optimizer = Optimizer(model, OptimizerSpec(learning_rate=1e-3), total_updates=1)
    objective = registry.build("objectives", SFT_KINDS[model.family.attention])
    update(model, optimizer, objective, objective.prepare(texts(16), model.family, 0))
    moments = {n: t for n, t in optimizer.state().items() if n.startswith("exp_avg_sq.")}
    assert {n.removeprefix("exp_avg_sq.") for n in moments} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    assert [n for n, t in moments.items() if not bool(t.any())] == []


@pytest.mark.parametrize("name", registry.names("models"))
def test_norms_and_biases_of_no_family_decay(name: str) -> None:
    """Catches weight decay that goes by names which some family does not use."""
    model = tiny(name)
    optimizer = Optimizer(model, OptimizerSpec(weight_decay=0.1), total_updates=1)
    decays = {id(p): group["weight_decay"] > 0 for group in optimizer.adam.param_groups for p in group["params"]}
    found = {n: decays[id(p)] for n, p in model.named_parameters()}
    is_spared = {n: "norm" in n.lower() or n.endswith("bias") for n in found}
    assert {n for n in found if found[n] == is_spared[n]} == set()
    assert any(is_spared.values())


@pytest.mark.parametrize("attention", MODELS)
def test_the_head_runs_on_scored_positions_only(attention: str) -> None:
    """Catches logits over the whole vocabulary for prompts, clean copies and padding, in scoring or in an update."""
    model = MODELS[attention]()
    objective = registry.build("objectives", SFT_KINDS[model.family.attention])
    batch = objective.prepare(texts(3), model.family, 0)
    counted: list[int] = []
    hook = model.lm_head.register_forward_hook(lambda _, inputs, __: counted.append(inputs[0].shape[:-1].numel()))
    try:
        score(model, batch)
    finally:
        hook.remove()
    assert sum(counted) == len(batch.scored) < batch.tokens.numel() // 2


@pytest.mark.parametrize("max_positions", [1, 10_000])
@pytest.mark.parametrize("attention", MODELS)
def test_an_update_divides_by_the_count_alone(attention: str, max_positions: int) -> None:
    """Catches a loss that is divided by the number of micro-batches as well, by the widest row, or once for each."""
    model = deepcopy(MODELS[attention]()).train()
    objective = registry.build("objectives", SFT_KINDS[model.family.attention])
    batch = objective.prepare([*texts(3), *texts(2, length=40)], model.family, 0)
    objective.judge(score(model, batch), batch).sum.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    expected = float(torch.nn.utils.get_total_norm(gradients)) / batch.count
    pieces = batch.split(max_positions)
    assert (len(pieces) == len(batch.tokens)) == (max_positions == 1)
    optimizer = Optimizer(model, OptimizerSpec(), total_updates=1)
    assert update(model, optimizer, objective, pieces)["grad_norm"] == pytest.approx(expected, rel=1e-9)


def schemas(schema: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """``schema`` and those of its sections."""
    yield schema
    for declared in schema.model_fields.values():
        for part in (declared.annotation, *get_args(declared.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from schemas(part)


def test_every_field_of_a_recipe_is_read() -> None:
    """Catches a setting that is accepted, documented and then looked at by nobody."""
    read: set[str] = set()
    for file in Path(revelm.__file__).parent.rglob("*.py"):
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        read |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    told = {
        name for config in (SFTConfig, RLConfig, CurriculumConfig) for s in schemas(config) for name in s.model_fields
    }
    for axis in ("objectives", "tasks", "rules"):
        for kind in registry.names(axis):
            told |= {f.name for f in dataclasses.fields(registry.resolve(axis, kind)) if f.init}
    assert len(told) > 100
    assert told - read == set()


def test_a_beginning_that_the_template_writes_is_not_added_again() -> None:
    """Catches a second token for the beginning of a text, from a tokenizer that writes one itself where it is let."""
    tokenizer = build_tiny_tokenizer([])
    tokenizer.add_special_tokens({"bos_token": "<|begin|>"})
    begin = tokenizer.bos_token_id
    assert isinstance(begin, int)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<|begin|> $A", None, [("<|begin|>", begin)])
    tokenizer.chat_template = "<|begin|>" + tokenizer.chat_template
    turns = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}]
    assert tokenizer("ab")["input_ids"][0] == begin, "it would write one itself"
    for ids in (encode_demonstration(tokenizer, turns)[0], encode_chat(tokenizer, turns[:1])):
        assert ids[0] == begin
        assert ids.count(begin) == 1


def calls(work: Callable[[], object]) -> int:
    """How many functions ``work`` calls, of Python and of C."""
    number = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return number


def test_advantages_take_no_work_per_token() -> None:
    """Catches loops over tokens: ten times the tokens in the same steps are the same calls."""
    found = []
    for width in (4, 40):
        episode, moment = (x.repeat(width) for x in np.divmod(np.arange(30), 10))
        numbers = np.random.default_rng(0).normal(size=(2, len(episode)))
        found.append(calls(lambda e=episode, m=moment, x=numbers: advantages(e, m, *x, gamma=0.9, lam=0.9)))
    assert found[1] <= found[0] + 5


def test_rewards_take_no_work_per_token() -> None:
    """Catches loops over entries: many entries of the same answers are the same calls."""
    found = []
    for times in (1, 20):
        worth = [np.ones(len(t.completion_ids)) for t in records()[:3]]
        samples = [Episode(t, 1.0, 0, key, rewards=worth[key]) for key, t in enumerate(records()[:3])]
        entries = [(s.key, place) for s in samples for place in range(len(s.trajectory.completion_ids))] * times
        episode, place = np.array(entries).T
        columns = {"episode": episode, "place": place, "moment": place}
        found.append(calls(lambda s=samples, c=columns: entry_rewards(s, c)))
    assert found[1] <= found[0] + 5
