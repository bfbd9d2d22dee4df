r"""Rewards of whole answers by a language model: a grade for each, from the last ``\boxed{}`` of its reply.

The reward is the mean of the grades that a judge gave to an answer, laid out on 0 to 1. An answer that is left without
a grade (``on_failure: fallback``) gets the mean of the other answers to its problem, so that a failure of the judge
moves nothing between them; where none of them has one, the judge has no opinion.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from revelm.rewards.reward import BatchReward, Judged, Ratings
from revelm.rewards.verdict import read_grade
from revelm.rollout.judge import Judge, Question
from revelm.rollout.judge_prompt import GRADE_TEMPLATE, grade_prompt
from revelm.rollout.reward_config import PatientSpec


@dataclass(frozen=True)
class JudgeOutcome:
    """Grades from ``low`` to ``high``, as a reward of 0 to 1.

    ``judge``: the server. ``num_samples``: grades per answer. ``template``: what the judge is shown, with {answer} and
    perhaps {question} and {reference}; None: all three. It is told how to reply in any case. An empty answer is worth
    0, without asking.
    """

    judge: PatientSpec
    num_samples: int = 1
    low: float = 0.0
    high: float = 10.0
    template: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for grades in no order, no draws, and a template that shows no answer."""
        if not float("-inf") < self.low < self.high < float("inf"):
            raise ValueError(f"low={self.low}, high={self.high}: expected two numbers, the lower one first")
        if self.num_samples < 1:
            raise ValueError(f"num_samples={self.num_samples}: expected at least 1")
        if self.template is not None and "{answer}" not in self.template:
            raise ValueError("template: has no {answer}, so that the judge would not see what it grades")

    def open(self, seed: int) -> BatchReward:
        """A client. ValueError when the key is not in the environment, or the cache cannot be written."""
        return _Grades(self, seed)


class _Grades:
    """A judge at work; a ``BatchReward``."""

    def __init__(self, spec: JudgeOutcome, seed: int) -> None:
        self._spec = spec
        self._judge = Judge(spec.judge, seed=seed, read=lambda reply: read_grade(reply, spec.low, spec.high))

    def rate_all(self, answers: Sequence[Judged]) -> Ratings:
        """Rewards, and the counts of the judge. RunError as from ``Judge.verdicts``."""
        draws = range(self._spec.num_samples)
        asked = [i for i, answer in enumerate(answers) if answer.completion.text.strip()]
        questions = [Question((i, draw), self._messages(answers[i]), draw) for i in asked for draw in draws]
        grades, counts = self._judge.verdicts(questions)
        values: list[float | None] = [0.0] * len(answers)
        for i in asked:
            found = [grades[i, draw] for draw in draws if (i, draw) in grades]
            values[i] = (fmean(found) - self._spec.low) / (self._spec.high - self._spec.low) if found else None
        return Ratings(_filled(answers, values), counts=counts)

    def _messages(self, answer: Judged) -> list[dict[str, str]]:
        spec = self._spec
        template = GRADE_TEMPLATE if spec.template is None else spec.template
        return grade_prompt(answer.problem, answer.completion.text, template=template, low=spec.low, high=spec.high)


def _filled(answers: Sequence[Judged], values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Values, with the mean of the group where one is missing."""
    known: dict[int, list[float]] = {}
    for answer, value in zip(answers, values, strict=True):
        if value is not None:
            known.setdefault(answer.group, []).append(value)
    means = {group: fmean(found) for group, found in known.items()}
    return tuple(means.get(a.group) if v is None else v for a, v in zip(answers, values, strict=True))
