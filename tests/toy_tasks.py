"""Tasks outside the tree that give an untrained model something to learn from, or nothing on purpose.

Recipes reach them as ``kind: tests.toy_tasks:Parity``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from revelm.core.types import Completion, Problem, Score


@dataclass(frozen=True)
class Parity:
    """Right when the character codes of the answer add up to an even number: about half of all random answers are.

    ``question``: what every problem asks, before its number. ``is_constant``: every answer scores 0.
    """

    num_train: int = 6
    num_test: int = 3
    question: str = "q"
    is_constant: bool = False

    @property
    def name(self) -> str:
        """The name in results."""
        return "parity"

    def problems(self, split: str) -> Sequence[Problem]:
        """Numbered questions; none of them is in both splits."""
        first, count = (0, self.num_train) if split == "train" else (1000, self.num_test)
        return [Problem(f"{split}:{i}", f"{self.question}{i}", "") for i in range(first, first + count)]

    def prompt(self, problem: Problem) -> list[dict[str, str]]:
        """The question as the user's turn."""
        return [{"role": "user", "content": problem.question}]

    def score(self, problem: Problem, completion: Completion) -> Score:
        """1 or 0, by parity of the text."""
        is_right = not self.is_constant and sum(map(ord, completion.text)) % 2 == 0
        return Score(float(is_right), {"correct": float(is_right)})
