"""One answer of an evaluation as a row: what was asked, what was answered, what it was worth, and how long it took."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from revelm.rollout.collect import Answer
from revelm.tasks.task import AnswerTask, Task

TOLD = ("seen", "group")
"""What is kept of ``Problem.info``: by what problems are told apart in results."""


@dataclass(frozen=True)
class Sample:
    """``group``: the place of the problem among those asked; ``number``: of the answer among those to it, from 0.

    ``prompt``: as the model saw it. ``answer``: the key by which majorities are counted, None where there is none.
    ``tokens``: up to the stop, counted while decoding. ``seed``: of its draws. ``info``: the ``TOLD`` of the problem.
    """

    problem: str
    group: int
    number: int
    question: str
    reference: str
    prompt: str
    text: str
    answer: str | None
    score: float
    reason: str
    breakdown: Mapping[str, float]
    tokens: int
    forwards: int
    finish_reason: str
    seed: int
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def correct(self) -> float:
        """1 or 0."""
        return self.breakdown["correct"]

    def row(self) -> dict[str, Any]:
        """All fields, as JSON has them."""
        return asdict(self)


def samples_of(
    answers: Sequence[Answer], task: Task, *, tokenizer: Any | None = None, places: Sequence[int] | None = None
) -> list[Sample]:
    """The rows of ``answers``, those to one problem being neighbours; without a tokenizer, prompts are left out.

    ``places``: of the problems among those of the whole evaluation, by ``Answer.group``.
    """
    numbers: dict[int, int] = {}
    rows = []
    for one in answers:
        number = numbers[one.group] = numbers.get(one.group, -1) + 1
        record, problem = one.trajectory, one.problem
        prompt = "" if tokenizer is None else str(tokenizer.decode(record.prompt_ids.tolist()))
        rows.append(
            Sample(
                problem=problem.id,
                group=one.group if places is None else places[one.group],
                number=number,
                question=problem.question,
                reference=problem.reference,
                prompt=prompt,
                text=one.completion.text,
                answer=task.answer(problem, one.completion) if isinstance(task, AnswerTask) else None,
                score=one.score.value,
                reason=one.score.reason,
                breakdown=dict(one.score.breakdown),
                tokens=record.num_tokens,
                forwards=record.num_forwards,
                finish_reason=record.finish_reason,
                seed=int(record.sampling.get("seed", 0)),
                info={name: problem.info[name] for name in TOLD if name in problem.info},
            )
        )
    return rows


def in_order(samples: Iterable[Sample]) -> list[Sample]:
    """By problem, then by number."""
    return sorted(samples, key=lambda one: (one.group, one.number))
