"""Starts, fine-tuning and reinforcement learning of every arm: the protocol's configurations, the trainers' runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paper.arms import RL_ARMS, SAME_RUN, SFT_ARMS, experiments_with
from benchmarks.paper.compute import (
    collected_positions,
    compute_of,
    first_steps,
    next_steps,
    step_costs,
    step_rows,
    steps_for,
)
from benchmarks.paper.place import Place, locked
from benchmarks.paper.protocol import (
    BASES,
    COLLECT_TOKENS,
    FORWARD,
    INITIALISATION,
    PRIMARY,
    RL,
    START,
    TASK,
    TRAINED,
    TUNE,
    TUNE_EVALUATIONS,
    VOCAB_SIZE,
    Scale,
    settings,
)
from benchmarks.paper.restore import known_compute
from revelm.core.config import merge, parse_config, read_yaml
from revelm.core.registry import build
from revelm.core.types import Family
from revelm.data.tokenizer import encode_demonstration
from revelm.data.trace_rows import read_traces
from revelm.models.load import checkpoint_path, load_model, load_tokenizer, read_family
from revelm.objectives.batch import Text
from revelm.rollout.reveal_order import RevealOrder
from revelm.rollout.trace_collection import collect_traces, collection_settings
from revelm.tasks.demonstrations import worked_demonstrations
from revelm.trainers import quickstart, rl, sft
from revelm.trainers.config import RLConfig, SFTConfig
from revelm.trainers.stages import is_done

COUNTED = 64  # texts whose rows say how many positions an update takes
CONFIG = "config.yaml"
PLACES = ("out", "resume")  # of a configuration: where a run is, not what it does


def task_of(base: str, seed: int) -> dict[str, Any]:
    """The task of a seed, which has problems of its own."""
    return {**TASK, **BASES[base].task, "seed": seed}


def recipe(base: str, seed: int, scale: Scale) -> quickstart.QuickstartConfig:
    """A base as the recipe of a whole path; ``rl`` holds what all arms share."""
    known = BASES[base]
    rollout = {"problems_per_step": scale.problems_per_step, "group_size": scale.group_size, **known.decoding}
    train = {"steps": scale.rl_steps, "save_every": scale.value_after}
    return parse_config(
        quickstart.QuickstartConfig,
        {
            "task": task_of(base, seed),
            "seed": seed,
            "model": dict(known.model),
            "initialisation": dict(INITIALISATION),
            "vocab_size": VOCAB_SIZE,
            "sft": merge(START, {"objective": known.objective,
                                 "data": {"num": round(known.start_factor * scale.start_texts)},
                                 "train": {"steps": round(known.start_factor * scale.start_steps)}}),
            "rl": merge(merge(RL, {"rollout": rollout, "train": train}), scale.extra_rl),
            "eval": {},
        },
    )  # fmt: skip


def is_finished(config: SFTConfig | RLConfig, *, is_extended: bool = False) -> bool:
    """Whether the run of ``config`` is there and has all its steps.

    ValueError when the run that is there was told otherwise; ``is_extended``: but for its number of steps.
    """
    file = Path(config.out) / CONFIG
    if file.is_file():
        saved = parse_config(type(config), read_yaml(file))
        if is_extended:
            saved = saved.model_copy(update={"train": saved.train.model_copy(update={"steps": config.train.steps})})
        before, now = (one.model_dump(mode="json") for one in (saved, config))
        changed = [name for name in now if name not in PLACES and before[name] != now[name]]
        if changed:
            said = "; ".join(f"{name}: {before[name]} there, {now[name]} now" for name in changed)
            raise ValueError(f"{file}: another run is there ({said}); remove it, or change --out")
    return is_done(Path(config.out), config.train.steps)


def tuned_start(base: str, seed: int, place: Place) -> Path:
    """The model that all arms of a seed begin with: its checkpoint, trained if it is not there."""
    folder = place.start(base, seed)
    with locked(folder):
        config = recipe(base, seed, place.scale)
        wanted = quickstart.sft_config(config, folder / "model", folder / "sft")
        if not is_finished(wanted):
            quickstart.start_model(config, folder)
            sft.run(wanted)
    return checkpoint_path(folder / "sft")


def rl_configs(name: str, seed: int, place: Place, start: Path) -> list[RLConfig]:
    """The runs of an arm, one per stage; each begins where the one before it ends."""
    arm, folder = RL_ARMS[name], place.run(name, seed)
    config, found = recipe(arm.base, seed, place.scale), []
    for number, (steps, (_, changes)) in enumerate(zip(arm.steps(place.scale), arm.stages, strict=True)):
        out = folder / f"stage-{number + 1}"
        values = merge(merge(config.rl, changes), {"model": {"path": str(start)}, "out": str(out), "resume": True})
        values = merge(values, {"task": config.task, "train": {"steps": steps, "seed": seed}})
        found.append(parse_config(RLConfig, values))
        start = out / f"checkpoint-{steps}"
    return found


def budget_of(name: str, seed: int, place: Place) -> float | None:
    """What an arm is to spend: what its reference has spent, which is trained if there is no result of it; None: no
    limit."""
    reference = RL_ARMS[SAME_RUN.get(name, name)].budget
    if reference is None:
        return None
    known = known_compute(reference, seed, place, experiments_with(reference))
    return compute_of(reference, trained(reference, seed, place))["compute"] if known is None else known


def trained(name: str, seed: int, place: Place) -> list[Path]:
    """The run directories of an arm's stages, trained if they are not."""
    name = SAME_RUN.get(name, name)
    start, budget = tuned_start(RL_ARMS[name].base, seed, place), budget_of(name, seed, place)
    with locked(place.run(name, seed)):
        configs = rl_configs(name, seed, place, start)
        if budget is not None:
            (config,) = configs
            spend(config, RL_ARMS[name].stages[0][1], budget)
            return [Path(config.out)]
        for config in configs:
            if not is_finished(config):
                rl.run(config)
    return [Path(config.out) for config in configs]


