"""Several runs one after another: SFT, then RL, then longer answers, other tasks, or larger blocks.

A stage is a run of ``revelm sft`` or ``revelm rl`` in a folder of its own, ``out/<name>``. It begins with the weights
that the stage before it ended with, and with a fresh optimiser. All stages are checked before the first begins, and
none is repeated when the run is resumed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from revelm.core.atomic import write_json_atomic, write_text_atomic
from revelm.core.config import Schema, Spec, dump_yaml, merge, parse_config, read_yaml
from revelm.core.registry import build
from revelm.core.validation import choices
from revelm.models.load import LATEST, checkpoint_path, load_tokenizer, read_family
from revelm.parallel import world
from revelm.rollout.open_rewards import check_rewards
from revelm.trainers import rl, sft
from revelm.trainers.best import read_best
from revelm.trainers.checkpoint import latest_checkpoint
from revelm.trainers.config import ModelSpec, RLConfig, SFTConfig
from revelm.trainers.critic import check_value_path
from revelm.trainers.evaluation import plan_evaluation
from revelm.trainers.rl_recipe import check_rl, fitting, rl_objective
from revelm.trainers.rollouts import Ask
from revelm.trainers.run_log import METRICS
from revelm.trainers.session import Start, find_start, sized_family
from revelm.trainers.stages import SUMMARY, Seconds, is_done, stage_rows, stage_summary
from revelm.trainers.texts import read_texts
from revelm.trainers.trackers import check_trackers
from revelm.viz.report import write_report

Kind = Literal["sft", "rl"]
KINDS: Mapping[str, type[SFTConfig] | type[RLConfig]] = {"sft": SFTConfig, "rl": RLConfig}
BEGINNINGS = ("last", "best")
OWN = ("kind", "begins_at")
PLACES = ("out", "resume")


class CurriculumConfig(Schema):
    """Stages in order, by name. Each has ``kind`` ("sft" or "rl") and fields of that run's recipe.

    A stage's fields lie over those of its kind (``sft``, ``rl``), and these over ``shared``, ``model`` and ``task``.
    ``model.path`` is where the first stage begins; each other begins where the one before it ended, at its newest
    checkpoint or, with ``begins_at: best``, at its best one.
    """

    model: ModelSpec
    out: str
    stages: dict[str, dict[str, Any]]
    task: Spec | None = None
    shared: dict[str, Any] = Field(default_factory=dict)
    sft: dict[str, Any] = Field(default_factory=dict)
    rl: dict[str, Any] = Field(default_factory=dict)
    resume: bool = False


@dataclass(frozen=True)
class Stage:
    """One run: its name, kind and configuration. ``begins_at``: which checkpoint of the stage before."""

    name: str
    kind: Kind
    config: Any
    begins_at: str

    @property
    def folder(self) -> Path:
        """The run directory."""
        return Path(self.config.out)

    @property
    def is_done(self) -> bool:
        """Whether it has run to its end."""
        return is_done(self.folder, self.config.train.steps)

    def run(self) -> Path:
        """Train, or go on training."""
        return sft.run(self.config) if self.kind == "sft" else rl.run(self.config)


def run(config: CurriculumConfig) -> Path:
    """Run all stages that are not done; returns the run directory. Errors of a stage stop the run."""
    folder, stages = Path(config.out), stages_of(config)
    with world.joined(config.model.device) as processes:
        _check_place(config, stages)
        check_stages(config, stages)
        due = [stage for stage in stages if processes.any(not stage.is_done)]
        with processes.together():
            if processes.is_main:
                folder.mkdir(parents=True, exist_ok=True)
                dump_yaml(config, folder / "config.yaml")
        seconds = Seconds(folder / "seconds.json", is_main=processes.is_main)
        for stage in due:
            seconds.timed(stage.name, stage.run)
        with processes.together():
            if processes.is_main:
                _conclude(folder, stages, seconds.values)
    return folder


def stages_of(config: CurriculumConfig) -> list[Stage]:
    """The configuration of every stage. ValueError names the stage and the field that is wrong."""
    if not config.stages:
        raise ValueError("stages: there is none; give each a name, and kind: sft or kind: rl")
    found: list[Stage] = []
    for name, given in config.stages.items():
        where = f"stages.{name}"
        if name.startswith(".") or Path(name).name != name:
            raise ValueError(f"{where}: {name!r} is to be the name of a folder; use letters, digits and hyphens")
        kind = given.get("kind")
        if kind not in get_args(Kind):
            raise ValueError(f"{where}.kind: {kind!r} is not known{choices(str(kind), KINDS)}")
        values = stage_values(config, name)
        _check_given(given, where, is_first=not found)
        if not isinstance(values.get("model"), dict):
            raise ValueError(f"{where}.model: {values.get('model')!r} is no mapping of fields; leave it out")
        values["model"] |= {"path": _beginning(config, found[-1] if found else None, given, where)}
        try:
            parsed = parse_config(KINDS[kind], values | {"out": str(Path(config.out) / name), "resume": True})
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        found.append(Stage(name, kind, parsed, given.get("begins_at", "last")))
    return found


def stage_values(config: CurriculumConfig, name: str) -> dict[str, Any]:
    """What the recipe says of one stage, all layers on top of each other."""
    given = config.stages[name]
    layers: list[Mapping[str, Any]] = [{"model": config.model.model_dump(mode="json", exclude_unset=True)}]
    layers += [{} if config.task is None else {"task": config.task}]
    layers += [config.shared, config.sft if given.get("kind") == "sft" else config.rl]
    layers += [{key: value for key, value in given.items() if key not in OWN}]
    values: dict[str, Any] = {}
    for layer in layers:
        values = merge(values, layer)
    return values


def check_stages(config: CurriculumConfig, stages: list[Stage]) -> None:
    """ValueError, naming the stage, for what any of them would refuse before it loads weights.

    The model is the first stage's throughout, with blocks of the size that each stage gives it.
    """
    family, tokenizer = read_family(config.model.path), load_tokenizer(config.model.path)
    for stage in stages:
        try:
            family = sized_family(stage.config.model, family)
            _check_stage(stage, Start(stage.config, None, family, tokenizer))
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"stages.{stage.name}: {error}") from error


def _check_stage(stage: Stage, start: Start) -> None:
    config = stage.config
    if stage.kind == "sft":
        sft.check_objective(config.objective, field="objective")
        settled = sft.settle_objective(config, start.family)
        if not stage.is_done:
            _check_texts(stage, replace(start, config=settled))
    else:
        task = build("tasks", config.task, field="task")
        check_rl(start, rl_objective(config), fitting(start, Ask(task, list(task.problems("train")))))
        if not stage.is_done:
            check_rewards(config.reward, task)
            if config.value is not None and not _is_to_come(config.value.path, stage):
                check_value_path(config.value, start.family)
    if config.eval_every:
        asked = build("tasks", config.task or {}, field="task")
        plan_evaluation(asked, config.eval, family=start.family, tokenizer=start.tokenizer)
    if not stage.is_done:
        check_trackers(config.trackers)


def _check_texts(stage: Stage, start: Start) -> None:
    """What the stage is to learn. Of demonstrations one is tried: a task makes as many more of the same kind."""
    config: SFTConfig = start.config
    if any(_is_to_come(source.path, stage) for source in config.data.sources()):
        return
    few = config.model_copy(update={"data": config.data.model_copy(update={"num": 1})})
    read_texts(few, start, build("objectives", config.objective, field="objective"))


def _is_to_come(path: str | None, stage: Stage) -> bool:
    """Whether nothing is at ``path`` yet, and it lies in the curriculum's folder, where an earlier stage may write."""
    if path is None or Path(path).exists():
        return False
    return Path(path).resolve().is_relative_to(stage.folder.parent.resolve())


