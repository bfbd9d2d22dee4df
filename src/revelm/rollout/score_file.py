"""A file of answers, scored: the same rows in the same order, each with its ``score`` and the ``reason``.

A row with a list of answers gets lists of scores and reasons. A sum of rewards also gives the ``breakdown``.

The result appears when it is complete. Until then scores are kept in ``.NAME.partial`` beside it, one JSON object a
line as they are reached, so that a run that was killed can be taken up again.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from revelm.core.atomic import finite, write_text_atomic
from revelm.core.errors import RunError
from revelm.core.types import Score
from revelm.data.file_sets import files_of
from revelm.data.rows import Row, read_rows
from revelm.rollout.part_rows import is_part, part_items
from revelm.rollout.predictions import answer_rows
from revelm.rollout.row_rewards import read_items
from revelm.rollout.sum_rows import is_sum, read_sum, sum_items
from revelm.rollout.verdicts import verdict_stream
from revelm.rollout.workers import ScorePool

_ADDED = ("score", "reason", "breakdown")
_TEST = re.compile(r"^test \d+ of \d+: ")
_COUNT = re.compile(r"^\d+ of \d+ ")


@dataclass(frozen=True)
class ScoreJob:
    """What is to be scored. ``path``: the file; ``out``: the result, ``.jsonl``; ``fields``: of the reward.

    ``num_workers`` None: one per core. ``is_resumed``: scores of a run that was killed are kept.
    """

    reward: str
    path: str
    out: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    num_workers: int | None = None
    is_resumed: bool = False


@dataclass(frozen=True)
class ScoreSummary:
    """What came out: means and numbers are those of answers, of which a row may have several. ``reasons``: how often
    each kind of reason was given, the most frequent first."""

    num_rows: int
    num_answers: int
    mean: float
    num_correct: int
    num_errors: int
    reasons: tuple[tuple[str, int], ...]


def score_file(
    job: ScoreJob,
    report: Callable[[int, int], None] | None = None,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> ScoreSummary:
    """Score a file. ``report`` is called with the number of scores and of answers; ``tell`` with what is to be known.

    ValueError, before anything is scored, for a row that cannot be judged, with its number and field, for a result that
    cannot be written, and for scores of a killed run that would be lost. RunError where the disk is full.
    """
    _check(job)
    rows = read_rows(job.path, field="FILE")
    meant = _meant(job)
    several = [answer_rows(row, meant.get("prediction_field")) for row in rows]
    answers = [answer for row, some in zip(rows, several, strict=True) for answer in (some or [row])]
    stream = _stream(job, answers)
    partial = _Partial(job, meant, rows)
    scores = partial.read() if job.is_resumed else partial.check_unused()
    added = _ADDED if is_sum(job.reward) else _ADDED[:2]
    if taken := [name for name in added if any(name in row.fields for row in rows)]:
        tell(f"{job.path}: {' and '.join(taken)} of its rows are replaced in {job.out}")
    left = [place for place in range(len(answers)) if place not in scores]
    if report is not None:
        report(len(scores), len(answers))
    file = partial.open(scores)
    try:
        with file, ScorePool(job.num_workers) as pool:
            for place, score in stream(left, pool):
                scores[left[place]] = score
                file.write(_line(left[place], score))
                file.flush()
                if report is not None:
                    report(len(scores), len(answers))
        found = [scores[place] for place in range(len(answers))]
        write_text_atomic(job.out, "".join(_scored_rows(rows, several, found, added)))
    except OSError as error:
        raise RunError(f"{partial.file}: {error.strerror}; mend that and go on with --resume") from error
    partial.file.unlink()
    return _summary(found, len(rows))


def _check(job: ScoreJob) -> None:
    """ValueError for words that cannot be meant."""
    if not job.out.lower().endswith(".jsonl"):
        raise ValueError(f"--out: {job.out!r} must end in .jsonl; the rows are written as JSON Lines")
    if Path(job.out).is_dir():
        raise ValueError(f"--out: {job.out!r} is a folder; name a file")
    if Path(job.out).resolve() in [Path(file).resolve() for file in files_of(job.path, field="FILE")]:
        raise ValueError(f"--out: {job.out!r} is the file that is scored; name another one")
    field = job.fields.get("prediction_field", "")
    if not isinstance(field, str):
        raise ValueError(f"prediction_field: must be the name of a field, got {field!r}")
    if job.num_workers is not None and job.num_workers < 1:
        raise ValueError(f"--workers: {job.num_workers}, must be at least 1")


def _meant(job: ScoreJob) -> Mapping[str, Any]:
    """The fields, those of a recipe included."""
    if not is_sum(job.reward):
        return job.fields
    return read_sum(job.reward, job.fields).model_dump(mode="json", exclude_defaults=True)


def _stream(job: ScoreJob, rows: Sequence[Row]) -> Callable[[Sequence[int], ScorePool], Iterable[tuple[int, Score]]]:
    """What gives the scores of the rows at some places, each with its number among them."""
    if is_sum(job.reward):
        total, summed = sum_items(job.reward, read_sum(job.reward, job.fields), rows, path=job.path)
        return lambda places, pool: total.stream([summed[i] for i in places], pool)
    if is_part(job.reward):
        judge, judged = part_items(job.reward, job.fields, rows)
        return lambda places, _: judge.stream([judged[i] for i in places])
    task, items = read_items(job.reward, job.fields, rows, path=job.path)
    return lambda places, pool: verdict_stream(task, [items[i] for i in places], pool=pool)


class _Partial:
    """The scores of a run under way, and what it scores: others' are not gone on with."""

    def __init__(self, job: ScoreJob, fields: Mapping[str, Any], rows: Sequence[Row]) -> None:
        out = Path(job.out)
        self.file = out.with_name(f".{out.name}.partial")
        digest = hashlib.sha256()
        for row in rows:
            digest.update(json.dumps(row.fields, default=str).encode())
        self._head = {"reward": job.reward, "fields": dict(fields), "rows": digest.hexdigest()}

    def read(self) -> dict[int, Score]:
        """The scores by place; none where no run was killed. ValueError for those of other rows or another reward."""
        lines = self.file.read_text(encoding="utf-8").split("\n") if self.file.is_file() else []
        whole = [json.loads(line) for line in lines[:-1]]  # what follows the last line break was cut off
        if whole and whole[0] != self._head:
            raise ValueError(
                f"--resume: {self.file} holds scores of other rows or another reward; remove it, or leave --resume out"
            )
        return {entry.pop("place"): Score(**entry) for entry in whole[1:]}

    def check_unused(self) -> dict[int, Score]:
        """No scores. ValueError where a run that was killed has left some of these rows, which would be lost."""
        try:
            num = len(self.read())
        except ValueError:  # of other rows, or of another reward
            num = 0
        if num:
            told = f"holds {num} scores of a run that was stopped; go on with --resume, or remove it"
            raise ValueError(f"--out: {self.file} {told}")
        return {}

    def open(self, scores: Mapping[int, Score]) -> Any:
        """The file, with these scores in it, to go on with. ValueError where it cannot be written."""
        lines = [_line(place, score) for place, score in scores.items()]
        try:
            write_text_atomic(self.file, "".join([json.dumps(self._head) + "\n", *lines]))
            return self.file.open("a", encoding="utf-8")
        except OSError as error:
            raise ValueError(f"--out: {self.file} cannot be written ({error.strerror}); name another place") from error


