"""``gsm8k``: word problems of grade school, 7,473 for training and 1,319 for the test (arXiv 2110.14168)."""

from dataclasses import dataclass

from revelm.tasks.math_benchmark import WithTraining


@dataclass(frozen=True)
class GSM8K(WithTraining):
    """Word problems whose answer is a number. Rows: ``question``, and ``answer`` that ends in ``#### 72``."""

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "gsm8k"

    @property
    def hub(self) -> str:
        """The data set of the hub that has the test."""
        return "openai/gsm8k:main[test]"

    @property
    def train_hub(self) -> str:
        """The data set of the hub that has the training problems."""
        return "openai/gsm8k:main[train]"