def _check_given(given: Mapping[str, Any], where: str, *, is_first: bool) -> None:
    """ValueError for fields that the curriculum sets itself."""
    model = given.get("model")
    if isinstance(model, Mapping) and "path" in model:
        raise ValueError(f"{where}.model.path: stages begin where the one before ended; the first at model.path")
    for name in PLACES:
        if name in given:
            raise ValueError(f"{where}.{name}: belongs to the whole curriculum; give {name} beside stages")
    if is_first and "begins_at" in given:
        raise ValueError(f"{where}.begins_at: no stage comes before this one; it begins at model.path")


def _beginning(config: CurriculumConfig, before: Stage | None, given: Mapping[str, Any], where: str) -> str:
    """What the stage calls its model: the curriculum's, or the folder of the stage before."""
    if before is None:
        return config.model.path
    which = given.get("begins_at", "last")
    if which not in BEGINNINGS:
        raise ValueError(f"{where}.begins_at: {which!r} is not known{choices(str(which), BEGINNINGS)}")
    if which == "best" and before.config.best is None:
        raise ValueError(
            f"{where}.begins_at: the stage before keeps no best checkpoint; set its eval_every and its best"
        )
    return str(before.folder / "best" if which == "best" else before.folder)


def _check_place(config: CurriculumConfig, stages: list[Stage]) -> None:
    """ValueError when ``out`` holds a run and is not resumed, or what has begun there is not what is told now."""
    folder = Path(config.out)
    file = folder / "config.yaml"
    if not file.is_file():
        return
    if not config.resume:
        raise ValueError(f"out: {folder} already holds a run; add resume=true to go on, or give another folder")
    before = {stage.name: stage for stage in stages_of(parse_config(CurriculumConfig, read_yaml(file)))}
    begun = [name for name in before if latest_checkpoint(folder / name) is not None]
    if [stage.name for stage in stages[: len(begun)]] != begun:
        raise ValueError(f"stages: {', '.join(begun)} have begun in {folder}; they come first, in that order")
    for stage in stages[: len(begun)]:
        _check_begun(stage, before[stage.name], file, is_last=stage.name == begun[-1])
    if 0 < len(begun) < len(stages):
        _check_best(stages[len(begun) - 1], stages[len(begun)])


