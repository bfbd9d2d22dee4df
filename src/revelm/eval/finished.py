"""An evaluation that is finished: it is not asked again, but what is made of its answers can be asked anew."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from revelm.eval.batches import Asked
from revelm.eval.identity import SUMMARY, read_object
from revelm.eval.metrics import asked_ks, of_several
from revelm.eval.samples import Sample
from revelm.eval.store import SAMPLES, read_samples
from revelm.eval.tables import results_of
from revelm.tasks.task import AnswerTask


def finished_in(out: Path, every: Sequence[Asked]) -> dict[str, Any]:
    """The summary in ``out``, with pass@k and majority@k of the k that are asked now.

    ValueError for a summary that is damaged, and where not exactly the samples are there that it is of.
    """
    summary = read_object(out / SUMMARY)
    try:
        found = [(one, results_of(summary)[one.job.name]["settings"]) for one in every]
        pairs = [(one, name, settings[name]) for one, settings in found for name in one.job.asked.named_settings()]
        told = [list(numbers["pass_at_k"]) for _, _, numbers in pairs]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{out / SUMMARY}: damaged ({error!r}); give another --out") from error
    for (one, name, numbers), known in zip(pairs, told, strict=True):
        samples = _samples(one, name, out)
        wanted = asked_ks(one.job.asked.num_answers(name), one.job.asked.pass_at)
        if known != list(map(str, wanted)):
            is_voting = isinstance(one.task, AnswerTask)
            numbers |= of_several(samples, one.job.asked.pass_at, is_voting=is_voting)
    return summary


def _samples(asked: Asked, setting: str, out: Path) -> list[Sample]:
    """Every answer under the setting of that name."""
    file = out / asked.job.folder / SAMPLES / f"{setting}.jsonl"
    if not file.is_file():
        raise ValueError(f"resume: {file} is missing, though the evaluation is finished; give another --out")
    samples, each = read_samples(file), asked.job.asked.num_answers(setting)
    wanted = [(group, number) for group in range(len(asked.problems)) for number in range(each)]
    if [(one.group, one.number) for one in samples] != wanted:
        told = f"the {len(wanted)} answers in the order of the problems"
        raise ValueError(f"resume: {file} was changed: expected {told}, found {len(samples)}; give another --out")
    return samples