def spend(config: RLConfig, changes: Mapping[str, Any], budget: float) -> None:
    """Train ``config``, in as many steps as come closest to ``budget``; ``changes``: of the arm, for its passes.

    The schedule of an arm is constant after its warm-up, so what is learnt does not depend on where a run pauses.
    """
    is_finished(config, is_extended=True)
    file = Path(config.out) / CONFIG
    steps = read_yaml(file)["train"]["steps"] if file.is_file() else first_steps(config.train.steps)
    while True:
        longer = config.model_copy(update={"train": config.train.model_copy(update={"steps": steps})})
        if not is_finished(longer, is_extended=True):
            rl.run(longer)
        costs = step_costs(changes, step_rows([Path(config.out)]))
        steps = next_steps(costs, budget)
        if steps == len(costs):
            return


@dataclass(frozen=True, eq=False)
class Collected:
    """Worked answers in the order in which a start reveals them: a file, its texts, and the positions it took."""

    file: Path
    texts: list[Text]
    positions: float


def traces(base: str, seed: int, place: Place) -> Collected:
    """The worked answers of experiment (1) as traces, collected if they are not there."""
    start, folder = tuned_start(base, seed, place), place.start(base, seed)
    file, family = folder / "traces.parquet", read_family(start)
    window = BASES[base].decoding.get("block_size")
    how = RevealOrder(tokens_per_step=COLLECT_TOKENS, block_size=window)
    with locked(folder):
        texts = worked_texts(load_tokenizer(start), base, seed, scale=place.scale)
        said = collection_settings(how, f"{base}-{seed}", family)
        collect_traces(load_model(start), texts, file, how=how, settings=said, report=lambda done, total: None)
    size, is_block = family.block_size or window, family.attention == "block"
    assert size is not None, "full attention is decoded in windows"
    total = sum(collected_positions(t, window=size, tokens_per_step=COLLECT_TOKENS, is_block=is_block) for t in texts)
    found = [Text(row.ids, row.prompt_length, row.source, row.step) for row in read_traces(file)]
    return Collected(file, found, float(total))


def worked_texts(tokenizer: Any, base: str, seed: int, *, scale: Scale) -> list[Text]:
    """Right answers to training problems."""
    task = build("tasks", task_of(base, seed), field="task")
    found = []
    for key, one in enumerate(worked_demonstrations(task, scale.tune_texts, seed=seed)):
        ids, prompt_length = encode_demonstration(tokenizer, one.messages)
        found.append(Text(np.array(ids, dtype=np.int64), prompt_length, key))
    return found


def positions_per_text(objective: Mapping[str, Any], texts: list[Text], family: Family) -> float:
    """Mean positions of the rows that ``objective`` makes of a text."""
    batch = build("objectives", objective, field="objective").prepare(texts[:COUNTED], family, 0)
    return float(batch.lengths.sum()) / len(texts[:COUNTED])


def tune_config(name: str, seed: int, place: Place, *, start: Path, steps: int) -> SFTConfig:
    """The fine-tuning of an arm of (1), with evaluations along the way."""
    arm, scale = SFT_ARMS[name], place.scale
    values = {
        "model": {"path": str(start)},
        "out": str(place.run(f"sft-{name}", seed)),
        "resume": True,
        "task": task_of(arm.base, seed),
        "objective": arm.objective,
        "data": {"path": str(place.start(arm.base, seed) / "traces.parquet")},
        "train": {"steps": steps, "seed": seed},
        "eval_every": max(1, steps // TUNE_EVALUATIONS),
        "eval": {"num_problems": scale.problems, "settings": {PRIMARY: settings(arm.base)[PRIMARY]}, "seed": seed},
    }
    return parse_config(SFTConfig, merge(TUNE, values))


@dataclass(frozen=True)
class Tuned:
    """A run of (1): its directory, compute spent on collecting its traces, and what every arm of its base spends."""

    run: Path
    collecting: float
    budget: float


def tune_costs(name: str, found: Collected, family: Family, scale: Scale) -> tuple[int, float, float]:
    """(steps, compute of collecting, budget) of an arm of (1): trace SFT takes the scale's steps and pays for its
    traces; the others train as long as that costs."""
    arm = SFT_ARMS[name]
    first = next(key for key, one in SFT_ARMS.items() if one.base == arm.base)
    each = {key: TRAINED * TUNE["batch_size"] * positions_per_text(SFT_ARMS[key].objective, found.texts, family)
            for key in (first, name)}  # fmt: skip
    collecting = FORWARD * found.positions
    budget = collecting + scale.tune_steps * each[first]
    own = collecting if name == first else 0.0
    return steps_for(budget - own, each[name]), own, budget


def fine_tuned(name: str, seed: int, place: Place) -> Tuned:
    """An arm of (1), trained if it is not."""
    arm = SFT_ARMS[name]
    start = tuned_start(arm.base, seed, place)
    steps, collecting, budget = tune_costs(name, traces(arm.base, seed, place), read_family(start), place.scale)
    config = tune_config(name, seed, place, start=start, steps=steps)
    with locked(Path(config.out)):
        if not is_finished(config):
            sft.run(config)
    return Tuned(Path(config.out), collecting, budget)