def _check_begun(stage: Stage, before: Stage, file: Path, *, is_last: bool) -> None:
    """ValueError when a stage that has begun would not go on as the run it is, or was told otherwise in ``file``.

    What may change is what any resumed run may change, but for one thing: only the last stage begun may be made
    longer, as the next one began with what this one had become.
    """
    pairs = {"kind": (before.kind, stage.kind), "begins_at": (before.begins_at, stage.begins_at)}
    if not is_last:
        pairs["train.steps"] = (before.config.train.steps, stage.config.train.steps)
    for name, (was, told) in pairs.items():
        if was != told:
            raise ValueError(f"resume: stages.{stage.name}.{name} is {told}, but {file} says {was}; keep it")
    try:
        find_start(stage.config, settle=sft.settle_objective if stage.kind == "sft" else None)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"stages.{stage.name}: {error}") from error


def _check_best(stage: Stage, after: Stage) -> None:
    """ValueError when ``after`` is to begin at a best checkpoint that ``stage``, now done, chose by something else."""
    found, spec = read_best(stage.folder), stage.config.best
    if after.begins_at != "best" or not stage.is_done or found is None:
        return
    chosen, told = (found.metric, found.setting, found.mode), (spec.metric, spec.setting, spec.mode)
    if chosen != told:
        raise ValueError(
            f"stages.{stage.name}.best asks for {' '.join(told)}, but the stage is done, and chose its best checkpoint "
            f"by {' '.join(chosen)}; keep that, or let {after.name} begin at the last one"
        )


def _conclude(folder: Path, stages: list[Stage], seconds: Mapping[str, float]) -> None:
    """One metrics.jsonl, summary.json, LATEST and report of all stages."""
    rows = [row for stage in stages for row in stage_rows(stage.folder, stage.name)]
    write_text_atomic(folder / METRICS, "".join(f"{json.dumps(row)}\n" for row in rows))
    found = {stage.name: {"kind": stage.kind, **stage_summary(stage.folder)} for stage in stages}
    write_json_atomic(folder / SUMMARY, {"stages": found, "seconds": dict(seconds)})
    last = stages[-1]
    write_text_atomic(folder / LATEST, f"{last.name}/{checkpoint_path(last.folder).name}\n")
    write_report(folder)