def _line(place: int, score: Score) -> str:
    entry = {"value": score.value, "breakdown": dict(score.breakdown), "scope": score.scope, "reason": score.reason}
    return json.dumps({"place": place, **entry}) + "\n"


def _scored_rows(
    rows: Sequence[Row], several: Sequence[Sequence[Row] | None], scores: Sequence[Score], added: Sequence[str]
) -> Iterator[str]:
    """The rows with their scores, lists of them where there are ``several`` answers, as lines of JSON."""
    rest = iter(scores)
    for row, some in zip(rows, several, strict=True):
        told = [_told(next(rest), added) for _ in some or [row]]
        yield _scored(row, told[0] if some is None else {name: [one[name] for one in told] for name in added})


def _told(score: Score, added: Sequence[str]) -> dict[str, Any]:
    known = {"score": score.value, "reason": score.reason, "breakdown": dict(score.breakdown)}
    return {name: known[name] for name in added}


def _scored(row: Row, told: Mapping[str, Any]) -> str:
    """A row with its score as a line of JSON; in ASCII where it holds what UTF-8 cannot hold."""
    fields = finite({**row.fields, **told})
    line = json.dumps(fields, ensure_ascii=False, default=str)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(fields, default=str)
    return line + "\n"


def _summary(scores: Sequence[Score], num_rows: int) -> ScoreSummary:
    values = [score.value for score in scores if isfinite(score.value)]
    return ScoreSummary(
        num_rows=num_rows,
        num_answers=len(scores),
        mean=fmean(values) if values else 0.0,
        num_correct=sum(score.breakdown["correct"] > 0 for score in scores),
        num_errors=sum(score.breakdown.get("error", 0.0) > 0 for score in scores),
        reasons=tuple(Counter(_kind(score.reason) for score in scores).most_common()),
    )


def _kind(reason: str) -> str:
    """What reasons that differ in their details have in common: "different" of "different: 3 instead of 4"."""
    plain = _COUNT.sub("all ", _TEST.sub("", reason.removeprefix("error: ")))
    kind = plain.partition(":")[0].strip() or "no reason given"
    return f"error: {kind}" if reason.startswith("error") else kind
