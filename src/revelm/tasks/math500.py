"""``math500``: 500 problems of MATH for the test (arXiv 2305.20050), MATH's 7,500 for training (arXiv 2103.03874).

TraceRL (arXiv 2509.06949) trains on the levels 3 to 5: ``levels: [3, 4, 5]``.
"""

from dataclasses import dataclass

from revelm.tasks.math_benchmark import WithTraining


@dataclass(frozen=True)
class Math500(WithTraining):
    """Competition problems of five levels. Rows: ``problem``, ``level``, and ``answer`` or a boxed ``solution``."""

    max_bad_rows: int = 2  # two solutions of MATH have an empty box

    @property
    def name(self) -> str:
        """The short name under which results are reported."""
        return "math500"

    @property
    def hub(self) -> str:
        """The data set of the hub that has the test."""
        return "HuggingFaceH4/MATH-500[test]"

    @property
    def train_hub(self) -> str:
        """The data set of the hub that has the training problems."""
        return "DigitalLearningGmbH/MATH-lighteval:default[train]"
