"""What the task itself says, as one of several rewards."""

from dataclasses import dataclass
from typing import Literal

from revelm.rewards.reward import Judged


@dataclass(frozen=True)
class TaskScore:
    """The task's own score. ``what``: "value", which may be partial, or "correct", which is 1 or 0."""

    what: Literal["value", "correct"] = "value"

    def rate(self, answer: Judged) -> float | None:
        """The score; None for a verdict that could not be reached."""
        if answer.score.breakdown.get("error", 0.0) > 0:
            return None
        return answer.score.value if self.what == "value" else answer.score.breakdown["correct"]
