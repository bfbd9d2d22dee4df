"""What an evaluation asks, task by task, with everything said: the recipe's entries over what stands around them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from revelm.core.config import merge
from revelm.core.validation import choices, dotted, validate
from revelm.eval.config import EvalConfig, EvaluationSpec, Expected, SettingSpec, TaskEntry

OWN_FILES = ("config.yaml", "state.json", "summary.json", "summary.md", "report.html")
"""What is in the folder of an evaluation beside the folders of its tasks."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True)
class Job:
    """One task of an evaluation. ``spec``: its component; ``address``: how errors speak of it.

    ``folder``: where its files are, below those of the evaluation ("": they are the evaluation's own). ``expected``: by
    setting.
    """

    name: str
    spec: Mapping[str, Any]
    asked: EvaluationSpec
    address: str = "task"
    folder: str = ""
    expected: Mapping[str, Expected] = field(default_factory=dict)


def jobs_of(config: EvalConfig) -> list[Job]:
    """The tasks of ``config`` in its order.

    ValueError when it has none, or both ``task`` and ``tasks``; for names that cannot be those of files, for k of
    pass@k that are more than the answers, for expectations of settings that are not asked, and for a resume of nothing.
    """
    if config.resume and config.out is None:
        raise ValueError("resume: goes on with what is in out; give --out as well")
    if (config.task is None) == (not config.tasks):
        both = "given beside tasks; keep one" if config.tasks else "required, but not given; or name several in tasks"
        raise ValueError(f"task: {both}")
    if config.task is not None:
        jobs = [Job(str(config.task.get("kind")), config.task, _asked(config), expected=config.expected)]
    elif config.expected:
        raise ValueError("expected: is for a single task; give tasks.NAME.expected")
    else:
        jobs = [_job(config, name, entry) for name, entry in config.tasks.items()]
    for job in jobs:
        _check(job)
    return jobs


def resolved(config: EvalConfig) -> EvalConfig:
    """``config`` with everything said in each entry, so that it reads back as the same jobs."""
    if not config.tasks:
        return config
    entries = {}
    for job in jobs_of(config):
        asked = {name: vars(job.asked)[name] for name in TaskEntry.model_fields if name in EvaluationSpec.model_fields}
        asked["settings"] = job.asked.named_settings()
        entries[job.name] = TaskEntry(task=dict(job.spec), expected=dict(job.expected), **asked)
    return config.model_copy(update={"tasks": entries})


def _asked(config: EvalConfig) -> EvaluationSpec:
    return EvaluationSpec(**{name: vars(config)[name] for name in EvaluationSpec.model_fields})


def _job(config: EvalConfig, name: str, entry: TaskEntry) -> Job:
    """An entry over the evaluation around it."""
    around = _asked(config)
    own = {key: vars(entry)[key] for key in TaskEntry.model_fields if key in EvaluationSpec.model_fields}
    given = {key: value for key, value in own.items() if value not in (None, (), {})}
    settings = _settings(around.named_settings(), entry, field=dotted("tasks", name, "settings"))
    asked = around.model_copy(update={**given, "settings": settings})
    where = dotted("tasks", name)
    return Job(name, {"kind": name, **entry.task}, asked, dotted(where, "task"), name, entry.expected)


def _settings(around: Mapping[str, SettingSpec], entry: TaskEntry, *, field: str) -> dict[str, SettingSpec]:
    """The settings of an entry: those of the evaluation, or the ones it names, each over the evaluation's of that name.

    The entry's own limits are stronger than those of the settings around it.
    """
    limits = {key: vars(entry)[key] for key in ("max_new_tokens", "block_size") if vars(entry)[key] is not None}
    found = {}
    for name in entry.settings or around:
        base = around[name].model_dump(mode="json") if name in around else {}
        own = entry.settings[name].model_dump(mode="json", exclude_unset=True) if name in entry.settings else {}
        found[name] = validate(SettingSpec, merge(merge(base, limits), own), where=dotted(field, name))
    return found


def _check(job: Job) -> None:
    where = dotted(*job.address.split(".")[:-1])
    settings = job.asked.named_settings()
    for what, names in (("tasks", [job.folder] if job.folder else []), (dotted(where, "settings"), settings)):
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"{what}: {name!r} names files; use letters, digits and . _ + -, beginning with a letter or digit"
                )
    if job.folder in OWN_FILES:
        raise ValueError(f"tasks: {job.folder!r} is a file of the evaluation; give the task another name")
    for k in job.asked.pass_at:
        if k > job.asked.samples_per_problem:
            raise ValueError(
                f"{dotted(where, 'pass_at')}: {k} is more than samples_per_problem={job.asked.samples_per_problem}"
            )
    for name in job.expected:
        if name not in settings:
            raise ValueError(f"{dotted(where, 'expected', name)}: no such setting{choices(name, settings)}")
