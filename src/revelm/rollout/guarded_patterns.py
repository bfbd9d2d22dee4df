"""Rewards that match regular expressions, in the worker processes of verdicts.

An expression whose repetitions are nested, such as ``(a+)+b``, can take for ever on one answer: there it takes
``PATTERN_SECONDS`` of CPU, and then has not matched.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from revelm.core.types import Completion, Problem, Score
from revelm.rewards.answer_format import Format
from revelm.rewards.regex_match import Regex
from revelm.rewards.reward import Judged, Ratings
from revelm.rollout.verdicts import verdicts
from revelm.tasks.task import Messages

PATTERN_SECONDS = 1.0


@dataclass(frozen=True)
class PatternTask:
    """The reward as a guarded task without problems of its own. Breakdown: ``error`` where it has no opinion."""

    reward: Regex | Format

    @property
    def name(self) -> str:
        """The name in errors."""
        return "pattern"

    @property
    def score_seconds(self) -> float:
        """CPU seconds of one match."""
        return PATTERN_SECONDS

    def problems(self, _: str) -> Sequence[Problem]:
        """None: they are those of the answers."""
        return []

    def prompt(self, problem: Problem) -> Messages:
        """The question."""
        return [{"role": "user", "content": problem.question}]

    def score(self, problem: Problem, completion: Completion) -> Score:
        """What the reward says."""
        value = self.reward.rate(Judged(problem, completion, Score(0.0, {"correct": 0.0})))
        return Score(0.0, {"correct": 0.0, "error": 1.0}) if value is None else Score(value, {"correct": value})


def has_pattern(reward: object) -> bool:
    """Whether a reward matches a regular expression."""
    return isinstance(reward, Regex) or (isinstance(reward, Format) and reward.pattern is not None)


def rate_patterns(reward: Regex | Format, answers: Sequence[Judged]) -> Ratings:
    """The reward of every answer; 0 where the time is up. Only texts go to the workers."""
    items = [
        (Problem(a.problem.id, "", a.problem.reference), Completion(a.completion.text, 0, 0, "stop")) for a in answers
    ]
    scores = verdicts(PatternTask(reward), items)
    return Ratings(tuple(None if score.breakdown.get("error") else score.value for score in scores))
